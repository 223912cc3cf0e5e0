"""Solvers in a thread of their own, so that Ctrl-C reaches Python, which then asks them to end with what they have."""

from collections.abc import Callable
from threading import Event, Thread
from typing import TypeVar

T = TypeVar("T")


def interruptible(work: Callable[[], T], cancel: Callable[[], object]) -> tuple[T, bool]:
    """Return what work returns, and whether Ctrl-C came; ``cancel`` is then called, and work has to end soon.

    >>> interruptible(lambda: 7, lambda: None)
    (7, False)
    """
    results: list[T] = []
    failures: list[BaseException] = []
    finished = Event()  # not Thread.join: interrupted once, it no longer waits (Python 3.11)

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            failures.append(error)
        finally:
            finished.set()

    Thread(target=run).start()
    interrupted = False
    while not finished.is_set():
        try:
            finished.wait()
        except KeyboardInterrupt:
            interrupted = True
            cancel()
    if failures:
        raise failures[0]
    return results[0], interrupted
