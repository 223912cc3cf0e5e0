"""Records of runs, and what they say."""

from simulator.results.metrics import attainment, goodput_rps, latencies_us, summary, utilisation
from simulator.results.records import Records, Visits

__all__ = ["Records", "Visits", "attainment", "goodput_rps", "latencies_us", "summary", "utilisation"]
