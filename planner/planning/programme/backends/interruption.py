"""Solvers in a thread of their own, so that Ctrl-C reaches Python, which then asks them to end with what they have."""

from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import TypeVar

T = TypeVar("T")
M = TypeVar("M")

LOOK_S = 0.1  # between looks at whether work has ended, where the message that says so was lost to Ctrl-C


def interruptible(
    work: Callable[[Callable[[M], None]], T],
    cancel: Callable[[], object],
    report: Callable[[M], object] = lambda message: None,
) -> tuple[T, bool]:
    """Return what work returns, and whether Ctrl-C came.

    Parameters
    ----------
    work
        Is called with a function for messages on its way.
    cancel
        Is called when Ctrl-C comes or a report fails; work has to end soon then.
    report
        Is told every message, in the thread of the caller; what it raises is raised when work has ended, and
        KeyboardInterrupt is Ctrl-C.

    Examples
    --------
    >>> interruptible(lambda tell: tell("half-way") or 7, lambda: None, print)
    half-way
    (7, False)
    """
    results: list[T] = []
    failures: list[BaseException] = []
    messages: SimpleQueue[M | None] = SimpleQueue()
    finished = Event()

    def run() -> None:
        try:
            results.append(work(messages.put))
        except BaseException as error:
            failures.append(error)
        finally:
            finished.set()
            messages.put(None)  # wakes who waits

    Thread(target=run).start()
    interrupted = False
    while not (finished.is_set() and messages.empty()):
        try:
            message = messages.get(timeout=LOOK_S)
            if message is not None and not interrupted:
                report(message)
        except Empty:
            continue
        except KeyboardInterrupt:
            interrupted = True
            cancel()
        except BaseException as error:
            failures.append(error)
            cancel()
    if failures:
        raise failures[0]
    return results[0], interrupted
