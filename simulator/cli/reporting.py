"""Commands that show results: ``report`` makes one HTML page of a folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from planner.cli.app import console
from planner.files import load_plan, load_problem, name_of, write_text
from planner.model import InputError, Plan, Problem, digest
from simulator.cli.folders import takeover_folder

if TYPE_CHECKING:
    import pandas as pd

    from simulator.results.report import Part, Report


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    app.command()(report)


def report(
    folder: Annotated[
        Path, typer.Argument(help="Folder of results: of run, sweep or execute, or one that holds some.")
    ],
    out: Annotated[Path, typer.Option(help="HTML file to write.")] = Path("out/report.html"),
    title: Annotated[str | None, typer.Option(help="Its title. [default: the folder's name]")] = None,
) -> None:
    """Make one self-contained HTML page: problems, plans drawn, tables, figures, versions and hashes."""
    from simulator.results.report import report_html

    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give the folder of a run, a sweep or an execution")
    found = collect(folder, title or folder.resolve().name)
    if not found.parts and found.runs is None and found.summary is None and not found.executions:
        raise InputError(
            f"{folder}: nothing to report; expected problem.json with plans, runs.csv, summary.csv or an execution"
        )
    write_text(out, report_html(found))
    console.print(f"report of {folder} written to {out}", highlight=False, soft_wrap=True)


def collect(folder: Path, title: str) -> Report:
    """Read whatever results lie in a folder and below it."""
    from simulator.results.report import Report

    facts = {"poolpipe": version("poolpipe")}
    for path in sorted(folder.rglob("run.json")):
        with _reading(path):
            facts |= _facts(json.loads(path.read_text(encoding="utf-8")), path.parent.relative_to(folder))
    return Report(
        title=title,
        parts=[_part(path, folder) for path in sorted(folder.rglob("problem.json"))],
        runs=_tables(folder, "runs.csv", "runs.parquet", "sweep.csv"),
        largest=_tables(folder, "largest.csv"),
        summary=_tables(folder, "summary.csv"),
        executions=_executions(folder),
        facts=facts,
    )


def _part(path: Path, folder: Path) -> Part:
    """Read a problem, the plans beside it that were made for it, and the records of the runs of a single plan."""
    from simulator.engine import build_system
    from simulator.engine.world import combined
    from simulator.results.report import Part
    from simulator.results.tables import read_records

    problem = load_problem(path)
    plans: dict[str, Plan] = {}
    others: list[str] = []
    for beside in sorted(path.parent.glob("*.json")):
        with _reading(beside):
            is_plan = '"schema": "plan/' in beside.read_text(encoding="utf-8", errors="replace")[:200]
        if is_plan:
            plan = load_plan(beside)
            if plan.problem_sha256 in ("", digest(problem)):
                plans[beside.stem] = plan
            else:
                others.append(beside.name)
    records = {}
    later = _took_over(path.with_name("run.json"))
    if len(plans) == 1 and later is not None:
        in_charge = [(problem, plan) for plan in plans.values()] + later
        for written in sorted(path.parent.glob("*.records.*")):
            dnn = name_of(written.name.partition(".records.")[0])
            system = combined([build_system(of, plan, dnn) for of, plan in in_charge])
            records[dnn] = read_records(written, system)
    name = path.parent.relative_to(folder).as_posix()
    return Part(folder.resolve().name if name == "." else name, problem, plans, records, others)


def _took_over(path: Path) -> list[tuple[Problem, Plan]] | None:
    """Return the plans that took over in a run, in order: its records are of all of them. None: they are not there."""
    if not path.exists():
        return []
    with _reading(path):
        world = json.loads(path.read_text(encoding="utf-8")).get("world")
        switches = len(world["switches"]) if world else 0
    folders = [path.with_name(takeover_folder(number)) for number in range(1, switches + 1)]
    if not all(folder.is_dir() for folder in folders):
        return None
    return [(load_problem(one / "problem.json"), load_plan(one / "plan.json")) for one in folders]


def _facts(run: dict[str, Any], where: Path) -> dict[str, str]:
    prefix = "" if where == Path() else f"{where.as_posix()}: "
    versions = {f"{name}": str(number) for name, number in run.get("versions", {}).items()}
    return versions | {f"{prefix}{key}": str(value) for key, value in run.items() if key not in ("schema", "versions")}


def _executions(folder: Path) -> dict[str, dict[str, pd.DataFrame]]:
    """Read what runs on devices wrote, by DNN (with its folder, where that is not the one reported)."""
    from simulator.results.report import EXECUTED

    found = {}
    for path in sorted(folder.rglob("*.slices.csv")):
        stem = path.name.removesuffix(".slices.csv")
        dnn = name_of(stem)
        beside = {kind: path.with_name(f"{stem}.{kind}.csv") for kind in EXECUTED}
        where = path.parent.relative_to(folder).as_posix()
        name = dnn if where == "." else f"{where}, {dnn}"
        written = {kind: one for kind, one in beside.items() if one.exists()}
        # A table of nothing is an empty line; an empty file is a broken one.
        found[name] = {kind: _read(one) for kind, one in written.items() if one.read_bytes() != b"\n"}
    return found


def _tables(folder: Path, *names: str) -> pd.DataFrame | None:
    """Read the first of these tables that a folder has, else all those below it, one after the other."""
    import pandas as pd

    own = [folder / name for name in names if (folder / name).exists()][:1]
    found = own or [path for name in names for path in sorted(folder.rglob(name))]
    return pd.concat([_read(path) for path in found], ignore_index=True) if found else None


def _read(path: Path) -> pd.DataFrame:
    from simulator.results.tables import read_table

    with _reading(path):
        return read_table(path)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Say which file of results is broken; pandas, pyarrow and json all raise kinds of ValueError."""
    try:
        yield
    except (OSError, ValueError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: cannot be read as results ({reason}); write it again") from None
