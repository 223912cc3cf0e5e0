#!/usr/bin/env python
"""Reproduce IPA's results (JSys 2024) from a data folder: one sub-command per kind of result."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import process_time
from typing import Annotated, Any

import typer

from planner.cli.app import console, new_app, progress, run
from planner.files import write_text
from planner.model import InputError
from planner.planning.applications.accuracy import ranked
from planner.planning.applications.ipa import Configuration, Ipa, Option, Weights, optimise
from planner.planning.applications.ipa_profiles import (
    Point,
    TaskProfile,
    base_cores,
    fitted,
    scaled,
    task_sla_s,
)

app = new_app("Reproduce IPA's published results.")

Data = Annotated[Path, typer.Option(help="Folder of the data (profiles_synthetic.json, ...).")]
Out = Annotated[Path, typer.Option(help="CSV file to write.")]

COLUMNS = (
    "name",
    "objective",
    "objective_as_coded",
    "reference_objective",
    "enumeration_as_paper",
    "enumeration_as_coded",
    "variants",
    "batches",
    "replicas",
    "cores",
    "seconds",
)


@app.callback()
def main() -> None:
    """Give every command a name of its own."""


@app.command()
def solve(
    data: Data,
    cases: Annotated[Path, typer.Option(help="Cases with inputs and the reference's optima (reference_cases.json).")],
    out: Out,
) -> None:
    """Solve every case by the paper's formula, and by the code's for comparison; seconds are CPU time of the former."""
    profiles = read_profiles(data / "profiles_synthetic.json")
    rows = []
    with progress() as bar:
        for case in bar.track(json.loads(cases.read_text(encoding="utf-8")), description="cases"):
            begin_s = process_time()
            programme = programme_of(case["inputs"], profiles)
            found = optimise(programme)
            seconds = process_time() - begin_s
            coded = optimise(replace(programme, as_coded=True))
            rows.append(row_of(case, found, coded, seconds))
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(out, text.getvalue())
    equal = sum(
        abs(row["objective"] - row["enumeration_as_paper"]) <= 1e-6
        and abs(row["objective_as_coded"] - row["enumeration_as_coded"]) <= 1e-6
        for row in rows
    )
    slowest = max(row["seconds"] for row in rows)
    console.print(
        f"{equal} of {len(rows)} cases equal the enumeration by both formulas to 1e-6; "
        f"at most {slowest * 1000:.0f} ms of CPU time a case"
    )


def read_profiles(path: Path) -> dict[str, list[TaskProfile]]:
    """Read a file of profile points per application: task, variant, accuracy, cpu, batch, latency_s, throughput_rps."""
    applications = {}
    for name, rows in json.loads(path.read_text(encoding="utf-8")).items():
        tasks: dict[str, list[Point]] = {}
        for row in rows:
            point = Point(
                row["variant"], row["accuracy"], row["cpu"], row["batch"], row["latency_s"], row["throughput_rps"]
            )
            tasks.setdefault(row["task"], []).append(point)
        applications[name] = [TaskProfile(task, tuple(points)) for task, points in tasks.items()]
    return applications


def programme_of(inputs: Mapping[str, Any], profiles: Mapping[str, Sequence[TaskProfile]]) -> Ipa:
    """Return the programme of a case by the reference's rules for SLAs, base cores and baselines."""
    if inputs["profile_set"] not in profiles:
        raise InputError(f"no profiles of {inputs['profile_set']!r}; there are {sorted(profiles)}")
    measured = profiles[inputs["profile_set"]]
    known = measured if inputs["only_measured_profiles"] else [fitted(profile) for profile in measured]
    options, total_s = [], 0.0
    for number, (profile, source) in enumerate(zip(known, measured, strict=True)):
        sla_s = task_sla_s(profile, inputs["sla_factor"])
        total_s += sla_s
        counted = len({point.batch for point in source.points})
        cores = base_cores(profile, inputs["threshold_rps"], sla_s, counted)
        percent = profile.accuracies
        accuracies = ranked(percent) if inputs["normalize_accuracy"] else scaled(percent)
        variants = [inputs["active_variant"][number]] if inputs["baseline_mode"] == "scale" else list(percent)
        options.append(
            tuple(
                Option(variant, accuracies[variant], cores[variant], point.batch, point.latency_s, point.throughput_rps)
                for variant in variants
                for point in profile.of(variant, cores[variant])
                if point.batch <= inputs["batching_cap"]
            )
        )
    return Ipa(
        tuple(options),
        inputs["arrival_rate_rps"],
        total_s,
        inputs["accuracy_method"],
        Weights(inputs["alpha"], inputs["beta"], inputs["gamma"]),
        tuple(inputs["initial_replicas"]) if inputs["baseline_mode"] == "switch" else None,
        inputs["scaling_cap"],
    )


def row_of(case: Mapping[str, Any], found: Configuration, coded: Configuration, seconds: float) -> dict[str, Any]:
    """Return a case's row: what was found beside what the reference and the enumerations found."""
    choices = found.choices
    return {
        "name": case["name"],
        "objective": round(found.objective, 9),
        "objective_as_coded": round(coded.objective, 9),
        "reference_objective": case["gurobi"][0]["objective"] if case["gurobi"] else None,
        "enumeration_as_paper": (case["enumeration_as_paper"] or {}).get("objective"),
        "enumeration_as_coded": (case["enumeration_as_coded"] or {}).get("objective"),
        "variants": "+".join(choice.option.variant for choice in choices),
        "batches": "+".join(str(choice.option.batch) for choice in choices),
        "replicas": "+".join(str(choice.replicas) for choice in choices),
        "cores": found.cores,
        "seconds": round(seconds, 4),
    }


if __name__ == "__main__":
    run(app)
