"""The files of a run on real devices.

Beside the records (`simulator.results`), per DNN: ``<dnn>.slices.csv`` and ``<dnn>.hops.csv`` (what was measured),
``<dnn>.incidents.csv`` (what went wrong and was dealt with), ``<dnn>.execution.json`` (all of it in short, and how it
came about), with a comparison also ``<dnn>.comparison.csv``, ``<dnn>.latencies.csv`` and ``<dnn>.comparison.png``.
"""

import csv
import io
import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from planner.files.atomic import write_text
from planner.files.names import cell, file_name
from simulator.dispatch.decisions import OUTCOMES
from simulator.executor.compare import Comparison, comparison_csv, latency_shares
from simulator.executor.execution import Execution
from simulator.executor.hand_over import hand_over
from simulator.executor.measure import Measurement
from simulator.results import attainment
from simulator.results.measured_plots import latency_comparison
from simulator.results.metrics import distribution, latencies_us
from simulator.results.style import save_figure


def write_incidents(execution: Execution, folder: Path) -> None:
    """Write what went wrong during a run; the file has no rows if nothing did."""
    rows = [
        {
            "time_us": incident.time_us,
            "slice": str(incident.slice),
            "what": incident.what,
            "requests": incident.requests,
        }
        for incident in execution.journal.incidents
    ]
    write_text(
        folder / f"{file_name(execution.system.dnn)}.incidents.csv",
        _table(rows, ["time_us", "slice", "what", "requests"]),
    )


def write_measurement(execution: Execution, measurement: Measurement, folder: Path) -> None:
    """Write what a run measured."""
    for name, figures in (("slices", measurement.slices), ("hops", measurement.hops)):
        rows = [asdict(each) for each in figures]
        write_text(
            folder / f"{file_name(execution.system.dnn)}.{name}.csv", _table(rows, list(rows[0]) if rows else [])
        )
    text = json.dumps(summarise(execution, measurement), indent=2, ensure_ascii=False, default=str)
    write_text(folder / f"{file_name(execution.system.dnn)}.execution.json", text + "\n")


def write_comparison(comparison: Comparison, folder: Path) -> None:
    """Write a comparison as a table, the latencies behind it, and their figure."""
    dnn = comparison.measured.system.dnn
    name = file_name(dnn)
    latencies = latency_shares(comparison)
    write_text(folder / f"{name}.comparison.csv", comparison_csv(comparison.rows))
    write_text(folder / f"{name}.latencies.csv", latencies.to_csv(index=False, float_format="%.6g"))
    figure = latency_comparison(latencies, title=f"{dnn}: prediction against measurement")
    save_figure(figure, folder / f"{name}.comparison.png")


def summarise(execution: Execution, measurement: Measurement) -> dict[str, Any]:
    """Return a run in short: what was asked, what came of it, on what."""
    records, warm_up_us = execution.records, execution.window_us[0]
    outcomes = np.bincount(records.outcome, minlength=len(OUTCOMES))
    costs = hand_over(execution)
    return {
        "dnn": execution.system.dnn,
        "engine": records.engine,
        "emulated": execution.emulated or "nothing",
        "interrupted": execution.interrupted,
        "settings": asdict(execution.settings),
        "guard_us": execution.guard_us,
        "slo_us": execution.system.slo_us,
        "requests": len(records),
        "outcomes": {name: int(count) for name, count in zip(OUTCOMES, outcomes, strict=True)},
        "attainment": attainment(records, warm_up_us),
        "latency_us": distribution(latencies_us(records, warm_up_us)),
        "throughput": asdict(measurement.throughput),
        "littles_law": asdict(measurement.little) | {"error": measurement.little.error},
        "window_s": measurement.window_s,
        "verified": None if execution.verdict is None else _told(asdict(execution.verdict)),
        "load_average": execution.load_average,
        "frontend_cpu_s": execution.frontend_cpu_s,
        "frontend_us_per_batch": execution.frontend_us_per_batch,
        "hand_over": None if costs is None else asdict(costs) | {"largest_rate_batches_per_s": costs.largest_rate},
        "disturbed": list(measurement.disturbed),
        "machine": {
            "platform": platform.platform(),
            "python": platform.python_version(),
            "poolpipe": version("poolpipe"),
            "onnxruntime": version("onnxruntime"),
        },
    }


def _told(figures: dict[str, Any]) -> dict[str, Any]:
    """Return figures as JSON has them, which knows no infinity."""
    return {key: str(each) if isinstance(each, float) and not isfinite(each) else each for key, each in figures.items()}


def _table(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {key: f"{value:.6g}" if isinstance(value, float) else cell(value) for key, value in row.items()} for row in rows
    )
    return text.getvalue()
