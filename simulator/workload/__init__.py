"""Workloads: arrivals and their transformations, readers of recorded traces, generators."""

from simulator.workload.arrivals import fold, from_seconds, merge, scale, shift, thin, window
from simulator.workload.generators import bursts, closed_loop, clustered, diurnal, gamma, markov_modulated, poisson
from simulator.workload.maf19 import MinuteCounts, read_maf19, spread
from simulator.workload.maf21 import read_maf21
from simulator.workload.mimic import maf_like
from simulator.workload.offering import offer
from simulator.workload.readers import SCHEMAS, read_trace
from simulator.workload.statistics import TraceStatistics, index_of_dispersion, trace_statistics
from simulator.workload.texts import arrivals_text, maf19_text, maf21_text
from simulator.workload.trace import Trace, assign, select

__all__ = [
    "SCHEMAS",
    "MinuteCounts",
    "Trace",
    "TraceStatistics",
    "arrivals_text",
    "assign",
    "bursts",
    "closed_loop",
    "clustered",
    "diurnal",
    "fold",
    "from_seconds",
    "gamma",
    "index_of_dispersion",
    "maf19_text",
    "maf21_text",
    "maf_like",
    "markov_modulated",
    "merge",
    "offer",
    "poisson",
    "read_maf19",
    "read_maf21",
    "read_trace",
    "scale",
    "select",
    "shift",
    "spread",
    "thin",
    "trace_statistics",
    "window",
]
