"""The commands run, sweep and report, from files to files."""

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
from simulator.cli.plan_files import load_plans, references
from simulator.workload import arrivals_text, maf_like, poisson
from simulator.workload.texts import maf21_text


@pytest.fixture(scope="module")
def call():
    app = new_app("test")
    simulation.register(app)
    reporting.register(app)

    def invoke(*arguments, status=0):
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == status, result.output
        return result.output

    return invoke


@pytest.fixture
def site(tmp_path, two_stages):
    """Write a problem, its plan and a trace."""
    problem, plan = two_stages
    save(problem, tmp_path / "problem.json")
    save(plan, tmp_path / "pipelines.json")
    save(replace(plan, scheduler="np"), tmp_path / "np.json")
    (tmp_path / "steady.csv").write_text(arrivals_text(poisson(50.0, 60.0, np.random.default_rng(1))))
    (tmp_path / "calls.csv").write_text(maf21_text(maf_like(2_000, np.random.default_rng(1), applications=7)))
    return tmp_path


def test_run_writes_records_summary_and_what_was_run(call, site):
    out = site / "out"
    text = call("run", site / "pipelines.json", "--trace", site / "steady.csv", "--duration", "5", "--out", out)
    assert "first" in text
    summary = pd.read_csv(out / "summary.csv").set_index("dnn")
    assert summary.loc["first", "rate_rps"] == pytest.approx(0.9 * 4 * 2 / 0.024)
    records = pd.read_csv(out / "second.records.csv")
    assert len(records) == pytest.approx(0.9 * 250 * 5, rel=0.15)
    assert json.loads((out / "run.json").read_text())["policy"] == "reservation"
    before = (out / "first.records.csv").read_bytes()
    call("run", site / "pipelines.json", "--trace", site / "steady.csv", "--duration", "5", "--out", out)
    assert (out / "first.records.csv").read_bytes() == before
    call("report", out, "--out", site / "report.html")
    page = (site / "report.html").read_text()
    assert "<h2>Run: first</h2>" in page
    assert "<h2>Plan: plan</h2>" in page


def test_run_offers_a_rate_to_one_dnn(call, site):
    out = site / "out"
    call(
        *("run", site / "pipelines.json", "--trace", site / "steady.csv", "--rate", "200", "--dnn", "second"),
        *("--duration", "5", "--engine", "simpy", "--out", out),
    )
    summary = pd.read_csv(out / "summary.csv")
    assert summary["dnn"].tolist() == ["second"]
    assert summary["engine"].tolist() == ["simpy"]
    assert summary["requests"][0] == pytest.approx(1000, abs=100)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_sweep_writes_a_row_per_run_and_resumes(call, site, suffix):
    out = site / "sweep"
    arguments = (
        *("sweep", site / "pipelines.json", site / "np.json", "--unchecked", "--trace", site / "steady.csv", "--trace"),
        *(
            site / "calls.csv",
            "--loads",
            "100:50:50",
            "--duration",
            "2",
            "--jobs",
            "1",
            "--format",
            suffix,
            "--out",
            out,
        ),
    )
    assert "16 runs" in call(*arguments)  # 2 plans · 2 DNNs · 2 traces · 2 loads
    path = out / f"runs.{suffix}"
    rows = pd.read_csv(path) if suffix == "csv" else pd.read_parquet(path)
    assert len(rows) == 16
    assert set(rows["scheduler"]) == {"pipelines", "np"}
    assert len(pd.read_csv(out / "largest.csv")) == 8
    written = (out / "runs.jsonl").stat().st_mtime_ns
    call(*arguments)
    assert (out / "runs.jsonl").stat().st_mtime_ns == written
    call("report", out, "--out", site / "report.html")
    assert "<h2>Attainment over load</h2>" in (site / "report.html").read_text()


def test_results_in_the_layout_of_ppipe(call, site):
    common = ("--trace", site / "steady.csv", "--duration", "2", "--layout", "ppipe")
    call("run", site / "pipelines.json", *common, "--out", site / "out")
    assert len(pd.read_csv(site / "out" / "first" / "master.csv")) == pytest.approx(600, abs=60)
    assert sorted(path.name for path in (site / "out").glob("*/*.csv")) == ["0-0.csv", "master.csv", "master.csv"]
    assert not list((site / "out").glob("*.records.csv"))
    plans = site / "pipelines.json", site / "np.json"
    call("sweep", *plans, "--unchecked", "--loads", "100,50", "--jobs", "1", *common, "--out", site / "sweep")
    logs = pd.read_csv(site / "sweep" / "logs.csv")
    assert logs[["dnn", "scheduler", "lf"]].drop_duplicates().shape == (8, 3)  # 2 plans · 2 DNNs · 2 loads
    assert set(logs["scheduler"]) == {"v4", "bl"}
    assert logs["perc_dropped"].between(0, 1).all()


def test_traces_of_one_name_are_told_apart(call, site):
    (site / "other").mkdir()
    (site / "other" / "steady.csv").write_text(arrivals_text(poisson(20.0, 60.0, np.random.default_rng(2))))
    traces = site / "steady.csv", site / "other" / "steady.csv"
    call(
        *("sweep", site / "pipelines.json", "--trace", traces[0], "--trace", traces[1], "--loads", "50"),
        *("--duration", "2", "--jobs", "1", "--out", site / "out"),
    )
    assert set(pd.read_csv(site / "out" / "runs.csv")["trace"]) == {str(path) for path in traces}


def test_round_robin_gives_every_dnn_functions_of_its_own(call, site):
    out = site / "sweep"
    call(
        *("sweep", site / "pipelines.json", "--trace", site / "calls.csv", "--round-robin", "--loads", "50"),
        *("--duration", "2", "--jobs", "1", "--out", out),
    )
    assert set(pd.read_csv(out / "runs.csv")["trace"]) == {"calls.csv for first", "calls.csv for second"}


def test_plans_of_other_dnns_would_get_other_functions(call, site, two_stages):
    problem, plan = two_stages
    alone = replace(problem, dnns=problem.dnns[:1])
    save(alone, site / "alone" / "problem.json")
    save(replace(plan, pipelines=plan.of("first"), problem_sha256=""), site / "alone" / "alone.json")
    with pytest.raises(InputError, match="--round-robin: first would get other functions in alone.json"):
        call(
            *("sweep", site / "pipelines.json", site / "alone" / "alone.json", "--trace", site / "calls.csv"),
            *("--round-robin", "--out", site / "sweep"),
        )
    assert not (site / "sweep").exists()


def test_a_failed_run_is_said_and_the_rest_finished(call, site, two_stages):
    _, plan = two_stages
    slow = replace(plan.of("second")[0], throughput_rps=0.5)  # less than the trace has
    save(replace(plan, value=0.25, pipelines=(*plan.of("first"), slow)), site / "slow.json")
    out = site / "sweep"
    call(
        *(
            "sweep",
            site / "slow.json",
            "--unchecked",
            "--trace",
            site / "steady.csv",
            "--loads",
            "50",
            "--duration",
            "2",
        ),
        *("--jobs", "1", "--out", out),
        status=1,
    )
    assert pd.read_csv(out / "runs.csv")["dnn"].tolist() == ["first"]


def test_load_factor_one_is_the_pipelines_plan_of_the_same_problem(site, one_stage):
    problem, other = one_stage()
    save(problem, site / "other" / "problem.json")
    save(other, site / "other" / "np.json")
    loaded = load_plans([site / "np.json", site / "pipelines.json", site / "other" / "np.json"])
    assert [one.name for one in loaded] == [
        str(site / "np.json"),
        str(site / "pipelines.json"),
        str(site / "other" / "np.json"),
    ]
    refer = references(loaded)
    rates = {plan: {dnn: to.plan.throughput_rps(dnn) for dnn, to in of.items()} for plan, of in refer.items()}
    assert rates[str(site / "np.json")] == rates[str(site / "pipelines.json")]
    assert rates[str(site / "other" / "np.json")] == {"net": other.throughput_rps("net")}


BAD = [
    (["run", "pipelines.json", "--trace", "none.csv"], "none.csv: cannot read it"),
    (["run", "pipelines.json", "--trace", "steady.csv", "--rate", "0"], "rate: expected a number above 0"),
    (["run", "pipelines.json", "--trace", "steady.csv", "--policy", "no-such"], "unknown policy 'no-such'"),
    (["run", "pipelines.json", "--trace", "steady.csv", "--dnn", "third"], "unknown DNN 'third'"),
    (["run", "pipelines.json", "--trace", "steady.csv", "--duration", "0"], "duration: expected more than .*, got 0 s"),
    (["run", "pipelines.json", "--trace", "steady.csv", "--load=-1"], "--load: expected a share above 0 .*, got -1"),
    (
        ["run", "pipelines.json", "--trace", "steady.csv", "--load", "nan"],
        "--load: expected a share above 0 .*, got nan",
    ),
    (["run", "lonely/plan.json", "--trace", "steady.csv"], "problem.json: no such file; give the plan's problem"),
    (["run", "other/plan.json", "--trace", "steady.csv"], "was made for another problem"),
    (["sweep", "np.json", "np.json", "--trace", "steady.csv"], "given twice"),
    (["sweep", "np.json", "--trace", "steady.csv", "--policy", "no-such"], "unknown policy 'no-such'; choose one of"),
    (["sweep", "np.json", "--trace", "steady.csv", "--trace", "steady.csv"], "--trace: expected each once"),
    (
        ["sweep", "np.json", "--trace", "steady.csv", "--seed", "1", "--seed", "1"],
        "--seed: expected each once, got 1, 1",
    ),
    (["sweep", "np.json", "--trace", "steady.csv", "--loads", "0"], "loads: expected percents above 0"),
    (["sweep", "np.json", "--trace", "steady.csv", "--loads", "a:b"], "--loads: expected FIRST:LAST:STEP"),
    (
        ["sweep", "np.json", "--trace", "steady.csv", "--duration", "0.001"],
        "requests of its first 0.001 s are not",
    ),
    (
        ["run", "pipelines.json", "--trace", "steady.csv", "--duration", "0.001"],
        "requests of its first 0.001 s are not",
    ),
    (["run", "pipelines.json", "--trace", "once.csv"], "once.csv: offers first 1 arrival.*two times that differ"),
    (["run", "idle/plan.json", "--trace", "steady.csv"], "plan.json: serves no DNN"),
    (["sweep", "np.json", "strange/plan.json", "--trace", "steady.csv"], "plan.json: unknown DNN 'third'"),
    (["sweep", "np.json", "short/plan.json", "--trace", "steady.csv"], r"plan.json: .* stages cover \[\(0, 3\)\]"),
    (["sweep", "np.json", "absent/plan.json", "--trace", "steady.csv"], "plan.json: unknown device type 'TPU'"),
    (["run", "idle/plan.json", "--trace", "steady.csv", "--dnn", "first"], "plan.json: does not serve first"),
    (["report", "none"], "none: no such folder"),
]


@pytest.mark.parametrize(("arguments", "words"), BAD, ids=[words for _, words in BAD])
def test_bad_input_is_one_line_and_writes_nothing(call, site, two_stages, arguments, words):
    problem, plan = two_stages
    save(plan, site / "lonely" / "plan.json")
    save(plan, site / "other" / "plan.json")
    save(replace(problem, dnns=problem.dnns[:1]), site / "other" / "problem.json")
    save(problem, site / "idle" / "problem.json")
    save(replace(plan, pipelines=()), site / "idle" / "plan.json")
    (site / "once.csv").write_text("arrival_us\n5\n")
    first, second = plan.of("first")[0], plan.of("second")[0]
    elsewhere = replace(second, stages=(replace(second.stages[0], device="TPU"),))
    for folder, pipelines in {
        "strange": (replace(first, dnn="third"),),
        "short": (replace(first, stages=first.stages[:1]),),
        "absent": (first, elsewhere),
    }.items():
        save(problem, site / folder / "problem.json")
        save(replace(plan, pipelines=pipelines), site / folder / "plan.json")
    files = {"pipelines.json", "np.json", "steady.csv", "once.csv", "none.csv", "none"}
    placed = [site / text if text in files or "/" in text else text for text in arguments]
    out = site / "out"
    with pytest.raises(InputError, match=words) as caught:
        call(*placed, "--out", out)
    assert "\n" not in str(caught.value)
    assert (
        not [path for path in out.rglob("*") if path.is_file() and path.name != "sweep.json"] if out.exists() else True
    )


def test_a_folder_that_cannot_be_written_is_said(call, site):
    (site / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot write there"):
        call("run", site / "np.json", "--unchecked", "--trace", site / "steady.csv", "--out", site / "file" / "out")


def test_an_empty_folder_has_nothing_to_report(call, tmp_path: Path):
    with pytest.raises(InputError, match="nothing to report"):
        call("report", tmp_path)


def test_a_report_of_a_folder_has_the_results_below_it(call, site):
    offered = ("--trace", site / "steady.csv", "--duration", "2")
    call("run", site / "np.json", "--unchecked", *offered, "--out", site / "out" / "run")
    call(
        "sweep",
        site / "np.json",
        "--unchecked",
        *offered,
        "--loads",
        "50,25",
        "--jobs",
        "1",
        "--out",
        site / "out" / "sweep",
    )
    call("report", site / "out", "--out", site / "report.html")
    page = (site / "report.html").read_text()
    for heading in ("Problem: run", "Largest load factor that holds", "Attainment over load", "Runs"):
        assert heading in page


def test_a_run_that_cannot_be_simulated_writes_nothing(call, site, two_stages):
    _, plan = two_stages
    second = plan.of("second")[0]
    slower = replace(second, stages=(replace(second.stages[0], latency_us=9_000), *second.stages[1:]))
    broken = replace(plan, pipelines=(*plan.of("first"), slower))
    save(broken, site / "broken.json")
    with pytest.raises(InputError, match=r"broken.json: .* was the plan made for another profile"):
        call("run", site / "broken.json", "--trace", site / "steady.csv", "--out", site / "out")
    assert not (site / "out").exists()


@pytest.mark.parametrize("name", ["run.json", "runs.csv", "summary.csv", "net.slices.csv"])
def test_results_that_cannot_be_read_are_named(call, tmp_path: Path, name: str):
    (tmp_path / name).write_text("")
    with pytest.raises(InputError, match=f"{name}: cannot be read as results .*; write it again"):
        call("report", tmp_path, "--out", tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()
