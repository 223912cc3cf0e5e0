"""From models to a problem with merged blocks, a plan with a pool, and its stages as files, by the commands."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from planner.files import load_plan, load_problem, save
from planner.files.models import save_model
from planner.model import Cluster, DeviceType, Dnn, InputError, LatencyTable, Network, Options, Problem, Provenance
from planner.planning import make_plan
from planner.profiling import ModelGraph, blank_profile, open_session, read_graph, run_model
from planner.profiling.merged_stages import export_stages, verify_stages
from planner.profiling.zoo.builder import NetworkBuilder

NAMES = ("cats", "dogs", "birds")


def classifier(name: str, classes: int, trunk: int = 0) -> ir.Model:
    """Two dense layers that are the same in all models of one ``trunk``, and a head of its own."""
    build = NetworkBuilder(name, (1, 2, 2), seed=trunk)
    flat = build.layer("Flatten", [build.input], "flatten", axis=1)
    first = build.relu(build.linear(flat, 30, "dense1", inputs=4), "relu1")
    second = build.relu(build.linear(first, 20, "dense2"), "relu2")
    head = NetworkBuilder(name, (1, 2, 2), seed=100 + classes)
    weights = head.filters("head.weight", (classes, 20))
    build._initializers.append(weights)
    return build.finish(build.layer("Gemm", [second, weights], "head", classes, transB=1))


def problem_of(graphs: list[ModelGraph]) -> Problem:
    """A block for the trunk, a block for the head; devices that hold one of them."""
    dnns = []
    for graph in graphs:
        profile = blank_profile(graph, [0, 5])
        table = LatencyTable("Pi", 1, (1,), ((4000, 1000),), Provenance("measured", "by hand"))
        dnns.append(Dnn(graph.name, 80_000, (replace(profile, tables=(table,)),), rate_rps=40.0))
    trunk = dnns[0].variants[0].memory_bytes(1, 0, 1)
    cluster = Cluster((DeviceType("Pi", 6, memory_bytes=trunk),), Network(1.0))
    return Problem(cluster, tuple(dnns), Options(objective="fewest_devices"))


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    graphs = []
    for number, name in enumerate(NAMES):
        model = classifier(name, number + 2)
        save_model(model, tmp_path / f"{name}.onnx")
        graphs.append(read_graph(model, name))
    save(problem_of(graphs), tmp_path / "asked.json")
    return [tmp_path / f"{name}.onnx" for name in NAMES]


def test_from_models_to_the_stages_of_a_plan_with_a_pool(files: list[Path], command: Callable[..., object]) -> None:
    folder = files[0].parent
    found = command("planner", "merge", "find", folder / "asked.json", *files, "--out", folder / "problem.json")
    assert found.status == 0, found.err  # type: ignore[attr-defined]
    assert "are one copy: cats from block 0 on, dogs from block 0 on, birds" in found.out  # type: ignore[attr-defined]
    problem = load_problem(folder / "problem.json")
    plan = make_plan(problem)
    assert plan.value == 4, "a trunk and three heads"
    save(plan, folder / "plan.json")
    done = command("planner", "merge", "export", folder / "plan.json", *files, "--out", folder / "stages")
    assert done.status == 0, done.err  # type: ignore[attr-defined]
    rows = json.loads((folder / "stages/stages.json").read_text())
    assert len(rows) == 6
    assert len({row["file"] for row in rows if row["pool"]}) == 1
    assert len(list((folder / "stages").glob("*.onnx"))) == 4
    x = np.array([[[[1, -2], [3, 4]]]], np.float32)
    for name in NAMES:
        alive = {"input": x}
        for row in (row for row in rows if row["dnn"] == name):
            session = open_session(folder / "stages" / row["file"])
            made = run_model(session, {one: alive[own] for one, own in row["reads"].items()})
            alive |= dict(zip(row["makes"].values(), made, strict=True))
        expected = run_model(open_session(folder / f"{name}.onnx"), {"input": x})[0]
        np.testing.assert_allclose(alive["output"], expected, rtol=1e-5)


def test_stages_that_answer_otherwise_are_noticed(files: list[Path]) -> None:
    graphs = {path.stem: read_graph(ir.load(path), path.stem) for path in files}
    problem = problem_of(list(graphs.values()))
    plan = make_plan(problem)
    stages = export_stages(problem, plan, graphs)
    assert verify_stages(plan, graphs, stages) < 1e-5
    other = {name: read_graph(classifier(name, number + 2, trunk=9), name) for number, name in enumerate(NAMES)}
    with pytest.raises(InputError, match="the stages answer otherwise than the models"):
        verify_stages(plan, other, stages)


@pytest.mark.parametrize(
    ("command_line", "message"),
    [
        # models of which no two have a block in common
        (("find", "asked.json", "cats.onnx", "--out", "x.json"), "no two DNNs have a block in common"),
        # a file that is no variant
        (("find", "asked.json", "asked.onnx", "--out", "x.json"), "the problem has no variant 'asked'"),
    ],
)
def test_bad_input(
    files: list[Path],
    command: Callable[..., object],
    monkeypatch: pytest.MonkeyPatch,
    command_line: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(files[0].parent)
    found = command("planner", "merge", *command_line)
    assert found.status == 2  # type: ignore[attr-defined]
    assert message in found.err.replace("\n", " ")  # type: ignore[attr-defined]
    assert not Path("x.json").exists()


def test_a_pool_of_models_that_are_no_copy_is_refused(files: list[Path], command: Callable[..., object]) -> None:
    folder = files[0].parent
    command("planner", "merge", "find", folder / "asked.json", *files, "--out", folder / "problem.json")
    save(make_plan(load_problem(folder / "problem.json")), folder / "plan.json")
    save_model(classifier("dogs", 3, trunk=5), files[1])
    done = command("planner", "merge", "export", folder / "plan.json", *files, "--out", folder / "stages")
    assert "are not one copy" in done.err.replace("\n", " ")  # type: ignore[attr-defined]
    assert not (folder / "stages").exists()
    assert load_plan(folder / "plan.json").pipelines
