"""Where the series of a sweep run: in this process, in several, or on a Ray cluster. Results are the same.

The unit of work is a bundle: series of one trace whose load factor 1 is the same rate (the schedulers and policies
compared for one DNN), so that each rate is folded once for all of them.
"""

import signal
import traceback
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from math import floor
from multiprocessing import get_context
from pathlib import Path
from threading import current_thread, main_thread

from planner.model import InputError
from simulator.ray_cluster import address, join, ray_module
from simulator.sweep.loads import Row, Series, SweepOptions, run_series
from simulator.sweep.store import NotFiled, file_row
from simulator.workload.arrivals import ArrivalsUs, TimesS


@dataclass(frozen=True, eq=False)
class Item:
    """A series to run: its place in the sweep, its rows that are known (by load), and what new ones are filed under."""

    number: int
    series: Series
    known: dict[float, Row]
    key: str = ""


@dataclass(frozen=True)
class Done:
    """What came of an item: its rows, all there is to tell or those before an error (in words)."""

    number: int
    rows: list[Row]
    error: str = ""
    filed: bool = False


Traces = Mapping[str, TimesS]

ENDING = signal.SIGINT, signal.SIGTERM, signal.SIGHUP

_traces: dict[str, TimesS] = {}  # of a worker process, set once when it starts


def run_here(items: Sequence[Item], traces: Traces, options: SweepOptions, file: Path | None = None) -> Iterator[Done]:
    """Run items one after the other in this process; every run is filed when it is finished."""
    for bundle in _bundles(items):
        yield from _run_bundle(bundle, traces[bundle[0].series.trace], options, file)


def run_in_processes(
    items: Sequence[Item], traces: Traces, options: SweepOptions, processes: int, file: Path | None = None
) -> Iterator[Done]:
    """Run items in several processes of this machine, in any order; each process gets the traces once.

    Raises
    ------
    InputError
        A process was killed. What is filed is kept.
    """
    pool = ProcessPoolExecutor(processes, get_context("spawn"), initializer=_keep, initargs=(dict(traces),))
    try:
        with _signals_later():
            futures = [pool.submit(_run_kept, bundle, options, file) for bundle in _bundles(items)]
        for future in as_completed(futures):
            yield from future.result()
    except BrokenProcessPool:
        raise InputError(
            "a process of the sweep was killed (for want of memory?); what was finished is kept: run it again to go "
            "on, with fewer --jobs if memory is short"
        ) from None
    except BaseException:
        for process in list((pool._processes or {}).values()):  # what was told to stop stops now, not after its bundle
            process.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _signals_later() -> Iterator[None]:
    """Heed signals when all processes are started: one whose start is cut short says so at length, and is left behind.

    The processes inherit that Ctrl-C is held back, so that it ends them through this one.
    """
    if current_thread() is not main_thread():
        yield
        return
    came: list[int] = []
    held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    before = {number: signal.signal(number, lambda number, _: came.append(number)) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
    if came:
        signal.raise_signal(came[0])


def run_on_ray(items: Sequence[Item], traces: Traces, options: SweepOptions) -> Iterator[Done]:
    """Run items on the Ray cluster that is connected, else the one at RAY_ADDRESS, else one on this machine.

    Raises
    ------
    InputError
        Ray is not installed.
    """
    ray = ray_module()
    started = not ray.is_initialized()
    if started:
        join(ray, address())
    try:
        remote = ray.remote(num_cpus=1, num_returns="streaming")(_run_remote)
        shared = {name: ray.put(times_s) for name, times_s in traces.items()}
        waiting = [remote.remote(bundle, shared[bundle[0].series.trace], options) for bundle in _bundles(items)]
        while waiting:  # a series comes back when it is done, so that it is filed then, not when its bundle is
            (stream, *_), _ = ray.wait(waiting)
            if (done := next(stream, None)) is None:
                waiting.remove(stream)
            else:
                yield ray.get(done)
    finally:
        if started:
            ray.shutdown()


def _bundles(items: Sequence[Item]) -> list[list[Item]]:
    bundles: dict[tuple[str, int], list[Item]] = {}
    for item in items:
        bundles.setdefault((item.series.trace, floor(item.series.full_rps)), []).append(item)
    return list(bundles.values())


def _keep(traces: dict[str, TimesS]) -> None:
    _traces.update(traces)


def _run_kept(bundle: list[Item], options: SweepOptions, file: Path | None) -> list[Done]:
    return list(_run_bundle(bundle, _traces[bundle[0].series.trace], options, file))


def _run_remote(bundle: list[Item], times_s: TimesS, options: SweepOptions) -> Iterator[Done]:
    yield from _run_bundle(bundle, times_s, options, None)


def _run_bundle(bundle: list[Item], times_s: TimesS, options: SweepOptions, file: Path | None) -> Iterator[Done]:
    """Run the items of a bundle; an error, in words, becomes part of the result, so that the others go on."""
    offered: dict[float, ArrivalsUs] = {}
    for item in bundle:
        finished: list[Row] = []

        def done(row: Row, item: Item = item, finished: list[Row] = finished) -> None:
            if file is not None:
                file_row(file, item.key, row)
            finished.append(row)

        filed = file is not None
        try:
            rows = run_series(item.series, times_s, options, item.known, offered, done)
            yield Done(item.number, rows, filed=filed)
        except NotFiled:
            raise
        except InputError as error:
            yield Done(item.number, finished, str(error), filed)
        except Exception:  # a defect: its traceback is what helps
            yield Done(item.number, finished, traceback.format_exc(), filed)
