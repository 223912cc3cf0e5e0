"""Records of runs, and what they say."""

from simulator.results.metrics import (
    attainment,
    distribution,
    goodput_rps,
    latencies_us,
    quantile,
    summary,
    utilisation,
)
from simulator.results.records import Records, Visits

__all__ = [
    "Records",
    "Visits",
    "attainment",
    "distribution",
    "goodput_rps",
    "latencies_us",
    "quantile",
    "summary",
    "utilisation",
]
