"""Names on the command line are those that are offered, and help shows them at once."""

import subprocess
import sys
from typing import get_args

import pytest

import simulator.engine.run
import simulator.executor.devices
import simulator.sweep
import simulator.workload
from simulator.cli import executing, options, worlds

HELP = """
import sys
import typer
from typer.testing import CliRunner
import {package}.cli.main as main

def show(app, *path):
    result = CliRunner().invoke(main.app, [*path, "--help"])
    assert result.exit_code == 0 and "Usage" in result.output, (path, result.output, result.exception)
    for command in app.registered_commands:
        show(typer.Typer(), *path, command.name or command.callback.__name__.replace("_", "-"))
    for group in app.registered_groups:
        show(group.typer_instance, *path, group.name)

show(main.app)
heavy = {{"numba", "matplotlib", "onnx", "onnx_ir", "onnxruntime", "pandas", "pyarrow", "highspy", "pulp", "ray"}}
print(*sorted(heavy & set(sys.modules)))
"""


def test_names_are_those_that_are_offered() -> None:
    assert get_args(options.EngineName) == get_args(simulator.engine.run.EngineName)
    assert get_args(options.Hosts) == get_args(simulator.sweep.Hosts)
    assert simulator.engine.POLICIES == options.POLICIES
    assert simulator.engine.run.LATEST_START == options.LATEST_START
    assert simulator.workload.SCHEMAS == options.SCHEMAS
    assert tuple(worlds.WorldDocument.__dataclass_fields__) == options.WORLD_KEYS
    assert simulator.executor.devices.CPU == executing.CPU


@pytest.mark.parametrize("package", ["planner", "simulator"])
def test_help_of_every_command_imports_no_heavy_library(package: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HELP.format(package=package)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "\n"
