"""Results that could mislead: stale rows, references, rates, unsound plans, old files, names."""

import json
import os
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from planner.files import file_name, save
from planner.model import (
    Block,
    Cluster,
    DeviceType,
    Dnn,
    InputError,
    LatencyTable,
    Network,
    Plan,
    Problem,
    Profile,
    Provenance,
)
from planner.planning import make_plan
from simulator.workload import arrivals_text, poisson

BY_HAND = Provenance("estimated", "by hand")


def base(names=("m",), fast="A") -> Problem:
    """Return the base case: 2 A of 5 ms and 6 B of 40 ms a block; pipelines serve 250 requests/s, NP 200."""
    tables = tuple(LatencyTable(name, 1, (1,), ((us,) * 2,), BY_HAND) for name, us in ((fast, 5_000), ("B", 40_000)))
    profile = Profile("net", (Block(("a",)), Block(("b",))), (100_000,), tables)
    cluster = Cluster((DeviceType(fast, 2 * len(names)), DeviceType("B", 6 * len(names))), Network(1.0, 200.0))
    return Problem(cluster, tuple(Dnn(name, 100_000.0, (profile,)) for name in names))


@pytest.fixture(scope="module")
def plans() -> dict[str, Plan]:
    made = {scheduler: make_plan(base(), scheduler) for scheduler in ("np", "pipelines")}
    assert {name: round(plan.value) for name, plan in made.items()} == {"np": 200, "pipelines": 250}
    return made


@pytest.fixture
def site(tmp_path, plans):
    save(base(), tmp_path / "problem.json")
    for name, plan in plans.items():
        save(plan, tmp_path / f"{name}.json")
    (tmp_path / "t.csv").write_text(arrivals_text(poisson(5.0, 600.0, np.random.default_rng(1))))
    return tmp_path


@pytest.fixture
def ok(command):
    def run(*arguments, status=0):
        done = command("simulator", *arguments)
        assert done.status == status, done.err
        return done.err if status else done.out

    return run


def offered(site, *more):
    return ("--trace", site / "t.csv", "--duration", "4", *more)


def test_a_sweep_that_grows_is_the_one_made_anew(ok, site):
    some = offered(site, "--loads", "100,80,50", "--jobs", "1")
    ok("sweep", site / "np.json", *some, "--out", site / "old")
    ok("sweep", site / "np.json", site / "pipelines.json", *some, "--out", site / "old")
    ok("sweep", site / "np.json", site / "pipelines.json", *some, "--out", site / "new")
    for name in ("runs.csv", "largest.csv"):
        assert (site / "old" / name).read_bytes() == (site / "new" / name).read_bytes()
    # Load 1 was 200 for NP alone and is 250 now; what was run at 200 is the run at load 0.8.
    runs = pd.read_csv(site / "new" / "runs.csv").set_index(["plan", "load_factor"])
    assert runs.loc[("np.json", 1.0), "rate_rps"] == 250
    assert len((site / "old" / "runs.jsonl").read_text().splitlines()) == 3 + 3 - 1 + 3


def test_a_sweep_may_grow_by_seeds_and_loads(ok, site):
    begin = ("sweep", site / "np.json", "--jobs", "1", "--out", site / "out")
    ok(*begin, *offered(site, "--loads", "50"))
    ok(*begin, *offered(site, "--loads", "92.5,50", "--seed", "0", "--seed", "1"))
    runs = pd.read_csv(site / "out" / "runs.csv")
    assert sorted(runs["load_factor"].unique()) == [0.5, 0.925]
    assert sorted(runs["rate_rps"].unique()) == [100, 185]


@pytest.mark.parametrize("order", [("pipelines.json", "worse.json"), ("worse.json", "pipelines.json")])
def test_load_1_is_that_of_a_stated_plan_whatever_the_order(ok, site, plans, order):
    # The same pipelines at half of their throughput: another pipelines plan of this DNN.
    halved = tuple(replace(one, throughput_rps=one.throughput_rps / 2) for one in plans["pipelines"].pipelines)
    save(replace(plans["pipelines"], value=125.0, pipelines=halved), site / "worse.json")
    begin = ("sweep", *(site / name for name in order), "--unchecked")
    begin = (*begin, *offered(site, "--loads", "50", "--jobs", "1"))
    text = ok(*begin, "--out", site / "out")
    rows = pd.read_csv(site / "out" / "largest.csv")
    assert set(rows["reference"]) == {"pipelines.json"}
    assert set(rows["full_rps"].round(6)) == {250.0}
    assert "pipelines.json" in text
    ok(*begin, "--reference", site / "worse.json", "--out", site / "other")
    assert set(pd.read_csv(site / "other" / "runs.csv")["reference"]) == {"worse.json"}
    assert "expected one of the plans given" in ok(*begin, "--reference", "no.json", "--out", site / "no", status=2)


def test_rates_that_folding_cannot_reach_are_refused_and_others_reached(ok, site):
    (site / "dense.csv").write_text(arrivals_text(10**15 + poisson(1000.0, 60.0, np.random.default_rng(1))))
    begin = ("run", site / "np.json", "--trace", site / "dense.csv", "--duration", "20", "--rate", "25")
    assert "cannot thin it to 25; use --replay thin" in ok(*begin, "--out", site / "no", status=2)
    assert not (site / "no").exists()
    for how in ("thin", "scale"):
        ok(*begin, "--replay", how, "--out", site / how)
        row = pd.read_csv(site / how / "summary.csv").loc[0]
        assert row["rate_rps"] == 25
        assert row["offered_rps"] == pytest.approx(25, rel=0.2)
    ok(*begin[:-2], "--replay", "verbatim", "--out", site / "verbatim")
    assert pd.read_csv(site / "verbatim" / "summary.csv").loc[0, "offered_rps"] == pytest.approx(1000, rel=0.05)
    for wrong in ("--rate", "--load"):
        text = ok(*begin[:-2], "--replay", "verbatim", wrong, "0.5", "--out", site / "no", status=2)
        assert "leave out --rate and --load" in text


def test_fractional_rates_and_loads(ok, site, plans):
    slow = tuple(replace(one, throughput_rps=one.throughput_rps * 2.86 / 200) for one in plans["np"].pipelines)
    save(replace(plans["np"], value=2.86, bound=2.86, pipelines=slow), site / "slow.json")
    ok(
        *(
            "sweep",
            site / "slow.json",
            "--unchecked",
            "--trace",
            site / "t.csv",
            "--loads",
            "45,92.5",
            "--replay",
            "thin",
        ),
        *("--duration", "600", "--jobs", "1", "--out", site / "out"),
    )
    runs = pd.read_csv(site / "out" / "runs.csv").set_index("load_factor")
    assert runs["rate_rps"].tolist() == pytest.approx([2.86 * 0.925, 2.86 * 0.45])
    assert runs["offered_rps"].tolist() == pytest.approx([2.86 * 0.925, 2.86 * 0.45], rel=0.1)


def test_plans_that_the_cluster_cannot_hold_are_refused_or_said(ok, site, plans):
    (pipeline, *others) = plans["np"].pipelines
    many = replace(pipeline, stages=tuple(replace(stage, slices=stage.slices * 100) for stage in pipeline.stages))
    save(replace(plans["np"], pipelines=(many, *others)), site / "huge.json")
    run, sweep = ("run", site / "huge.json"), ("sweep", site / "huge.json", "--loads", "50", "--jobs", "1")
    for begin in (run, sweep):
        text = ok(*begin, *offered(site), "--out", site / "no", status=2)
        assert "huge.json: breaks" in text
        assert "--unchecked" in text
    assert "breaks" in ok(*run, *offered(site), "--unchecked", "--out", site / "run")
    assert json.loads((site / "run" / "run.json").read_text())["constraints_broken"]
    ok(*sweep, *offered(site), "--unchecked", "--out", site / "sweep")
    assert (pd.read_csv(site / "sweep" / "runs.csv")["constraints_broken"] > 0).all()


def test_a_run_owns_its_folder(ok, site):
    ok("run", site / "np.json", *offered(site), "--out", site / "out")
    before = {path.name: path.read_bytes() for path in (site / "out").iterdir()}
    ok("run", site / "np.json", *offered(site), "--out", site / "out")  # the same run gives the same files
    other = ("run", site / "pipelines.json", *offered(site), "--out", site / "out")
    assert "holds the results of another run" in ok(*other, status=2)
    assert {path.name: path.read_bytes() for path in (site / "out").iterdir()} == before
    (site / "out" / "gone.records.csv").write_text("of a DNN that is no longer served")
    ok(*other, "--overwrite")
    assert set(os.listdir(site / "out")) == {
        "run.json", "plan.json", "problem.json", "summary.csv", "sequences.csv", "m.records.csv",
    }  # fmt: skip
    # A folder with files that a run would replace, such as the user's own problem, is not its own either.
    assert "problem.json" in ok("run", site / "np.json", *offered(site), "--out", site, status=2)


def test_what_no_run_has_written_is_not_overwritten(ok, site):
    """A problem that lies in the output folder is the user's own: it stays, whatever is asked for."""
    before = (site / "problem.json").read_bytes()
    text = ok("run", site / "np.json", *offered(site), "--out", site, "--overwrite", status=2)
    assert "problem.json: is not the result of a run" in text
    assert (site / "problem.json").read_bytes() == before


def test_a_sweep_owns_its_folder(ok, site):
    """Another sweep, or a run, is refused there, and replaced where that is asked for; the same one may grow."""
    sweep = ("--loads", "50", "--jobs", "1", *offered(site), "--out", site / "out")
    ok("sweep", site / "np.json", *sweep)
    ok("sweep", site / "np.json", site / "pipelines.json", *sweep)
    runs = (site / "out" / "runs.jsonl").read_bytes()
    assert "another sweep (1 plans are not in this one, such as pipelines.json)" in ok(
        "sweep", site / "np.json", *sweep, status=2
    )
    assert (site / "out" / "runs.jsonl").read_bytes() == runs
    (site / "out" / "mine.txt").write_text("stays")
    ok("sweep", site / "np.json", *sweep, "--overwrite")
    assert pd.read_csv(site / "out" / "runs.csv")["plan"].tolist() == ["np.json"]
    assert len((site / "out" / "runs.jsonl").read_text().splitlines()) == 1
    assert (site / "out" / "mine.txt").exists()
    (site / "out" / "sweep.json").write_text("{")
    assert "sweep.json that cannot be read as a sweep; choose another" in ok(
        "sweep", site / "np.json", *sweep, status=2
    )
    ok("sweep", site / "np.json", *sweep, "--overwrite")
    ok("run", site / "np.json", *offered(site), "--out", site / "run")
    sweep = ("sweep", site / "np.json", "--loads", "50", "--jobs", "1", *offered(site), "--out", site / "run")
    assert "holds the results of another run (run.json)" in ok(*sweep, status=2)
    ok(*sweep, "--overwrite")
    assert not (site / "run" / "run.json").exists()
    assert not (site / "run" / "m.records.csv").exists()


def test_a_sweep_into_a_folder_with_inputs_leaves_them(ok, site):
    before = {path.name: path.read_bytes() for path in site.iterdir()}
    ok("sweep", site / "np.json", "--loads", "50", "--jobs", "1", *offered(site), "--out", site, "--overwrite")
    assert {name: (site / name).read_bytes() for name in before} == before


def test_two_commands_do_not_share_a_folder(site):
    from simulator.cli.folders import owned

    with owned(site / "out", {}, overwrite=False):
        second = owned(site / "out", {}, overwrite=False)
        with pytest.raises(InputError, match="another command is writing its results there"):
            second.__enter__()
        assert (site / "out").exists()
    assert not (site / "out").exists()  # nothing was written


NAMES = ("org/model", "NA", "../../x", "[/x]", "=cmd", "$\\frac$", "a\x07b", "n" * 90)


def test_names_are_data_everywhere(ok, tmp_path):
    site = tmp_path / "deep" / "er" / "site"
    problem = base(NAMES, fast="[red]$x_1$")
    save(problem, site / "problem.json")
    save(make_plan(problem, "np"), site / "np.json")
    (site / "t.csv").write_text(arrivals_text(poisson(5.0, 600.0, np.random.default_rng(1))))
    text = ok("run", site / "np.json", *offered(site), "--out", site / "out" / "run")
    for name in ("org/model", "NA", "../../x", "[/x]", "=cmd", "n" * 90):
        assert name in text
    written = {path.name for path in (site / "out" / "run").glob("*.records.csv")}
    assert written == {f"{file_name(name)}.records.csv" for name in NAMES}
    assert {path.name for path in tmp_path.iterdir()} == {"deep"}
    assert "'=cmd" in (site / "out" / "run" / "summary.csv").read_text()
    ok("sweep", site / "np.json", *offered(site, "--loads", "50", "--jobs", "1"), "--out", site / "out" / "sweep")
    ok("report", site / "out", "--out", site / "report.html")
    page = (site / "report.html").read_text()
    for name in ("org/model", "NA", "../../x", "[/x]", "=cmd"):
        assert f"<td>{name}</td>" in page
        assert f"Run: {name}" in page
    ok("run", site / "np.json", *offered(site), "--layout", "ppipe", "--out", site / "out" / "ppipe")
    assert (site / "out" / "ppipe" / "org%2Fmodel" / "master.csv").exists()


def test_json_is_all_of_standard_output(ok, site):
    run = json.loads(ok("run", site / "np.json", *offered(site), "--json", "--out", site / "run"))
    assert run["runs"][0]["dnn"] == "m"
    some = offered(site, "--loads", "50", "--jobs", "1", "--json")
    sweep = json.loads(ok("sweep", site / "np.json", *some, "--out", site / "sweep"))
    assert sweep["largest"][0]["largest_load_factor"] == 0.5
    assert json.loads(ok("trace", "info", site / "t.csv", "--json"))["requests"] > 2000
