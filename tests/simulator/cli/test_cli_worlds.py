"""World files: what they may hold, and how runs and sweeps use them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from planner.cli.app import new_app
from planner.files import save
from planner.model import InputError
from simulator.cli import reporting, simulation
from simulator.cli.worlds import WorldDocument, load_world
from simulator.engine import World, build_system
from simulator.engine.world import Degradation, Failure, FailureRate
from simulator.workload import arrivals_text, poisson

ROOT = Path(__file__).parents[3]

EVERYTHING = """
schema = "world/1"
spread = "profile"
load_us = 300_000

[failure_rate]
unit = "device"
between_us = 60e6
repair_us = 5e6

[[failures]]
dnn = "first"
unit = "server"
pipeline = 0
stage = 1
index = 2
at_us = 1_000_000
repair_us = 500_000

[[degradations]]
from_us = 0
until_us = 10
factor = 2

[[switches]]
at_us = 2_000_000
plan = "np.json"
"""


@pytest.fixture(scope="module")
def call():
    app = new_app("test")
    simulation.register(app)
    reporting.register(app)

    def invoke(*arguments):
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.output

    return invoke


@pytest.fixture
def site(tmp_path, two_stages):
    """Write a problem, a plan twice, a trace, and a world."""
    problem, plan = two_stages
    save(problem, tmp_path / "problem.json")
    save(plan, tmp_path / "pipelines.json")
    save(plan, tmp_path / "np.json")
    (tmp_path / "steady.csv").write_text(arrivals_text(poisson(50.0, 60.0, np.random.default_rng(1))))
    (tmp_path / "world.toml").write_text(EVERYTHING)
    return tmp_path


def test_every_key_reaches_the_world(site, two_stages):
    problem, plan = two_stages
    loaded = load_world(site / "world.toml")
    first, second = (
        loaded.of(build_system(problem, plan, name), 7, ["first", "second"]) for name in ("first", "second")
    )
    assert first.seed == 7
    assert (first.spread, first.load_us) == ("profile", 300_000)
    assert first.failure_rate == FailureRate("device", 60e6, 5e6)
    assert first.failures == (Failure("server", 0, 1, 2, 1_000_000, 500_000),)
    assert second.failures == ()
    assert first.degradations == (Degradation(0, 10, 2),)
    assert [switch.at_us for switch in first.switches] == [2_000_000]
    assert set(WorldDocument.__dataclass_fields__) == set(World.__dataclass_fields__) - {
        *("seed", "replan", "replan_every_us")
    }


def test_a_run_in_a_world_says_so_and_can_be_repeated(call, site):
    arguments = ("run", site / "pipelines.json", "--trace", site / "steady.csv", "--duration", "5", "--seed", "3")
    call(*arguments, "--out", site / "planned")
    for out in ("one", "two"):
        call(*arguments, "--world", site / "world.toml", "--out", site / out)
    planned, one, two = (pd.read_csv(site / out / "summary.csv") for out in ("planned", "one", "two"))
    pd.testing.assert_frame_equal(one, two)
    assert one["engine"].tolist() == ["events", "events"]
    assert (one["attainment"] < planned["attainment"]).all()
    run = json.loads((site / "one" / "run.json").read_text())
    assert run["world"]["name"] == "world.toml"
    assert run["world"]["failures"][0]["index"] == 2
    assert len(run["world"]["switches"][0]["plan_sha256"]) == 64
    assert json.loads((site / "planned" / "run.json").read_text())["world"] is None
    assert sorted(path.name for path in (site / "one" / "takeover-1").iterdir()) == ["plan.json", "problem.json"]
    call("report", site / "one", "--out", site / "report.html")
    page = (site / "report.html").read_text()
    assert "timeline of one" in page
    call(*arguments, "--overwrite", "--out", site / "one")  # what was of the world goes with it
    assert not (site / "one" / "takeover-1").exists()


@pytest.mark.parametrize("policy", ["reactive", "orderly"])
def test_every_policy_lives_in_worlds_together_and_apart(call, site, policy):
    arguments = ("run", site / "pipelines.json", "--trace", site / "steady.csv", "--duration", "5", "--policy", policy)
    call(*arguments, "--out", site / "planned")
    for out, more in (("one", ()), ("apart", ("--apart",))):
        call(*arguments, "--world", site / "world.toml", *more, "--out", site / out)
    planned, one, apart = (pd.read_csv(site / out / "summary.csv") for out in ("planned", "one", "apart"))
    assert one["dnn"].tolist() == apart["dnn"].tolist() == ["first", "second"]
    assert (one["attainment"] < planned["attainment"]).all()
    pd.testing.assert_series_equal(one.iloc[0], apart.iloc[0])  # the first DNN's servers have the same numbers
    assert [json.loads((site / out / "run.json").read_text())["apart"] for out in ("one", "apart")] == [False, True]


def test_a_sweep_over_worlds_and_seeds(call, site):
    (site / "slow.toml").write_text('schema = "world/1"\nload_us = 2_000_000')
    call(
        *("sweep", site / "pipelines.json", "--trace", site / "steady.csv", "--loads", "50", "--duration", "5"),
        *("--world", site / "world.toml", "--world", site / "slow.toml", "--seed", "1", "--seed", "2"),
        *("--jobs", "1", "--out", site / "sweep"),
    )
    rows = pd.read_csv(site / "sweep" / "runs.csv")
    assert len(rows) == 8  # 2 DNNs · 2 worlds · 2 seeds
    attained = rows[rows["dnn"] == "second"].groupby("world")["attainment"].nunique().to_dict()
    assert attained == {"slow.toml": 1, "world.toml": 2}  # only the other one has anything random


def test_the_example_beside_the_plans_is_read():
    document = load_world(ROOT / "plans" / "edge" / "world.toml", problem=None).document
    assert document.switches[0].plan == "np.json"


FAILURE = '[[failures]]\nunit = "slice"\npipeline = 0\nstage = 0\nat_us = 1\nrepair_us = 1\n'

BAD = [
    ("", 'schema: expected "world/1", got null'),
    ('schema = "world/1"\njitter = 1', "jitter: unknown key"),
    (
        'schema = "world/1"\nspread = "profil"',
        "world: spread: expected \"profile\" or a number from 0 to 3 .*, got 'profil'",
    ),
    ('schema = "world/1"\nspread = -1', "world: spread: expected .* got -1"),
    ('schema = "world/1"\nfactors = [0.5, 0]', r"factors\[1\]: expected a number > 0, got 0"),
    ('schema = "world/1"\nspread = 50.0', "world: spread: expected .* got 50"),
    ('schema = "world/1"\nfactors = [1e300]', "world: factors: expected numbers above 0, to 1e.06"),
    (f'schema = "world/1"\nload_us = {10**19}', "load_us: expected .* got 1"),
    (f'schema = "world/1"\n{FAILURE.replace("at_us = 1", f"at_us = {10**18}")}index = 0', "at_us: expected .* got 1"),
    ('schema = "world/1"\n[[degradations]]\nfrom_us = 0\nuntil_us = 1\nfactor = 1e30', "factor: expected .* got 1e.30"),
    ('schema = "world/1"\nload_us = 1.5', "load_us: expected a valid integer, got 1.5"),
    ('schema = "world/1"\n[[failures]]\nunit = "rack"', r"failures\[0\].unit: expected 'slice', 'device' or 'server'"),
    (f'schema = "world/1"\n{FAILURE}index = 0', "failures: dnn: expected one of first, second, got ''"),
    (f'schema = "world/1"\n{FAILURE}index = 4\ndnn = "first"', "stage 0 of pipeline 0 has no slice 4; it has 4 slices"),
    (f'schema = "world/1"\n{FAILURE}index = 0\ndnn = "first"\nplan = 1', "plan 1 has not taken over at 1 µs"),
    ('schema = "world/1"\n[[switches]]\nat_us = 5\nplan = "none.json"', "none.json: cannot read it"),
    (
        'schema = "world/1"\n[failure_rate]\nunit = "slice"\nbetween_us = 0\nrepair_us = 1',
        "between_us: .* > 0, got 0",
    ),
    (
        'schema = "world/1"\n[[degradations]]\nfrom_us = 9\nuntil_us = 1\nfactor = 1.0',
        "degradations: expected from_us < until_us and a factor above 0, got 9, 1 and 1",
    ),
]


@pytest.mark.parametrize("command", ["run", "sweep"])
@pytest.mark.parametrize(("text", "words"), BAD, ids=[words for _, words in BAD])
def test_a_bad_world_is_one_line_with_its_file_and_writes_nothing(call, site, command, text, words):
    (site / "bad.toml").write_text(text)
    with pytest.raises(InputError, match=words) as caught:
        call(
            *(command, site / "pipelines.json", "--trace", site / "steady.csv"),
            *("--world", site / "bad.toml", "--out", site / "out"),
        )
    assert f"{site / 'bad.toml'}: " in str(caught.value)  # in a sweep after the plan's, which it does not fit
    assert "\n" not in str(caught.value)
    assert not (site / "out").exists()


def test_a_switch_to_other_dnns_names_its_file(call, site, two_stages):
    """One that lacks a DNN, one that serves none, and one that has another besides."""
    _, plan = two_stages
    save(replace(plan, pipelines=plan.of("first")), site / "one.json")
    save(replace(plan, pipelines=()), site / "none.json")
    for command in ("run", "sweep"):
        for begin, to, serves, expected in (
            ("pipelines", "one", "first", "first, second"),
            ("pipelines", "none", "no DNN", "first, second"),
            ("one", "np", "first, second", "first"),
        ):
            (site / "other.toml").write_text(f'schema = "world/1"\n[[switches]]\nat_us = 5\nplan = "{to}.json"')
            said = f"other.toml: switches: {to}.json: serves {serves}; expected {expected}, which the plan before"
            with pytest.raises(InputError, match=said):
                call(
                    *(command, site / f"{begin}.json", "--trace", site / "steady.csv"),
                    *("--world", site / "other.toml", "--out", site / "out", "--unchecked"),
                )


def test_failures_in_worlds_whatever_the_policy_but_switches_not_for_latest_start(call, site):
    arguments = ("run", site / "pipelines.json", "--trace", site / "steady.csv", "--policy", "latest-start")
    (site / "failing.toml").write_text(EVERYTHING.partition("[[switches]]")[0])
    call(*arguments, "--duration", "5", "--world", site / "failing.toml", "--out", site / "fails")
    assert pd.read_csv(site / "fails" / "summary.csv")["engine"].tolist() == ["events", "events"]
    for command in ("run", "sweep"):
        with pytest.raises(InputError, match="latest-start: a request stands in front of a slice"):
            call(command, *arguments[1:], "--world", site / "world.toml", "--out", site / "out")
    assert not (site / "out").exists()


def test_worlds_of_one_name_are_refused(call, site):
    (site / "other").mkdir()
    (site / "other" / "world.toml").write_text('schema = "world/1"')
    with pytest.raises(InputError, match="--world: expected files of different names"):
        call(
            *("sweep", site / "pipelines.json", "--trace", site / "steady.csv", "--out", site / "out"),
            *("--world", site / "world.toml", "--world", site / "other" / "world.toml"),
        )
