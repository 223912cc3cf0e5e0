"""Every script starts: whatever it imports is there, or it says in a line what to install."""

import runpy
from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).parents[1] / "scripts").glob("*.py"))


@pytest.mark.parametrize("script", [path for path in SCRIPTS if path.stem != "tutorial"], ids=lambda path: path.stem)
def test_a_script_finds_what_it_needs(script: Path) -> None:
    missing = ""
    try:
        assert runpy.run_path(str(script))["__doc__"]  # as a module: what runs under its name does not
    except SystemExit as told:
        missing = str(told)
    assert not missing or "is not installed; pip install" in missing
