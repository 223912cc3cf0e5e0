"""All DNNs of a plan in one run on this machine (`execute --together`)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from planner.cli.app import errors
from planner.cli.output import Output
from planner.files import file_name
from planner.model import InputError
from simulator.cli.demand import Offered
from simulator.cli.folders import write_what
from simulator.cli.plan_files import LoadedPlan
from simulator.engine.plans import pools_of
from simulator.executor import Settings
from simulator.executor.networks.together import ALSO, Together, execute_together
from simulator.results import attainment, summary
from simulator.results.sequences import sequence_tables
from simulator.results.tables import write_records, write_table

__all__ = ["ALSO", "run_together"]


def run_together(
    loaded: LoadedPlan,
    models: Mapping[str, ir.Model],
    offered: Mapping[str, Offered],
    settings: Settings,
    samples: Mapping[str, list[dict[str, np.ndarray]] | None],
    what: dict[str, Any],
    out: Path,
    printed: Output,
) -> None:
    """Run all DNNs, write records and summary, and show what came of them.

    Raises
    ------
    InputError
        As `execute_together`, and where no request was answered or an answer is wrong.
    """
    if settings.cluster != "local" or settings.emulation.network:
        raise InputError(
            "--together: runs on this machine and its own network; leave out --cluster and --emulate-network"
        )
    arrivals_us = {name: one.arrivals_us for name, one in offered.items()}
    inputs = {name: own for name, own in samples.items() if own is not None}
    run = execute_together(loaded.problem, loaded.plan, models, arrivals_us, settings, inputs=inputs)
    write_what(out, what, loaded.problem, loaded.plan)
    rows = []
    for name, records in run.records.items():
        write_records(records, out / f"{file_name(name)}.records.csv")
        said: dict[str, Any] = {
            "dnn": name,
            "rate_rps": offered[name].rate_rps,
            "offered_rps": offered[name].offered_rps,
        }
        said |= {"policy": settings.policy, "engine": records.engine}
        rows.append(said | summary(records, round(1e6 * settings.warmup_s)))
    write_table(rows, out / "summary.csv")
    pools = pools_of(loaded.plan, list(run.records))
    write_table(
        sequence_tables(list(run.records.values()), pools, round(1e6 * settings.warmup_s)), out / "sequences.csv"
    )
    printed.value("runs", rows)
    _show(run, settings, printed)
    _require_right(run)
    printed.line(f"records written to {out}")


def _show(run: Together, settings: Settings, printed: Output) -> None:
    for name, records in run.records.items():
        share = attainment(records, round(1e6 * settings.warmup_s))
        printed.line(f"{name}: attainment {share:.2%} of {len(records)} requests")
        if name in run.verdicts:
            printed.line(f"verified: {run.verdicts[name]}")
    for incident in run.execution.incidents:
        errors.print(f"note: at {incident.time_us / 1e6:.1f} s server {incident.server}: {incident.what}")


def _require_right(run: Together) -> None:
    """Refuse a run that answered nothing, or wrongly."""
    if run.execution.stopped_us is None and not any(one.finished.any() for one in run.records.values()):
        raise InputError("none of the requests was answered")
    for name, verdict in run.verdicts.items():
        if verdict.wrong:
            raise InputError(f"{name}: {verdict}")
