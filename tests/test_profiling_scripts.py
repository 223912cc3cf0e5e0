"""The scripts that hold splits and profiles to their promises, on one small model each."""

import csv
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from planner.files import save
from planner.model import InputError
from planner.profiling import (
    DeviceAtHand,
    Effort,
    blank_profile,
    build_architecture,
    measure_tables,
    read_graph,
    with_tables,
)

SCRIPTS = Path(__file__).parents[1] / "scripts"

pytestmark = pytest.mark.slow


def run(script, *arguments):
    command = [sys.executable, SCRIPTS / script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_splits_are_verified_both_ways_and_not_twice(tmp_path):
    out = tmp_path / "splits.csv"
    arguments = ("verify_splits.py", "resnet18", "--size", 64, "--cuts", 4, "--out", out)
    assert run(*arguments).returncode == 0
    with out.open() as stream:
        plain, optimised = csv.DictReader(stream)
    assert (plain["optimised"], plain["cuts"], plain["bit_equal"], plain["wrong"]) == ("False", "4", "4", "0")
    assert (optimised["optimised"], optimised["wrong"]) == ("True", "0")
    assert 0 < float(optimised["noise"]) < 1e-4
    before = out.read_text()
    assert run(*arguments).returncode == 0
    assert out.read_text() == before


@pytest.fixture(scope="module")
def profile():
    graph = read_graph(build_architecture("mobilenet_v2"), "mobilenet_v2")
    tables = measure_tables(graph, [0, 40, 70], DeviceAtHand("here"), [1], Effort(cap_s=0.1, clock="cpu"))
    return with_tables(blank_profile(graph, [0, 40, 70]), tables)


def test_profiles_are_checked_against_a_second_measurement(tmp_path, profile):
    """Three times too slow is found out; a spread of a factor of e (1.0) forgives anything."""
    (table,) = profile.tables
    wide = replace(table, spread=((1.0,) * 3,))
    slow = replace(table, spread=((0.0,) * 3,), latency_us=(tuple(3 * us for us in table.latency_us[0]),))
    arguments = ("--device", "here", "--batches", 1, "--cap-s", 0.1, "--rounds", 2, "--clock", "cpu")
    for kept, verdict, inside in ((wide, "pass: measured again", "3 of 3"), (slow, "FAIL: measured again", "0 of 3")):
        save(replace(profile, tables=(kept,)), tmp_path / "profile.json")
        found = run("check_profiles.py", tmp_path / "profile.json", *arguments)
        assert verdict in found.stdout
        assert f"{inside} blocks" in found.stdout
    assert found.returncode == 1


def test_new_coefficients_replace_those_of_the_same_device_only():
    with_section = runpy.run_path(str(SCRIPTS / "calibrate_roofline.py"))["with_section"]
    before = "[coefficients.a]\nx = 1\n\n# Of b.\n[coefficients.b]\nx = 2\ny = 3\n\n# Of c.\n[coefficients.c]\nx = 4\n"
    assert with_section(before, "[coefficients.b]\nx = 5\n") == before.replace("x = 2\ny = 3", "x = 5")
    assert with_section(before, "[coefficients.c]\nx = 6\n") == before.replace("x = 4", "x = 6")
    with pytest.raises(InputError, match=r"no section \[coefficients.d\]"):
        with_section(before, "[coefficients.d]\nx = 1\n")
