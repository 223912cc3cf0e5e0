"""Models whose cuts are crossed by more than activations, and plans that cut them."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import onnx_ir as ir
from onnx import numpy_helper, parser

from planner.model import (
    Cluster,
    DeviceType,
    Dnn,
    LatencyTable,
    Network,
    Options,
    Pipeline,
    Plan,
    Problem,
    Provenance,
    Stage,
)
from planner.profiling import ModelGraph, blank_profile, with_tables
from simulator.executor import Execution, Settings, execute

HEAD = '<ir_version: 8, opset_import: ["" : 17]> g '


def weights(*shape: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(shape) / 2).astype(np.float32)


# what crosses cuts: the model, its weights
MODELS: dict[str, tuple[str, dict[str, np.ndarray]]] = {
    "the target of a late reshape": (
        "(float[n, 2, 3] x) => (float[n, 6] y) <int64[1] zero = {0}, int64[1] one = {1}, int64[1] six = {6}>"
        " { s = Shape(x) b = Slice(s, zero, one) t = Concat<axis = 0>(b, six) h = Relu(x) k = Mul(h, h)"
        " y = Reshape(k, t) }",
        {},
    ),
    "a scalar and a mask": (
        "(float[n, 4] x, bool[n, 4] m) => (float[n, 4] y) <int64 zero = {0}> {"
        " s = Shape(x) b = Gather(s, zero) f = Cast<to = 1>(b) h = Tanh(x) u = Not(m) d = Mul(h, f)"
        " k = Div(d, f) y = Where(u, k, x) }",
        {},
    ),
    "indices of a table": (
        "(float[n, 5] x) => (float[n, 2] y) { h = Relu(x) i = ArgMax<axis = 1, keepdims = 0>(h) j = Identity(i)"
        " r = Gather(table, j) y = Tanh(r) }",
        {"table": weights(5, 2)},
    ),
    "the batch in the middle": (
        "(float[n, 5, 4] x) => (float[n, 5, 3] y) <int64[1] one = {1}> { t = Transpose<perm = [1, 0, 2]>(x)"
        " o, h, c = LSTM<hidden_size = 3>(t, w, r) s = Squeeze(o, one) y = Transpose<perm = [1, 0, 2]>(s) }",
        {"w": weights(1, 12, 4), "r": weights(1, 12, 3, seed=1)},
    ),
    "an input and an answer with the batch in the middle": (
        "(float[1, 4] x, float[1, 1, 3] state) => (float[1, 3] y, float[1, 1, 3] after) <int64[1] zero = {0}> {"
        " u = Unsqueeze(x, zero) all, h = GRU<hidden_size = 3>(u, w, r, , , state) after = Identity(h)"
        " y = Squeeze(h, zero) }",
        {"w": weights(1, 9, 4), "r": weights(1, 9, 3, seed=1)},
    ),
    "an answer that depends on no request": (
        "(float[n, 4] x) => (float[n, 4] y, float[2, 4] boxes) { h = Relu(x) y = Mul(h, h) boxes = Exp(p) }",
        {"p": weights(2, 4)},
    ),
    "half precision": (
        "(float[n, 4] x) => (float[n, 4] y) { h = Cast<to = 10>(x) k = Mul(h, h) y = Cast<to = 1>(k) }", {}
    ),
    "an input read again by the last layer": (
        "(float[n, 4] x, int64[n, 2] i) => (float[n, 4, 2] y) { h = Tanh(x) g = Gather(table, i)"
        " k = ReduceSum<keepdims = 0>(g, one) u = Unsqueeze(h, two) v = Unsqueeze(k, one) p = Mul(u, v)"
        " r = Unsqueeze(x, two) y = Add(p, r) }",
        {"table": weights(3, 2), "one": np.array([1]), "two": np.array([2])},
    ),
}  # fmt: skip


def model_of(kind: str) -> ir.Model:
    text, arrays = MODELS[kind]
    proto = parser.parse_model(HEAD + text)
    proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
    return ir.from_proto(proto)


def execute_cuts(model: ir.Model, graph: ModelGraph, cuts: Sequence[int], batch: int, **more: object) -> Execution:
    """Execute a plan of one pipeline with a stage between the cuts."""
    layers = len(graph.layers)
    table = LatencyTable("core", 1, (batch,), ((100,) * layers,), Provenance("estimated", "by hand"))
    profile = with_tables(blank_profile(graph, range(layers)), [table])
    bounds = [0, *cuts, layers]
    stages = tuple(
        Stage(first, last, "core", 1, 1, batch, 100 * (last - first), 0, 1.0) for first, last in pairwise(bounds)
    )
    pipeline = Pipeline(graph.name, graph.name, 1.0, 0.0, 0.0, stages)
    problem = Problem(
        Cluster((DeviceType("core", len(stages), "cpu"),), Network(100.0)), (Dnn(graph.name, 10_000_000, (profile,)),),
        Options(),
    )  # fmt: skip
    plan = Plan("pipelines", "max_min_throughput", "optimal", 1.0, 1.0, "by hand", "none", 0.0, "", {}, (pipeline,))
    settings = Settings(oversubscribe=True, verify=True, **more)  # type: ignore[arg-type]
    return execute(problem, plan, graph.name, {graph.name: model}, np.arange(24) * 1_000, settings)
