"""The results folder of a sweep: rows as they come, found again by the content that they were computed from.

``runs.jsonl`` gets a line per finished run at once, so that whatever ends a sweep loses nothing; ``sweep.json`` says
whose folder it is. A sweep may grow (more plans, traces, loads), and unfinished or changed parts are run again; the
folder of another sweep is refused.
"""

import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from planner.files.atomic import write_text
from planner.model import InputError
from simulator.sweep.loads import Row, Series, SweepOptions, rate_of_load
from simulator.workload.arrivals import TimesS

Names = Mapping[str, Iterable[str]]

WRITTEN = ("sweep.json", "runs.jsonl", "runs.csv", "runs.parquet", "largest.csv", "logs.csv")

# The code of the simulator that a row comes from.
CODE = (
    "dispatch/*.py",
    "engine/**/*.py",
    "workload/*.py",
    "results/metrics.py",
    "results/records.py",
    "sweep/loads.py",
)


class Store:
    """Finished runs of one sweep, kept in a folder (None: in memory only)."""

    def __init__(
        self,
        folder: Path | None,
        series: Iterable[Series],
        traces: Mapping[str, TimesS],
        *,
        overwrite: bool = False,
    ) -> None:
        """Open a folder, new or of an earlier run of the same sweep.

        What another sweep left there is removed to ``overwrite`` it; else raises InputError.
        """
        self._rows: dict[str, Row] = {}
        self._trace_sha256 = {name: hashlib.sha256(times_s.tobytes()).hexdigest() for name, times_s in traces.items()}
        self._path = folder / "runs.jsonl" if folder else None
        if folder and self._path:
            _claim(folder, series, overwrite)
            self._rows = _read_rows(self._path)

    def key(self, series: Series, options: SweepOptions) -> str:
        """Return what the runs of a series are filed under, their rate aside."""
        content = series.digest(self._trace_sha256[series.trace], options)
        return hashlib.sha256(f"{content} {code_sha256()}".encode()).hexdigest()

    @property
    def path(self) -> Path | None:
        """The file of the runs; None in memory."""
        return self._path

    def known(self, key: str, series: Series, loads: Iterable[float]) -> dict[float, Row]:
        """Return the finished runs of a series by load (percent), labelled as that series.

        A run is that of a rate: what load it was at depends on what load factor 1 means today.
        """
        found = {percent: self._rows.get(_name(key, rate_of_load(series.full_rps, percent))) for percent in loads}
        labels = {percent: series.label | {"load_factor": percent / 100} for percent in loads}
        return {percent: row | labels[percent] for percent, row in found.items() if row is not None}

    def add(self, key: str, rows: Iterable[Row], filed: bool = False) -> None:
        """File finished runs; those that are known, or that a worker process ``filed`` itself, are not written."""
        for row in rows:
            name = _name(key, row["rate_rps"])
            if self._rows.get(name, {}).get("stopped") != row["stopped"]:
                self._rows[name] = row
                if self._path and not filed:
                    file_row(self._path, key, row)


class NotFiled(InputError):
    """A run that could not be filed, which is no fault of its own: the sweep ends."""


def file_row(path: Path, key: str, row: Row) -> None:
    """Append a run to a file that several processes may append to; raises InputError where the disk is full."""
    line = (json.dumps({"key": _name(key, row["rate_rps"]), "row": row}) + "\n").encode()
    try:
        with path.open("ab", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            end = file.seek(0, os.SEEK_END)
            try:
                if file.write(line) != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                file.truncate(end)
                raise
    except OSError as error:
        raise NotFiled(
            f"{path}: cannot write there ({error.strerror}); make room, then run the sweep again: it goes on from here"
        ) from None


def _name(key: str, rate_rps: float) -> str:
    return f"{key} {float(rate_rps)!r}"


@cache
def code_sha256() -> str:
    """Return the SHA-256 of the code that makes rows, so that other code runs them again."""
    package, found = Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(path for pattern in CODE for path in package.glob(pattern)):
        found.update(path.relative_to(package).as_posix().encode() + path.read_bytes())
    return found.hexdigest()


def _claim(folder: Path, series: Iterable[Series], overwrite: bool) -> None:
    """Write ``sweep.json``; what another sweep left in the folder is removed, or refused."""
    listed = list(series)
    names = {kind: sorted({str(getattr(one, kind)) for one in listed}) for kind in ("plan", "trace")}
    if other := _other_sweep(folder, names):
        if not overwrite:
            raise InputError(f"{folder} {other}; choose another output folder, or replace them with --overwrite")
        for path in [path for pattern in WRITTEN for path in folder.glob(pattern)]:
            path.unlink()
    write_text(folder / "sweep.json", json.dumps({"schema": "sweep/1"} | names, indent=2) + "\n")


def _other_sweep(folder: Path, names: Names) -> str:
    """Say what a folder holds that is not of a sweep of these plans and traces, or of fewer of them; "" if nothing."""
    path = folder / "sweep.json"
    if not path.exists():
        return "holds runs of an unknown sweep (no sweep.json)" if any(folder.glob("runs.*")) else ""
    try:
        old = json.loads(path.read_text(encoding="utf-8"))
        missing = {kind: sorted(set(old[kind]) - set(names[kind])) for kind in names}
    except (OSError, ValueError, KeyError, TypeError):
        return "holds a sweep.json that cannot be read as a sweep"
    for kind, lost in missing.items():
        if lost:
            return f"holds the results of another sweep ({len(lost)} {kind}s are not in this one, such as {lost[0]})"
    return ""


def _read_rows(path: Path) -> dict[str, Row]:
    """Read filed rows; a last line that was cut off when a sweep was killed is dropped."""
    if not path.exists():
        return {}
    text = path.read_text(encoding="utf-8")
    whole, _, cut = text.rpartition("\n")
    if cut:
        write_text(path, whole + "\n" if whole else "")
    rows: dict[str, Row] = {}
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            run = json.loads(line)
            rows[run["key"]] = run["row"]
        except (ValueError, KeyError, TypeError):
            raise InputError(f"{path}: line {number}: cannot be read as a run; remove the line") from None
    return rows
