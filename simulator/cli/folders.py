"""Folders of results: a run owns its own, so that nothing in it is of another."""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from planner.files import save, write_text
from planner.files.atomic import require_folder
from planner.model import InputError, Plan, Problem, TaskPlan

RUN = "run.json"
# What `run` and `execute` write; of a run in PPipe's layout also a folder per DNN with master.csv.
GIVEN = ("plan.json", "problem.json")
WRITTEN = (
    RUN, "summary.csv", "sequences.csv", *GIVEN, "*.records.*", "takeover-*/*.json",
    "requests.parquet", "visits.parquet",
)  # fmt: skip
MEASURED = tuple(
    f"*.{kind}"
    for kind in ("comparison.csv", "comparison.png", "latencies.csv", "slices.csv", "hops.csv", "incidents.csv",
                 "execution.json")
)  # fmt: skip


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a folder, made if it is missing, while a command writes its results into it; an empty one is left for none.

    Raises
    ------
    InputError
        Another command writes into it now, or nothing can be written there.
    """
    require_folder(folder)
    try:
        made = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise InputError(f"{folder}: cannot write there ({error.strerror}); choose another output folder") from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"{folder}: another command is writing its results there; wait, or choose another --out"
            ) from None
        yield
    finally:
        os.close(handle)
        with suppress(OSError):  # one that holds something stays
            for path in made:
                path.rmdir()


@contextmanager
def owned(folder: Path, what: Mapping[str, Any], *, overwrite: bool, again: bool = False) -> Iterator[None]:
    """Hold a folder while a run writes its results into it, beginning with `write_what`.

    Parameters
    ----------
    overwrite
        Remove the results of an earlier run before.
    again
        The same run gives the same results: a folder of it may be written again.

    Raises
    ------
    InputError
        Another command writes into the folder now, or it holds the results of another run or a sweep.
    """
    with held(folder):
        _require_free(folder, what, overwrite, again)
        yield


def write_what(
    folder: Path,
    what: Mapping[str, Any],
    problem: Problem,
    plan: Plan | TaskPlan,
    takeovers: Sequence[tuple[Problem, Plan]] = (),
) -> None:
    """Write what is run: its settings, problem and plan, and in folders of their own the plans that take over."""
    write_text(folder / RUN, json.dumps(what, indent=2) + "\n")
    save(problem, folder / "problem.json")
    save(plan, folder / "plan.json")
    for number, (other_problem, other_plan) in enumerate(takeovers, 1):
        save(other_problem, folder / takeover_folder(number) / "problem.json")
        save(other_plan, folder / takeover_folder(number) / "plan.json")


def takeover_folder(number: int) -> str:
    """Return the name of the folder of a plan that takes over, numbered from 1."""
    return f"takeover-{number}"


def require_no_run(folder: Path, overwrite: bool) -> None:
    """Refuse a folder that holds the results of a run, or remove them to ``overwrite`` them."""
    if (folder / RUN).exists():
        _remove(folder, _results_of_runs(folder), overwrite)


def _require_free(folder: Path, what: Mapping[str, Any], overwrite: bool, again: bool) -> None:
    """Refuse a folder that holds the results of something else, or remove them."""
    if (folder / "sweep.json").exists():
        raise InputError(f"{folder}: holds the results of a sweep; choose another --out")
    if not (again and _said(folder / RUN) == json.loads(json.dumps(what))):
        _remove(folder, _results_of_runs(folder), overwrite)


def _results_of_runs(folder: Path) -> list[Path]:
    held = [path for pattern in (*WRITTEN, *MEASURED) for path in sorted(folder.glob(pattern))]
    return held + [path for path in sorted(folder.glob("*/*.csv")) if (path.parent / "master.csv").exists()]


def _remove(folder: Path, held: Sequence[Path], overwrite: bool) -> None:
    given = [path for path in held if path.name in GIVEN and path.parent == folder]
    if given and not (folder / RUN).exists():
        raise InputError(f"{given[0]}: is not the result of a run, which would replace it; choose another --out")
    if held and not overwrite:
        raise InputError(
            f"{folder}: holds the results of another run ({held[0].relative_to(folder)}); choose another --out, or "
            "replace them with --overwrite"
        )
    for path in held:
        path.unlink()
        if path.parent != folder:
            with suppress(OSError):
                path.parent.rmdir()


def _said(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
