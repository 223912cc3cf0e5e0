"""Applications that were planned end to end, on real devices: models one after the other, stages over the seam."""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
import pytest
from onnx import numpy_helper, parser

from planner.model import (
    Application,
    Cluster,
    DeviceType,
    InputError,
    LatencyTable,
    Network,
    Options,
    Pipeline,
    Plan,
    Problem,
    Profile,
    Provenance,
    Stage,
    Task,
)
from planner.profiling import blank_profile, prepare_model, with_tables
from simulator.executor import Settings, execute
from simulator.executor.chained import chained_model

HEAD = '<ir_version: 8, opset_import: ["" : 17]> '


def model_of(text: str, seed: int, opset: int = 17) -> ir.Model:
    proto = parser.parse_model(HEAD.replace("17", str(opset)) + text)
    weights = (np.random.default_rng(seed).standard_normal((8, 8)) / 3).astype(np.float32)
    proto.graph.initializer.append(numpy_helper.from_array(weights, "w"))
    return ir.from_proto(proto)


# Both call their tensors and layers alike.
FIND = model_of("find (float[n, 8] x) => (float[n, 8] y) { a = MatMul(x, w) b = Tanh(a) y = Add(b, x) }", 1)
NAME = model_of("name (float[n, 8] x) => (float[n, 8] y) { a = MatMul(x, w) y = Relu(a) }", 2)


def profile_of(model: ir.Model, name: str) -> Profile:
    graph = prepare_model(model, name).graph
    layers = len(graph.layers)
    table = LatencyTable("core", 1, (2,), ((200,) * layers,), Provenance("estimated", "by hand"))
    return with_tables(blank_profile(graph, range(layers)), [table])


def application(bounds: Sequence[tuple[int, int]]) -> tuple[Problem, Plan]:
    tasks = (Task("find", (profile_of(FIND, "finder"),)), Task("name", (profile_of(NAME, "namer"),)))
    problem = Problem(
        Cluster((DeviceType("core", len(bounds), "cpu"),), Network(100.0)),
        options=Options(),
        applications=(Application("photos", 10_000_000, tasks),),
    )
    stages = tuple(Stage(first, last, "core", 1, 1, 2, 200 * (last - first), 0, 1.0) for first, last in bounds)
    pipeline = Pipeline("photos", "finder+namer", 1.0, 0.0, 0.0, stages)
    plan = Plan("pipelines", "max_min_throughput", "optimal", 1.0, 1.0, "by hand", "none", 0.0, "", {}, (pipeline,))
    return problem, plan


@pytest.mark.parametrize("bounds", [[(0, 3), (3, 5)], [(0, 2), (2, 4), (4, 5)]], ids=["at the seam", "over the seam"])
def test_an_application_runs_as_one_model(bounds: list[tuple[int, int]]) -> None:
    problem, plan = application(bounds)
    models = {"finder": FIND, "namer": NAME}
    run = execute(problem, plan, "photos", models, np.arange(40) * 3_000, Settings(verify=True, oversubscribe=True))
    assert run.records.finished.all()
    assert run.verdict is not None
    assert (run.verdict.compared, run.verdict.wrong) == (40, 0)


def test_the_chain_computes_what_its_models_do_one_after_the_other() -> None:
    from planner.profiling import open_session, run_model

    x = np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32)
    (found,) = run_model(open_session(FIND), {"x": x})
    (named,) = run_model(open_session(NAME), {"x": found})
    (chained,) = run_model(open_session(chained_model([FIND, NAME], "both")), {"x": x})
    np.testing.assert_allclose(chained, named, rtol=1e-5)


# what is given as the second task's model: what is said
UNFIT = [
    (model_of("name (float[n, 4] x) => (float[n, 4] y) { y = Relu(x) }", 2), r"reads float\[n, 4\], the task before"),
    (model_of("name (double[n, 8] x) => (double[n, 8] y) { y = Relu(x) }", 2), r"reads double\[n, 8\]"),
    (model_of("name (float[n, 8] x, float[n, 8] z) => (float[n, 8] y) { y = Add(x, z) }", 2), r"reads float.*, float"),
    (
        model_of("name (float[n, 8] x) => (float[n, 8] y) { y = Relu(x) }", 2, opset=13),
        "operator sets: ai.onnx 17 and 13",
    ),
]


@pytest.mark.parametrize(("model", "said"), UNFIT)
def test_models_that_do_not_fit_are_refused(model: ir.Model, said: str) -> None:
    with pytest.raises(InputError, match=said):
        chained_model([FIND, model], "both")


def test_a_task_without_a_model_is_named() -> None:
    problem, plan = application([(0, 3), (3, 5)])
    with pytest.raises(InputError, match="no model is given for variant 'namer' of photos; the models are"):
        execute(problem, plan, "photos", {"finder": FIND}, np.zeros(1, np.int64), Settings(oversubscribe=True))
