import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from planner.files import save
from planner.model import Cluster, DeviceType, Network

Command = Callable[..., Any]


def test_validate_says_what_a_file_holds(command: Command, tmp_path: Path) -> None:
    save(Cluster((DeviceType("L4", 25), DeviceType("T4", 75)), Network(10.0)), tmp_path / "c.json")
    finished = command("planner", "validate", tmp_path / "c.json")
    assert finished.status == 0
    assert finished.out.strip().endswith("c.json: valid cluster, 25 L4 + 75 T4")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.json", '{"schema": "cluster/1"}', "device_types: missing; add it"),
        ("c.json", "{", "not valid JSON"),
        ("m.onnx", "not a model", "not an ONNX model"),
        ("c.toml", "a = ", "not valid TOML"),
    ],
)
def test_bad_files_are_one_line_and_status_2(
    command: Command, tmp_path: Path, name: str, content: str, message: str
) -> None:
    (tmp_path / name).write_text(content)
    finished = command("planner", "validate", tmp_path / name)
    assert finished.status == 2
    assert finished.out == ""
    assert message in finished.err
    assert finished.err.count("\n") == 1
    assert finished.err.startswith(f"error: {tmp_path / name}: ")


def test_schema_is_printed_or_written(command: Command, tmp_path: Path) -> None:
    printed = json.loads(command("planner", "schema", "plan").out)
    command("planner", "schema", "plan", "--out", tmp_path / "s.json")
    assert json.loads((tmp_path / "s.json").read_text()) == printed
    assert printed["properties"]["schema"]["const"] == "plan/1"


def test_the_schema_of_worlds_is_told_where_to_find(command: Command) -> None:
    finished = command("planner", "schema", "world")
    assert finished.status == 2
    assert "see `python -m simulator schema world`" in finished.err


def test_an_unknown_kind_of_schema_is_named(command: Command) -> None:
    finished = command("planner", "schema", "cake")
    assert (finished.status, finished.err) == (
        2,
        "error: unknown kind of file 'cake'; expected one of cluster, profile, variants, problem, plan, task-plan, "
        "observations\n",
    )


@pytest.mark.parametrize("package", ["planner", "simulator"])
def test_help_names_every_command(command: Command, package: str) -> None:
    finished = command(package, "--help")
    assert finished.status == 0
    assert "Commands" in finished.out
