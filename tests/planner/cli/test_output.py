"""What commands print, whatever reads it."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from planner.cli import app, output

ROOT = Path(__file__).parents[3]


def run(*arguments: str, stdout: int = subprocess.PIPE, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        env=os.environ | environment, stdout=stdout, stderr=subprocess.PIPE,
        encoding=environment.get("PYTHONIOENCODING", "utf-8"),
        check=False, timeout=120,
    )  # fmt: skip


def test_a_narrow_terminal_folds_names_and_cuts_none(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    monkeypatch.setattr(output, "console", Console(file=written, width=40))
    letters = "abcdefghijklmnopqrstuvwxyz" * 2
    columns = {each: output.Column(each) for each in ("dnn", "pipeline", "requests/s")}
    with output.output(as_json=False) as out:
        out.table("rows", columns, [{"dnn": letters, "pipeline": letters.upper(), "requests/s": 12.5}])
    text = written.getvalue()
    assert "…" not in text
    assert sorted(filter(str.isupper, text)) == sorted(letters.upper())


def test_tables_cut_no_name_short_and_json_holds_all(capsys: pytest.CaptureFixture[str]) -> None:
    columns = {"name": output.Column("name"), "ms": output.Column("ms", "{:.1f}".format)}
    rows = [{"name": "n" * 200, "ms": 1.25, "more": float("nan")}, {"name": "[/x] :warning:\n", "ms": None}]
    with output.output(as_json=False) as out:
        out.line("for people")
        out.value("count", 2)
        out.table("rows", columns, rows)
    text = capsys.readouterr().out
    assert "n" * 200 in text
    assert "[/x] :warning:\\n" in text
    assert "for people" in text
    with output.output(as_json=True) as out:
        out.line("for people")
        out.value("count", 2)
        out.table("rows", columns, rows)
    assert json.loads(capsys.readouterr().out) == {
        "count": 2,
        "rows": [{"name": "n" * 200, "ms": 1.25, "more": None}, {"name": "[/x] :warning:\n", "ms": None}],
    }


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_other_encodings_get_look_alikes_and_a_hint(encoding: str) -> None:
    done = run("planner", "models", PYTHONIOENCODING=encoding)
    assert done.returncode == 0
    assert "mobilenet_v2" in done.stdout
    code = (
        "from planner.cli.app import console, _degrade; import sys; _degrade(sys.stdout); console.print('8 × µs → ö')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONIOENCODING": "ascii"}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert done.stdout == "8 x us -> \\xf6\n"
    assert done.stderr.count("\n") == 1
    assert "LC_ALL=C.UTF-8" in done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_documents_are_json_in_every_encoding(encoding: str) -> None:
    code = "from planner.cli.output import output\nwith output(True) as out: out.value('dnn', 'été-日本')"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONIOENCODING": encoding}, capture_output=True, check=True
    )
    assert json.loads(done.stdout.decode(encoding)) == {"dnn": "été-日本"}


@pytest.mark.parametrize("arguments", [("planner", "models"), ("planner", "schema", "plan")])
def test_a_pipe_that_nobody_reads_ends_nothing(arguments: tuple[str, ...]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = run(*arguments, stdout=writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_version(command: Callable[..., object]) -> None:
    from importlib.metadata import version

    for package in ("planner", "simulator"):
        finished = command(package, "--version")
        assert (finished.status, finished.out) == (0, f"poolpipe {version('poolpipe')}\n")


@pytest.mark.parametrize(("number", "status"), app.ENDED.items())
def test_signals_end_through_every_finally(number: int, status: int) -> None:
    code = (
        "import os, signal, time\n"
        "from planner.cli.app import new_app, run\n"
        "app = new_app('test')\n"
        "@app.command()\n"
        "def wait():\n"
        "    try:\n"
        f"        os.kill(os.getpid(), {int(number)})\n"
        "        time.sleep(60)\n"
        "    finally:\n"
        "        print('tidied')\n"
        "run(app)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (status, "tidied\n")
