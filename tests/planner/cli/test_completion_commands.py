"""observe, suggest, complete, and planning with what they give."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from planner.files import load_observed, load_plan, load_profile, save
from planner.model import (
    Block,
    Cluster,
    DeviceType,
    Dnn,
    LatencyBound,
    LatencyTable,
    Network,
    Options,
    Problem,
    Profile,
)
from planner.model.profile import Provenance

MEASURED = Provenance("measured", "by hand", date="2026-11-26")


def profile(name: str, work: tuple[int, ...], batches: tuple[int, ...] = (1, 2, 4)) -> Profile:
    """Blocks that take work · batch^0.9 on A, twice that on B."""
    tables = tuple(
        LatencyTable(
            device, 1, batches,
            tuple(tuple(round(slow * block * batch**0.9) for block in work) for batch in batches), MEASURED,
        )
        for device, slow in (("A", 1), ("B", 2))
    )  # fmt: skip
    return Profile(name, tuple(Block((f"layer{n}",)) for n in range(len(work))), (8,) * (len(work) - 1), tables)


NETS = [profile(f"net{n}", (900 + 70 * n, 400 + 31 * n, 1300 - 90 * n)) for n in range(4)]


@pytest.fixture
def observed(command, tmp_path: Path) -> Path:
    """Observations of four models, of which the last was timed on A only, and only at batch 1."""
    for net in NETS[:-1]:
        save(net, tmp_path / f"{net.name}.json")
    last = NETS[-1].tables[0]
    few = replace(NETS[-1], tables=(replace(last, batches=(1,), latency_us=last.latency_us[:1]),))
    save(few, tmp_path / "net3.json")
    out = tmp_path / "seen.json"
    assert command("planner", "observe", *(tmp_path / f"net{n}.json" for n in range(4)), "--out", out).status == 0
    return out


def test_profiles_are_taken_over_once_and_with_provenance(command, observed, tmp_path):
    before = load_observed(observed)
    assert len(before.runs) == 3 * 6 + 1
    assert {run.provenance for run in before.runs} == {MEASURED}
    again = command("planner", "observe", tmp_path / "net0.json", "--out", observed)
    assert again.status == 0
    assert load_observed(observed) == before


def test_what_was_not_measured_is_completed_bounded_and_planned_with(command, observed, tmp_path):
    finished = command("planner", "complete", observed, "--bound", "0.9", "--out", tmp_path / "whole")
    assert finished.status == 0, finished.err
    assert "calibrated on 19 runs" in finished.out
    whole = load_profile(tmp_path / "whole" / "net3.json")
    for table, true in zip(whole.tables, NETS[-1].tables, strict=True):
        assert table.provenance.kind == "estimated"
        for row, exact in zip(table.latency_us, true.latency_us, strict=True):
            assert row == pytest.approx(exact, rel=0.15)
    assert {(table.device, table.provenance.level) for table in whole.bounds} == {("A", 0.9), ("B", 0.9)}
    cluster = Cluster((DeviceType("A", 2), DeviceType("B", 2)), Network(10))
    planned = {}
    for latency in ("nominal", LatencyBound(0.9)):
        problem = Problem(cluster, (Dnn("net3", 40_000, (whole,)),), Options(latency=latency))
        save(problem, tmp_path / "problem.json")
        out = tmp_path / "plan.json"
        assert command("planner", "plan", tmp_path / "problem.json", "--out", out).status == 0
        checked = command("planner", "validate", out, "--problem", tmp_path / "problem.json")
        assert checked.status == 0, checked.out + checked.err
        planned[str(latency)] = load_plan(out).value
    nominal, bounded = planned.values()
    assert bounded < nominal


def test_timings_of_a_csv_file_are_added_and_completed(command, observed, tmp_path):
    """Three timings of a new model and two of a known one, as a spreadsheet writes them."""
    (tmp_path / "cuts.csv").write_text("block,cut_bytes\n0,8\n1,8\n")
    (tmp_path / "new.csv").write_text(
        "\ufeffmodel;device;share;batch;block;latency_us\r\nfresh;A;1;1;0;1000\r\nfresh;A;1;1;1;500\r\n"
        "fresh;A;1;1;2;1200\r\nnet3;B;1;1;0;2220\r\nnet3;B;1;1;2;2060\r\n",
        encoding="utf-8",
    )
    added = command("planner", "observe", tmp_path / "new.csv", "--cuts", tmp_path / "cuts.csv", "--out", observed)
    assert added.status == 0, added.err
    assert "21 runs of 5 models" in added.out
    again = command("planner", "observe", tmp_path / "new.csv", "--out", observed)
    assert "21 runs of 5 models" in again.out
    finished = command("planner", "complete", observed, "--bound", "none", "--out", tmp_path / "whole")
    assert finished.status == 0, finished.err
    fresh = load_profile(tmp_path / "whole" / "fresh.json")
    assert fresh.table("A", 1).block_latency_us(1) == (1000, 500, 1200)
    assert fresh.table("B", 1).block_latency_us(4) == pytest.approx((6964, 3482, 8357), rel=0.15)
    assert load_profile(tmp_path / "whole" / "net3.json").table("B", 1).measured[0] == (True, False, True)


def test_only_devices_asked_for_are_written(command, observed, tmp_path):
    both, one = (tmp_path / name for name in ("both", "one"))
    assert command("planner", "complete", observed, "--bound", "0.9", "--out", both).status == 0
    assert command("planner", "complete", observed, "--bound", "0.9", "--devices", "B", "--out", one).status == 0
    whole, part = (load_profile(folder / "net3.json") for folder in (both, one))
    assert part.tables == tuple(table for table in whole.tables if table.device == "B")
    assert {table.device for table in part.bounds} == {"B"}


def test_suggestions_name_runs_and_what_they_buy(command, observed):
    finished = command("planner", "suggest", observed, "--device", "B", "--budget", 3)
    assert finished.status == 0, finished.err
    lines = [line.split() for line in finished.out.splitlines()[1:]]
    assert len(lines) == 3
    assert lines[0][1] == "net3"  # the one never timed on B
    errors = [float(line[-1].rstrip("%")) for line in lines]
    assert errors == sorted(errors, reverse=True)


def test_what_a_plan_chose_is_measured_until_it_rests_on_measurements(command, observed, tmp_path):
    """Complete, plan, measure what was chosen, again: the plan that comes out is that from whole profiles."""
    for net in NETS:
        save(net, tmp_path / "lab" / f"{net.name}.json")
    cluster = Cluster((DeviceType("A", 2), DeviceType("B", 2)), Network(10))

    def plan_from(folder: str, latency: Literal["nominal"] | LatencyBound) -> float:
        variants = (load_profile(tmp_path / folder / "net3.json"),)
        save(Problem(cluster, (Dnn("net3", 40_000, variants),), Options(latency=latency)), tmp_path / "problem.json")
        made = command("planner", "plan", tmp_path / "problem.json", "--out", tmp_path / "plan.json")
        assert made.status == 0, made.err
        return load_plan(tmp_path / "plan.json").value

    complete = ("planner", "complete", observed, "--bound", "0.9", "--out", tmp_path / "whole")
    before = len(load_observed(observed).runs)
    for _ in range(6):
        assert command(*complete).status == 0
        value = plan_from("whole", LatencyBound(0.9))
        asked = command("planner", "suggest", observed, "--for", tmp_path / "plan.json", "--json")
        assert asked.status == 0, asked.err
        answer = json.loads(asked.out)
        if not answer["unmeasured"]:
            break
        assert {row["model"] for row in answer["suggested"]} == {"net3"}
        taken = command(
            "planner", "observe", tmp_path / "lab" / "net3.json", "--for", tmp_path / "plan.json", "--out", observed
        )
        assert "everything that" in taken.out
    assert answer["unmeasured"] == 0
    new = load_observed(observed).runs[before:]
    assert new
    assert all(run.chosen and run.model == "net3" for run in new)
    assert len(new) <= 4  # of the 5 that were never measured
    assert value == pytest.approx(plan_from("lab", "nominal"))
    refused = command(*complete, "--calibrate-on", "chosen")
    assert f"level 0.9 of observed runs that plans chose: needs 9 to calibrate on, got {len(new)}" in refused.err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("suggest", "{seen}"), "--device: expected the device to learn about, or a plan with --for"),
        (("suggest", "{seen}", "--for", "{folder}/nowhere.json"), "nowhere.json"),
        (("observe", "resnet18", "--for", "{folder}/p.json", "--out", "{folder}/new.json"), "new.json does not exist"),
        (("complete", "{seen}", "--out", "{folder}", "--bound", "1.5"), "--bound: expected numbers between 0 and 1"),
        (("complete", "{seen}", "--out", "{folder}", "--bound", "0.99"), "level 0.99 of observed runs: needs 99"),
        (("complete", "{seen}", "--out", "{folder}", "--beside", "other"), "beside 'other': the observations do not"),
        (("complete", "{seen}", "--out", "{folder}", "--beside", "net0"), "no run beside another model"),
        (
            ("complete", "{seen}", "--out", "{folder}", "--beside", "net0", "--calibrate-on", "chosen"),
            "leave out one of it and --beside",
        ),
        (("complete", "{seen}", "--out", "{folder}", "--devices", "C"), "device 'C': has neither a measurement"),
        (("suggest", "{seen}", "--device", "C"), "device 'C': has neither a measurement nor an estimate"),
        (("observe", "resnet18", "--out", "{seen}"), "--device: expected a name for this machine"),
        (
            ("observe", "resnet18", "--out", "{seen}", "--device", "x", "--clock", "sun"),
            "--clock: expected wall or cpu",
        ),
        (("observe", "{folder}/other.json", "--out", "{seen}"), "net0: its blocks are not those"),
        (("observe", "{folder}/t.csv", "--out", "{seen}"), "t.csv:3: latency_us: expected a number above 0, got '0'"),
        (("observe", "{folder}/u.csv", "--out", "{seen}"), "u.csv:2: unknown model 'new'"),
        (
            ("observe", "{folder}/u.csv", "--out", "{folder}/no.json"),
            "u.csv:2: unknown model 'new'; expected one of []",
        ),
        (("observe", "{folder}/t.csv", "--cuts", "{folder}/cuts.csv", "--out", "{seen}"), "expected one new model in"),
        (
            ("observe", "{folder}/other.json", "--cuts", "{folder}/cuts.csv", "--out", "{seen}"),
            "name the CSV file, too",
        ),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(command, observed, tmp_path, arguments, text):
    save(profile("net0", (1, 2)), tmp_path / "other.json")
    header = "model,device,share,batch,block,latency_us"
    (tmp_path / "t.csv").write_text(f"{header}\nnet0,A,1,1,0,900\nnet0,A,1,1,1,0\n")
    (tmp_path / "u.csv").write_text(f"{header}\nnew,A,1,1,0,900\n")
    (tmp_path / "cuts.csv").write_text("block,cut_bytes\n")
    before = observed.read_bytes()
    names = {"seen": observed, "folder": tmp_path if arguments[0] == "observe" else tmp_path / "none"}
    finished = command("planner", *(argument.format(**names) for argument in arguments))
    assert finished.status == 2
    assert text in finished.err
    assert finished.err.count("\n") == 1
    assert observed.read_bytes() == before
    assert not (tmp_path / "none").exists()
    assert not (tmp_path / "no.json").exists()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"latency_us": [900.0, 0, 1300.0]}, r"runs\[2\].latency_us\[1\].*got 0"),
        ({"latency_us": [900.0, -5.0, 1300.0]}, r"runs\[2\].latency_us\[1\].*got -5"),
        ({"latency_us": [900.0, "fast", 1300.0]}, r"runs\[2\].latency_us\[1\].*got \"fast\""),
        ({"latency_us": [900.0, 1300.0]}, r"runs\[2\].latency_us: expected 3 numbers, one per block of net0, got 2"),
        ({"latency_us": [None, None, None]}, "no block was timed"),
        ({"spread": [0.1]}, r"runs\[2\].spread: expected 3 numbers"),
        ({"spread": [0.1, -0.1, 0.1]}, r"runs\[2\].spread\[1\].*got -0.1"),
        ({"model": "net9"}, "unknown model 'net9'"),
        ({"beside": ["net9"]}, "unknown model 'net9'"),
        ({"batch": 0}, r"runs\[2\].batch.*got 0"),
        ({"share": 0}, r"runs\[2\].share"),
        ({"device": ""}, r"runs\[2\].device"),
        ({"batch": 1, "latency_us": [9000.0, 900.0, 900.0]}, "block 0: two timings disagree, 900 and 9000 µs"),
        ({"colour": "red"}, r"runs\[2\].*colour"),
    ],
)
def test_what_is_wrong_with_observations_is_named_by_its_place(command, observed, change, text):
    document = json.loads(observed.read_text())
    document["runs"][2] |= change
    observed.write_text(json.dumps(document))
    finished = command("planner", "suggest", observed, "--device", "A")
    assert finished.status == 2
    assert re.search(text, finished.err), finished.err
    assert finished.err.count("\n") == 1


@pytest.mark.slow
def test_models_are_timed_here_alone_and_beside_another(command, tmp_path):
    out = tmp_path / "seen.json"
    quick = ("--device", "core", "--batches", "1", "--cap-s", "0.02", "--rounds", "1", "--blocks", "3", "--out", out)
    assert command("planner", "observe", "squeezenet-light", "shufflenet-light", *quick).status == 0
    assert command("planner", "observe", "squeezenet-light", "--beside", "shufflenet-light", *quick).status == 0
    runs = load_observed(out).runs
    assert [(run.model, run.beside) for run in runs] == [
        ("squeezenet-light", ()),
        ("shufflenet-light", ()),
        ("squeezenet-light", ("shufflenet-light",)),
    ]
    assert sum(runs[2].latency_us) > sum(runs[0].latency_us)
    refused = command("planner", "observe", "squeezenet-light", "--beside", "resnet50-light", *quick)
    assert "observe it alone first" in refused.err
