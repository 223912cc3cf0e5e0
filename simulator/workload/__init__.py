"""Workloads: arrivals, the readers of recorded traces, generators, transformations."""

from simulator.workload.arrivals import fold, merge, scale, shift, thin, window
from simulator.workload.azure import read_maf21
from simulator.workload.trace import Trace, assign, select

__all__ = ["Trace", "assign", "fold", "merge", "read_maf21", "scale", "select", "shift", "thin", "window"]
