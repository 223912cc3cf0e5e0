"""How what a simulated run gave is printed."""

from collections.abc import Sequence
from pathlib import Path

from planner.cli.output import Column, Output

RUN_COLUMNS = {
    "dnn": Column("DNN"),
    "rate_rps": Column("rate (req/s)", "{:.4g}".format),
    "offered_rps": Column("offered (req/s)", "{:.4g}".format),
    "requests": Column("requests", "{:,}".format),
    "attainment": Column("within SLO", "{:.2%}".format),
    "dropped": Column("dropped", "{:,}".format),
    "late": Column("late", "{:,}".format),
    "latency_p50_us": Column("p50 (ms)", lambda us: f"{us / 1000:.1f}"),
    "latency_p99_us": Column("p99 (ms)", lambda us: f"{us / 1000:.1f}"),
}


def show_written(printed: Output, violations: Sequence[str], out: Path) -> None:
    """Print which constraints a plan that was let pass breaks, and where results are."""
    printed.value("constraints_broken", violations)
    if violations:
        printed.line(f"note: the plan breaks {len(violations)} constraints, first: {violations[0]}")
    printed.line(f"records, summary, plan and problem written to {out}")
