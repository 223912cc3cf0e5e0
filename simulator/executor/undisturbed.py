"""What a frontend's loop is run within: Ctrl-C that ends it in order, no garbage collection, priority if asked for."""

import gc
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from planner.model import InputError


@contextmanager
def stopping_on_interrupt(end: Callable[[], None]) -> Iterator[None]:
    """Let Ctrl-C, a request to end or the loss of the terminal end the run in order; a second one ends it at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(signum: int, frame: object) -> None:
        restore()
        end()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        restore()


@contextmanager
def quietly(realtime: bool) -> Iterator[None]:
    """Keep the loop from being disturbed: by the garbage collector (it makes no cycles), and by others if asked to."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        with ahead_of_workers(realtime):
            yield
    finally:
        if was_on:
            gc.enable()


@contextmanager
def ahead_of_workers(realtime: bool) -> Iterator[None]:
    """Run the frontend before anything else on its core, if asked to (see `Settings.realtime`)."""
    if not realtime:
        yield
        return
    try:
        before, parameter = os.sched_getscheduler(0), os.sched_getparam(0)
        # Workers that are started meanwhile are not to inherit it.
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    except (AttributeError, PermissionError):
        raise InputError(
            "realtime: this system does not let the frontend run at real-time priority; run as root or allow it "
            "(`ulimit -r 1`), or leave out --realtime"
        ) from None
    try:
        yield
    finally:
        os.sched_setscheduler(0, before, parameter)
