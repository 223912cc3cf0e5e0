"""Published plan files: all of them read; what is written is read back as it was."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from planner.files.ppipe import FileName, read_plan, read_problem, read_seconds, write_plan
from planner.model import Dnn, InputError, Plan, Problem

REFERENCE = os.environ.get("POOLPIPE_REFERENCE")
needs_reference = pytest.mark.skipif(REFERENCE is None, reason="POOLPIPE_REFERENCE is unset")
DATA = Path(REFERENCE or "") / "ppipe"
MIX = "colorization-v2-googlenet-v3-pytorch-repvgg-b3_0.3-0.33-0.37"
V4 = f"maf19/{MIX}_V100-P4_25-75_bw-gbps-6_sla-multiplier-5_v4.json"


def published(pattern: str = "*/*") -> list[Path]:
    return sorted((DATA / "plans").glob(f"{pattern}.json"))


def assert_same(left: object, right: object) -> None:
    """Assert equality of JSON values, but for the solver's slack: 1.9999937 devices are 2."""
    if isinstance(left, dict):
        assert isinstance(right, dict)
        assert left.keys() == right.keys()
        for key, value in left.items():
            assert_same(value, right[key])
    elif isinstance(left, list):
        assert isinstance(right, list)
        assert len(left) == len(right)
        for one, other in zip(left, right, strict=True):
            assert_same(one, other)
    elif isinstance(left, float):
        assert left == pytest.approx(right, rel=1e-4, abs=1e-6)
    else:
        assert left == right


@needs_reference
def test_all_published_plans_read_and_are_written_as_they_were(tmp_path: Path) -> None:
    paths = published()
    assert len(paths) == 108
    for path in paths:
        problem = read_problem(path, DATA)
        plan = read_plan(path, problem)
        written = write_plan(problem, plan, tmp_path)
        assert written.name == path.name
        assert read_problem(written, DATA) == problem
        again = read_plan(written, problem)
        assert again.pipelines == plan.pipelines
        assert again.value == pytest.approx(plan.value, rel=1e-6)
        assert again.bound == pytest.approx(plan.bound, rel=1e-6)


@needs_reference
def test_a_written_v4_file_has_the_published_keys_and_values(tmp_path: Path) -> None:
    paths = published("*/*_v4")
    assert len(paths) == 24 + 18
    for path in paths:
        problem = read_problem(path, DATA)
        written = write_plan(problem, read_plan(path, problem), tmp_path)
        assert_same(json.loads(written.read_text()), json.loads(path.read_text()))


@needs_reference
def test_a_plan_with_equal_sums_round_trips_to_the_bit(tmp_path: Path) -> None:
    path = DATA / "plans" / V4
    problem = read_problem(path, DATA)
    plan = read_plan(path, problem)
    value = min(plan.throughput_rps(dnn.name) / dnn.weight for dnn in problem.dnns)
    plan = replace(plan, value=value, bound=value)
    assert read_plan(write_plan(problem, plan, tmp_path), problem) == plan


@needs_reference
def test_the_problem_holds_what_name_and_config_say() -> None:
    problem = read_problem(DATA / "plans" / V4, DATA)
    assert [(d.name, d.count, d.shares, d.devices_per_server) for d in problem.cluster.device_types] == [
        ("V100", 25, (1, 2, 3, 4), 2),
        ("P4", 75, (1,), 1),
    ]
    assert problem.cluster.network.bandwidth_gbps == 6
    assert [dnn.weight for dnn in problem.dnns] == [0.3, 0.33, 0.37]
    assert problem.dnns[0].slo_us == 71752.35999999999
    assert problem.dnns[0].np_throughput_rps == 692.908349545612
    assert (problem.options.max_stages, problem.options.slack_fraction) == (2, 0.4)
    profile = problem.dnns[0].variants[0]
    assert profile.cut_bytes[0] == 16777216
    assert profile.devices == ("V100", "P4")


@needs_reference
def test_baselines_are_limited_to_their_rules() -> None:
    for suffix, stages in (("bl", 1), ("dart-r", 2)):
        problem = read_problem(DATA / "plans" / V4.replace("_v4", f"_{suffix}"), DATA)
        assert problem.options.max_stages == stages
        assert all(device.shares == (1,) for device in problem.cluster.device_types)
    ablation = read_problem(published("ablation/convnext*_v4")[0], DATA)
    assert (ablation.options.max_stages, ablation.options.slack_fraction) == (3, 0.1)


@needs_reference
def test_seconds_are_none_where_the_file_does_not_say() -> None:
    assert read_seconds(published("ablation/convnext*_bl")[0]) is None
    assert read_seconds(published("ablation/convnext*_v4")[0]) == pytest.approx(1800.18, abs=0.01)
    # DART-r: a runtime per DNN, 0.17565 + 0.16064 + 0.16520 s
    assert read_seconds(published("maf19/colorization*L4-T4*dart-r")[0]) == pytest.approx(0.5014, abs=1e-3)


@needs_reference
def test_what_the_published_form_cannot_hold_is_refused(tmp_path: Path) -> None:
    path = DATA / "plans" / V4
    problem = read_problem(path, DATA)
    plan = read_plan(path, problem)

    def refused(changed: Problem, text: str) -> None:
        with pytest.raises(InputError, match=text):
            write_plan(changed, plan, tmp_path)

    network = replace(problem.cluster.network, hop_latency_us=50.0)
    refused(replace(problem, cluster=replace(problem.cluster, network=network)), "hop latency")
    variants = (*problem.dnns[0].variants, replace(problem.dnns[0].variants[0], name="small"))
    refused(replace(problem, dnns=(replace(problem.dnns[0], variants=variants), *problem.dnns[1:])), "one variant")
    types = (replace(problem.cluster.device_types[0], shares=(1, 4)), problem.cluster.device_types[1])
    refused(replace(problem, cluster=replace(problem.cluster, device_types=types)), "shares of V100")


def edited(tmp_path: Path, *edits: tuple[str, object]) -> Path:
    """Write a copy of a published file with values of its first DNN replaced."""
    document = json.loads((DATA / "plans" / V4).read_text())
    for where, value in edits:
        *keys, last = where.split(".")
        target = document[0]
        for key in keys:
            target = target[int(key) if key.isdigit() else key]
        target[last] = value
    path = tmp_path / Path(V4).name
    path.write_text(json.dumps(document))
    return path


@needs_reference
@pytest.mark.parametrize(
    ("where", "value", "text"),
    [
        ("config.bw_gbps", "fast", r"\[0\].config.bw_gbps: .*\"fast\""),  # not a number
        ("config.bw_gbps", 10, "differs from that of the first DNN"),  # two bandwidths in one file
        ("config.gpu_name_arr", ["T4", "P4"], "differs from that of the first DNN"),
        ("config.hist_adjustment", 1, "same fraction of every DNN's sla"),  # the others keep 40 %
        ("config.transmit_time_us_arr", [1.0], "made for other blocks"),  # cuts of another prepartition
        ("config.dnn_name", "resnet", "not the name of a published plan of resnet"),
    ],
)
def test_files_that_contradict_themselves_are_refused(tmp_path: Path, where: str, value: object, text: str) -> None:
    with pytest.raises(InputError, match=text):
        read_problem(edited(tmp_path, (where, value)), DATA)


@needs_reference
def test_plans_of_other_dnns_and_unknown_devices_are_refused(tmp_path: Path) -> None:
    problem = read_problem(DATA / "plans" / V4, DATA)
    other = read_problem(published("ablation/convnext*_v4")[0], DATA)
    with pytest.raises(InputError, match="a plan of"):
        read_plan(DATA / "plans" / V4, other)
    with pytest.raises(InputError, match="unknown device type 'A100'"):
        read_plan(edited(tmp_path, ("pipelines.0.partitions.0.gpu", "A100")), problem)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "cannot read it"),  # no such file
        ("{", "JSON"),  # not JSON
        ("[]", "an entry per DNN"),
        ("[{}]", r"\[0\]\.xput: missing"),
    ],
)
def test_files_that_are_no_plans_are_refused(tmp_path: Path, content: str | None, text: str) -> None:
    path = tmp_path / "plan.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=text):
        read_problem(path, tmp_path)


def test_a_plan_by_hand_is_read_back_as_it_was_written(tmp_path: Path, toy: tuple[Problem, Plan]) -> None:
    """The published form leaves out how a plan was found, and keeps all that serves."""
    problem, plan = toy
    again = read_plan(write_plan(problem, plan, tmp_path), problem)
    assert (again.scheduler, again.objective) == (plan.scheduler, plan.objective)
    assert again.value == pytest.approx(plan.value)
    for found, made in zip(again.pipelines, plan.pipelines, strict=True):
        assert replace(found, stages=()) == replace(made, stages=())
        assert found.stages == made.stages


def test_x0_is_recovered_from_the_batch_building_of_a_plan(tmp_path: Path, toy: tuple[Problem, Plan]) -> None:
    # B = 1.3 · (2 - 1) / 650 rps = 2000 µs; the problem itself leaves X0 to the planner
    problem, plan = toy
    assert json.loads(write_plan(problem, plan, tmp_path).read_text())[0]["config"]["est_xput"] == pytest.approx(650)


@pytest.fixture
def toy() -> tuple[Problem, Plan]:
    from planner.model import Block, Cluster, DeviceType, LatencyTable, Network, Pipeline, Profile, Provenance, Stage

    table = LatencyTable("L4", 1, (1, 2), ((1000,), (1500,)), Provenance("measured", "by hand"))
    problem = Problem(
        Cluster((DeviceType("L4", 1),), Network(10.0)),
        (Dnn("toy", 10_000.0, (Profile("toy", (Block(("a",)),), (), (table,)),)),),
    )
    stage = Stage(0, 1, "L4", 1, 1, 2, 1500, 0.0, 4000 / 3)
    pipeline = Pipeline("toy", "toy", 4000 / 3, 2000.0, 4000.0, (stage,))
    plan = Plan("np", "max_min_throughput", "optimal", 4000 / 3, 4000 / 3, "milp", "highs", 0.0, "", {}, (pipeline,))
    return problem, plan


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("b_L4_5_bw-gbps-10_sla-multiplier-5_v4.json", "not the name"),  # another DNN
        ("a_L4_5_bw-gbps-10_sla-multiplier-5_v9.json", "not the name"),  # unknown scheduler
        ("a_0.3-0.7_L4_5_bw-gbps-10_sla-multiplier-5_v4.json", "2 weights"),  # for one DNN
        ("a_L4-T4_5_bw-gbps-10_sla-multiplier-5_v4.json", "1 counts"),  # for two types
    ],
)
def test_other_file_names_are_refused(name: str, text: str) -> None:
    with pytest.raises(InputError, match=text):
        FileName.parse(name, ("a",))
