"""Where the series of a sweep run: in this process, in several, or on a Ray cluster. Results are the same.

The unit of work is a bundle: series of one trace whose load factor 1 is the same rate (the schedulers and policies
compared for one DNN), so that each rate is folded once for all of them.
"""

import os
import traceback
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from math import floor
from multiprocessing import get_context

from planner.model import InputError
from simulator.sweep.loads import Row, Series, SweepOptions, run_series
from simulator.workload.arrivals import ArrivalsUs, TimesS


@dataclass(frozen=True, eq=False)
class Item:
    """A series to run: its place in the sweep, and its rows that are known (by load)."""

    number: int
    series: Series
    known: dict[int, Row]


@dataclass(frozen=True)
class Done:
    """What came of an item: its rows, or an error in words."""

    number: int
    rows: list[Row]
    error: str = ""


Traces = Mapping[str, TimesS]

_traces: dict[str, TimesS] = {}  # of a worker process, set once when it starts


def run_here(items: Sequence[Item], traces: Traces, options: SweepOptions) -> Iterator[Done]:
    """Run items one after the other in this process."""
    for bundle in _bundles(items):
        yield from _run_bundle(bundle, traces[bundle[0].series.trace], options)


def run_in_processes(items: Sequence[Item], traces: Traces, options: SweepOptions, processes: int) -> Iterator[Done]:
    """Run items in several processes of this machine, in any order; each process gets the traces once."""
    pool = ProcessPoolExecutor(processes, get_context("spawn"), initializer=_keep, initargs=(dict(traces),))
    try:
        futures = [pool.submit(_run_kept, bundle, options) for bundle in _bundles(items)]
        for future in as_completed(futures):
            yield from future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def run_on_ray(items: Sequence[Item], traces: Traces, options: SweepOptions) -> Iterator[Done]:
    """Run items on the Ray cluster that is connected, else the one at RAY_ADDRESS, else one on this machine.

    Raises
    ------
    InputError
        Ray is not installed.
    """
    try:
        import ray
    except ImportError:
        raise InputError("Ray is not installed; run `pip install 'poolpipe[ray]'`, or sweep on this machine") from None
    started = not ray.is_initialized()
    if started:
        ray.init(address=os.environ.get("RAY_ADDRESS"), log_to_driver=False, include_dashboard=False)
    try:
        remote = ray.remote(num_cpus=1)(_run_bundle)
        shared = {name: ray.put(times_s) for name, times_s in traces.items()}
        waiting = [remote.remote(bundle, shared[bundle[0].series.trace], options) for bundle in _bundles(items)]
        while waiting:
            finished, waiting = ray.wait(waiting)
            for done in ray.get(finished):
                yield from done
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


def _run_kept(bundle: list[Item], options: SweepOptions) -> list[Done]:
    return _run_bundle(bundle, _traces[bundle[0].series.trace], options)


def _run_bundle(bundle: list[Item], times_s: TimesS, options: SweepOptions) -> list[Done]:
    """Run the items of a bundle; an error, in words, becomes part of the result, so that the others go on."""
    folded: dict[int, ArrivalsUs] = {}
    results = []
    for item in bundle:
        try:
            results.append(Done(item.number, run_series(item.series, times_s, options, item.known, folded)))
        except InputError as error:
            results.append(Done(item.number, [], str(error)))
        except Exception:  # a defect: its traceback is what helps
            results.append(Done(item.number, [], traceback.format_exc()))
    return results
