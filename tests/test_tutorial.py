"""The tutorial runs as it stands, in a folder of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

TUTORIAL = Path(__file__).parents[1] / "scripts" / "tutorial.py"


@pytest.mark.slow
def test_the_tutorial_runs(tmp_path):
    done = subprocess.run([sys.executable, str(TUTORIAL)], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    written = {path.name for path in (tmp_path / "out" / "tutorial").iterdir()}
    assert {"mobilenet_v2.onnx", "mobilenet_v2.json"} < written
    assert [name for name in written if name.endswith(".png")]
    assert "requests/s" in done.stdout


def test_its_cells_are_told_apart():
    """For editors that run them one by one."""
    assert TUTORIAL.read_text(encoding="utf-8").count("\n# %% ") >= 7
