"""Every command beside what terminals, pipes, disks and names do to it.

The names of the DNN and of the device hold what somebody would take for something else: markup, formulas, control
characters, letters that encodings lack.
"""

import csv
import io
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import pytest
import typer
from onnx import TensorProto, helper, numpy_helper

from planner.cli.main import app as planner
from planner.files import save
from planner.files.names import value_of
from planner.model import (
    Block,
    Cluster,
    DeviceType,
    Dnn,
    LatencyTable,
    Network,
    Problem,
    Profile,
    Provenance,
)
from planner.planning import make_plan
from simulator.cli.main import app as simulator
from simulator.results.tables import read_table

DNN = '=é[/x]→日\x1b[31m\x07\u202e,"\n'
DEVICE = "+[red]Pi μ\t'"

# What each command is called with, in a folder of inputs; {out} is a file or folder to write.
WRITE = {
    "planner estimate": "net.onnx --device T4 --blocks 2 --out {out}",
    "planner import-profile": "times.csv --cuts cuts.csv --out {out}",
    "planner merge-profiles": "profile.json profile.json --out {out}",
    "planner layers": "net.onnx --out {out}",
    "planner merge candidates": "net.onnx other.onnx --out {out}",
    "planner plan": "problem.json --out {out}",
    "planner front": "problem.json --against latency --factors 1,2 --out {out}",
    "planner schema": "plan --out {out}",
    "simulator schema": "world --out {out}",
    "simulator generate poisson": "--out {out}",
    "simulator generate gamma": "--out {out}",
    "simulator generate markov-modulated": "--out {out}",
    "simulator generate clustered": "--out {out}",
    "simulator generate bursts": "--out {out}",
    "simulator generate diurnal": "--out {out}",
    "simulator generate closed-loop": "--clients 100 --out {out}",
    "simulator generate maf-like": "--requests 500 --out {out}",
    "simulator trace convert": "trace.csv --to maf21 --out {out}",
    "simulator report": "run --out {out}",
}
FILL = {
    "planner split": "net.onnx --at 2 --out {out}",
    "simulator run": "plan.json --trace trace.csv --duration 3 --out {out}",
    "simulator sweep": "plan.json --trace trace.csv --duration 3 --loads 50 --replay scale --jobs 1 --out {out}",
}
PRINT = {
    "planner models": "",
    "planner explain": "problem.json",
    "planner validate": "problem.json plan.json",
    "planner verify": "net.onnx",
    "simulator trace info": "trace.csv",
}
# They take longer, or data of their own; tests of theirs look at what they write.
ELSEWHERE = {
    "planner profile", "planner observe", "planner suggest", "planner complete", "planner models export",
    "planner merge find", "planner merge export", "planner merge retrain", "simulator execute", "simulator pareto",
}  # fmt: skip


def commands(app: typer.Typer, name: str) -> Iterator[str]:
    """Yield the names of all commands."""

    def below(command: object, path: str) -> Iterator[str]:
        inner = getattr(command, "commands", {})
        if not inner or getattr(command, "invoke_without_command", False):
            yield path
        for each, one in inner.items():
            yield from below(one, f"{path} {each}")

    yield from below(typer.main.get_command(app), name)


def test_no_command_is_forgotten() -> None:
    known = {*WRITE, *FILL, *PRINT, *ELSEWHERE}
    assert known == {*commands(planner, "planner"), *commands(simulator, "simulator")} - {"planner", "simulator"}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("é inputs")
    rows = ((9_000, 4_000), (15_000, 7_000))
    table = LatencyTable(DEVICE, 1, (1, 2), rows, Provenance("estimated", "by hand"))
    profile = Profile(DNN, (Block(("a",)), Block(("b",))), (1000,), (table,))
    problem = Problem(Cluster((DeviceType(DEVICE, 2),), Network(10.0)), (Dnn(DNN, 80_000.0, (profile,)),))
    save(profile, folder / "profile.json")
    save(problem, folder / "problem.json")
    save(make_plan(problem), folder / "plan.json")
    times = [["device", "share", "batch", "block", "latency_us"], [DEVICE, 1, 1, 0, 9000], [DEVICE, 1, 1, 1, 4000]]
    for name, table_rows in (("times.csv", times), ("cuts.csv", [["block", "cut_bytes"], [0, 1000]])):
        with (folder / name).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(table_rows)
    trace = [["app", "func", "end_timestamp", "duration"], *([DNN, DEVICE, i * 0.01, 0] for i in range(1000))]
    with (folder / "trace.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(trace)
    weight = numpy_helper.from_array(np.ones((4, 4), np.float32), "w")
    batched = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4]) for name in ("x", "y")]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"], name=DNN), helper.make_node("Relu", ["h"], ["y"], name="r")]
    graph = helper.make_graph(nodes, "net", batched[:1], batched[1:], [weight])
    for name in ("net.onnx", "other.onnx"):
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), folder / name)
    return folder


@pytest.fixture(scope="module")
def with_run(inputs: Path) -> Path:
    assert call(inputs, "simulator run", FILL["simulator run"], "run") == 0
    return inputs


def call(folder: Path, name: str, template: str, out: object) -> int:
    """Run a command in this process, and return how it ended."""
    package, *words = name.split()
    arguments = [str(out) if word == "{out}" else word for word in template.split()]
    before, sys.argv = sys.argv, [package, *words, *arguments]
    here = Path.cwd()
    os.chdir(folder)
    try:
        from planner.cli.app import run

        run(planner if package == "planner" else simulator)
    except SystemExit as ended:
        return int(ended.code or 0)
    finally:
        sys.argv = before
        os.chdir(here)
    return 0


@contextmanager
def standard_output(stream: io.TextIOBase) -> Iterator[None]:
    before, sys.stdout = sys.stdout, stream  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.stdout = before


every = pytest.mark.parametrize(
    ("name", "template"), [pytest.param(*one, id=one[0]) for one in (WRITE | FILL | PRINT).items()]
)
writers = pytest.mark.parametrize(
    ("name", "template"), [pytest.param(*one, id=one[0]) for one in (WRITE | FILL).items()]
)


@every
@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_encodings_that_lack_letters_end_nothing(
    with_run: Path, tmp_path: Path, name: str, template: str, encoding: str
) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)
    with standard_output(stream):
        assert call(with_run, name, template, tmp_path / "out.csv") == 0
    text = stream.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]
    assert not set(text) & {"\x1b", "\x07", "\t"}


@every
def test_a_pipe_whose_reader_has_left_ends_nothing(with_run: Path, tmp_path: Path, name: str, template: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w", encoding="utf-8") as stream, standard_output(stream):
        assert call(with_run, name, template, tmp_path / "out.csv") == 0
        assert "{out}" not in template or (tmp_path / "out.csv").exists()


@writers
def test_a_full_disk_is_one_line_and_leaves_no_half_file(
    with_run: Path, tmp_path: Path, name: str, template: str, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, limits[1]))
    try:
        status = call(with_run, name, template, tmp_path / "out.csv")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    said = capsys.readouterr().err.splitlines()
    assert (status, len(said)) == (2, 1), said
    assert said[0].startswith("error: ")
    assert "File too large" in said[0]
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@writers
def test_a_place_where_nothing_can_be_written_is_one_line(
    with_run: Path, tmp_path: Path, name: str, template: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    status = call(with_run, name, template, tmp_path / "file" / "out.csv")
    said = capsys.readouterr().err.splitlines()
    assert (status, len(said)) == (2, 1), said
    assert said[0].startswith("error: ")


@pytest.mark.parametrize("name", WRITE)
def test_a_dash_is_standard_output_and_nothing_else_is_there(
    with_run: Path, tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call(with_run, name, WRITE[name], tmp_path / "out") == 0
    capfd.readouterr()
    assert call(with_run, name, WRITE[name], "-") == 0
    got, kept = capfd.readouterr().out, (tmp_path / "out").read_text(encoding="utf-8")
    assert not (with_run / "-").exists()
    if name == "planner plan":  # it says how long it took
        got, kept = (json.dumps(json.loads(text)["pipelines"]) for text in (got, kept))
    assert got == kept


@pytest.mark.parametrize("name", FILL)
def test_a_dash_is_no_folder(with_run: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(with_run, name, FILL[name], "-") == 2
    assert capsys.readouterr().err.endswith("- is standard output, which holds one file; give a folder\n")
    assert not (with_run / "-").exists()


def test_names_in_tables_are_data(with_run: Path, tmp_path: Path) -> None:
    """No cell is a formula, no character does something, and a line is a row."""
    assert call(with_run, "simulator sweep", FILL["simulator sweep"], tmp_path / "sweep") == 0
    for path in [*(with_run / "run").glob("*.csv"), *(tmp_path / "sweep").glob("*.csv")]:
        lines = path.read_text(encoding="utf-8").splitlines()
        assert all(line.isprintable() for line in lines), path
        rows = list(csv.reader(lines))
        assert len({len(row) for row in rows}) == 1
        assert [value_of(name) for name in rows[0]] == list(read_table(path).columns)
        assert not [cell for row in rows for cell in row if cell.startswith(("=", "+", "@"))]


def test_a_locale_without_utf_8_ends_nothing(with_run: Path, tmp_path: Path) -> None:
    """Folders with letters that it lacks are read and written; only Python's own help against such locales is off."""
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    out = tmp_path / "ü"
    for package, *arguments in (
        ["simulator", "run", *FILL["simulator run"].replace("{out}", str(out / "run")).split()],
        ["simulator", "report", str(out / "run"), "--out", str(out / "report.html")],
        ["planner", "plan", "problem.json", "--out", str(out / "plan.json")],
    ):
        command = [sys.executable, "-m", package, *arguments]
        done = subprocess.run(command, cwd=with_run, env=environment, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
    assert {path.name for path in out.iterdir()} == {"run", "report.html", "plan.json"}
