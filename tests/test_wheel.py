"""The wheel, as a user meets it: built, installed with its dependencies in an empty environment, used elsewhere."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

USE = """
import importlib.resources, json, pkgutil, planner, simulator, sys
import planner.cli.main, simulator.cli.main
for package in (planner, simulator):
    assert "site-packages" in package.__file__, package.__file__
schema = importlib.resources.files("planner.files") / "schemas" / "plan.schema.json"
assert json.loads(schema.read_text())["properties"]["schema"]["const"] == "plan/1"
"""


def run(*command: str | Path, cwd: Path) -> str:
    finished = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--outdir", out, ROOT, cwd=out)
    (built,) = out.glob("*.whl")
    return built


@pytest.mark.slow
def test_the_wheel_holds_only_the_two_packages(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    (metadata,) = [top for top in tops if top.endswith(".dist-info")]
    assert tops == {"planner", "simulator", metadata}


@pytest.mark.slow
def test_the_wheel_works_in_a_clean_environment(wheel: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "venv", "env", cwd=tmp_path)
    python = tmp_path / "env" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile", wheel, cwd=tmp_path)
    run(python, "-c", USE, cwd=tmp_path)
    for package in ("planner", "simulator"):
        assert "Usage" in run(python, "-m", package, "--help", cwd=tmp_path)
