"""Sweeps: many plans × traces × loads × policies × seeds × worlds, on all cores, resumable."""

from simulator.sweep.loads import (
    LARGEST_LOAD,
    LOADS,
    Series,
    SweepOptions,
    largest_load,
    rate_of_load,
    run_load,
    run_series,
)
from simulator.sweep.store import Store
from simulator.sweep.sweeps import Failure, Hosts, SweepResult, run_sweep, series_of_plan

__all__ = [
    "LARGEST_LOAD",
    "LOADS",
    "Failure",
    "Hosts",
    "Series",
    "Store",
    "SweepOptions",
    "SweepResult",
    "largest_load",
    "rate_of_load",
    "run_load",
    "run_series",
    "run_sweep",
    "series_of_plan",
]
