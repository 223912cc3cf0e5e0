"""Work and stored bytes against independent counts: products summed by running, formulas by hand, the file's size."""

from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from planner.profiling import read_graph
from planner.profiling.costs import layer_cost
from planner.profiling.parameters import stored_bytes
from planner.profiling.shapes import Tensor
from planner.profiling.zoo import build_architecture

FLOAT = onnx.TensorProto.FLOAT


def model_of(nodes, inputs, outputs, weights=None, opset=17, extra=(), ir_version=10):
    """A model of ONNX nodes: inputs and outputs by name with their shapes, ``n`` first."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in outputs.items()],
        [array if isinstance(array, onnx.TensorProto) else numpy_helper.from_array(array, name)
         for name, array in (weights or {}).items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in extra)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)


def macs_of(model):
    return sum(layer.cost.macs for layer in read_graph(ir.from_proto(model)).layers)


def products_summed(model, inputs):
    """Every element of a product of ones is the number of products that it sums: so their sum is the count."""
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (made,) = session.run(None, {name: np.ones((1, *shape[1:]), np.float32) for name, shape in inputs.items()})
    return int(np.asarray(made, np.float64).sum())


def random_products():
    """Products of random shapes whose weights are ones; without padding, which adds zeros."""
    random = np.random.default_rng(7)

    def size(most=5):
        return int(random.integers(1, most + 1))

    for _ in range(6):
        groups, kernel, inside, outside = size(3), (size(3), size(3)), size(3), size(3)
        image = [kernel[0] + size(4), kernel[1] + size(4)]
        x = ["n", groups * inside, *image]
        w = np.ones((groups * outside, inside, *kernel), np.float32)
        yield helper.make_node("Conv", ["x", "w"], ["y"], group=groups), {"x": x}, {"w": w}
        w = np.ones((groups * inside, outside, *kernel), np.float32)
        strides = [size(2), size(2)]
        yield helper.make_node("ConvTranspose", ["x", "w"], ["y"], group=groups, strides=strides), {"x": x}, {"w": w}
        m, k, columns, heads = size(), size(), size(), size()
        yield (
            helper.make_node("MatMul", ["x", "w"], ["y"]),
            {"x": ["n", heads, m, k]},
            {"w": np.ones((k, columns), "f")},
        )
        yield (
            helper.make_node("MatMul", ["x", "z"], ["y"]),
            {"x": ["n", heads, m, k], "z": ["n", heads, k, columns]},
            {},
        )
        yield helper.make_node("Gemm", ["x", "w"], ["y"], transB=1), {"x": ["n", k]}, {"w": np.ones((columns, k), "f")}


@pytest.mark.parametrize(("node", "inputs", "weights"), list(random_products()), ids=lambda _: "")
def test_products_are_counted_as_running_them_counts(node, inputs, weights):
    model = model_of([node], inputs, {"y": None}, weights)
    assert macs_of(model) == products_summed(model, inputs)


# equation, shapes of the inputs; the batch is "n"
EINSUMS = {
    "linear": ("bij,jk->bik", ["n", 3, 5], ["n", 5, 10]),
    "ellipsis": ("...ij,...jk->...ik", ["n", 2, 3, 5], ["n", 2, 5, 4]),
    "ellipsis broadcasts": ("...ij,...jk->...ik", ["n", 2, 3, 5], ["n", 1, 5, 4]),
    "ellipsis on one side": ("...i,ij->...j", ["n", 2, 3, 5], [5, 4]),
    "attention": ("bhqd,bhkd->bhqk", ["n", 2, 3, 5], ["n", 2, 7, 5]),
}


@pytest.mark.parametrize("case", EINSUMS)
def test_einsums_are_counted_as_running_them_counts(case):
    equation, first, second = EINSUMS[case]
    weights = {}
    inputs = {"x": first, "z": second}
    if equation.startswith("bij"):
        equation, weights, inputs = "bij,jk->bik", {"z": np.ones(second[1:], "f")}, {"x": first}
    elif second[0] != "n":
        weights, inputs = {"z": np.ones(second, "f")}, {"x": first}
    model = model_of([helper.make_node("Einsum", ["x", "z"], ["y"], equation=equation)], inputs, {"y": None}, weights)
    assert macs_of(model) == products_summed(model, inputs)


def test_an_einsum_of_one_operand_multiplies_nothing():
    model = model_of([helper.make_node("Einsum", ["x"], ["y"], equation="bij->bji")], {"x": ["n", 3, 5]}, {"y": None})
    assert macs_of(model) == 0


@pytest.mark.parametrize(("heads", "kept", "past"), [(4, 4, 0), (4, 2, 0), (2, 1, 3)])
@pytest.mark.parametrize("flat", [False, True])
def test_attention_multiplies_queries_by_keys_and_weights_by_values(heads, kept, past, flat):
    """Pairs of queries and keys as the reference evaluator forms them, times the widths of keys and of values."""
    queries, keys, width, value_width = 5, 7, 3, 2
    shapes = {"q": (heads, queries, width), "k": (kept, keys, width), "v": (kept, keys, value_width)}
    inputs = {name: ["n", *shape] for name, shape in shapes.items()}
    attributes = {}
    if flat:
        inputs = {name: ["n", shape[1], shape[0] * shape[2]] for name, shape in shapes.items()}
        attributes = {"q_num_heads": heads, "kv_num_heads": kept}
    names, outputs = ["q", "k", "v"], ["y"]
    if past:
        inputs |= {"pk": ["n", kept, past, width], "pv": ["n", kept, past, value_width]}
        names, outputs = [*names, "", "pk", "pv"], ["y", "present_k", "present_v", "pairs"]
    else:
        outputs = ["y", "", "", "pairs"]
    node = helper.make_node("Attention", names, outputs, **attributes)
    model = model_of([node], inputs, {"y": None, "pairs": None}, opset=23)
    feeds = {name: np.ones((1, *shape[1:]), np.float32) for name, shape in inputs.items()}
    _, pairs = ReferenceEvaluator(model).run(["y", "pairs"], feeds)
    assert macs_of(model) == pairs.size * (width + value_width)


def branches(then_nodes, else_nodes, then_weights=(), else_weights=()):
    made = [helper.make_tensor_value_info(name, FLOAT, None) for name in ("a", "b")]
    return {
        "then_branch": helper.make_graph(then_nodes, "then", [], made[:1], list(then_weights)),
        "else_branch": helper.make_graph(else_nodes, "else", [], made[1:], list(else_weights)),
    }


def test_an_if_works_as_its_dearer_branch_and_holds_the_weights_of_both():
    """Whether sum(x) > 0 decides: 64 × 64 against 64 × 8 × 64, with 4,096 and 2 · 512 weights."""
    w = [numpy_helper.from_array(np.ones(shape, "f"), name) for name, shape in
         (("w", (64, 64)), ("u", (64, 8)), ("t", (8, 64)))]  # fmt: skip
    bodies = branches(
        [helper.make_node("MatMul", ["x", "w"], ["a"])],
        [helper.make_node("MatMul", ["x", "u"], ["h"]), helper.make_node("MatMul", ["h", "t"], ["b"])],
        w[:1],
        w[1:],
    )
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0),
        helper.make_node("Greater", ["s", "zero"], ["c"]),
        helper.make_node("If", ["c"], ["y"], **bodies),
    ]
    model = model_of(nodes, {"x": ["n", 64]}, {"y": ["n", 64]}, {"zero": np.zeros((), "f")})
    macs, nbytes = work_of_last_node(model, Tensor("x", ir.DataType.FLOAT, (1, 64), 0))
    assert macs == 64 * 64
    assert nbytes == 4 * (64 * 64 + 2 * 64 * 8)


def work_of_last_node(model, x):
    """Multiply-accumulates and stored bytes of a node whose outputs are like x (a body hides that from ONNX)."""
    graph = ir.from_proto(model).graph
    node = list(graph)[-1]
    tensors = {str(value.name): replace(x, name=str(value.name)) for value in (*graph.inputs, *node.outputs)}
    for name, value in graph.initializers.items():
        tensors[name] = Tensor(name, value.const_value.dtype, tuple(value.const_value.shape.numpy()), None)
    varying = {*graph.inputs, *(value for each in graph for value in each.outputs)}
    cost = layer_cost(node, tensors, ["x"], ["y"], graph.opset_imports)
    return cost.macs, sum(stored_bytes(node, varying, tensors).values())


def test_a_loop_works_as_often_as_it_trips():
    """Three trips of a product with 16 × 16 weights, which count once."""
    body = helper.make_graph(
        [helper.make_node("MatMul", ["h", "w"], ["h_next"]), helper.make_node("Identity", ["go"], ["go_next"])],
        "body",
        [
            helper.make_tensor_value_info("trip", onnx.TensorProto.INT64, []),
            helper.make_tensor_value_info("go", onnx.TensorProto.BOOL, []),
            helper.make_tensor_value_info("h", FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("go_next", onnx.TensorProto.BOOL, []),
            helper.make_tensor_value_info("h_next", FLOAT, None),
        ],
    )
    node = helper.make_node("Loop", ["three", "go", "x"], ["y"], body=body)
    weights = {"three": np.array(3), "go": np.array(True), "w": np.ones((16, 16), "f")}
    model = model_of([node], {"x": ["n", 16]}, {"y": ["n", 16]}, weights)
    macs, nbytes = work_of_last_node(model, Tensor("x", ir.DataType.FLOAT, (1, 16), 0))
    assert macs == 3 * 16 * 16
    assert nbytes == pytest.approx(4 * 16 * 16, abs=16)


def test_work_on_the_elements_of_a_sequence_is_not_known():
    """Their shapes are the sequence's own business: the body counts nothing, and the model is read nevertheless."""
    graph = read_graph(
        ir.from_onnx_text(
            """<ir_version: 8, opset_import: ["" : 17]> g (float[n, 6] x) => (float[n, 6] y) <int64 two = {2}> {
            s = SplitToSequence<axis = 1>(x, two)
            m = SequenceMap(s) <body = b (float[n, 2] e) => (float[n, 2] f) { f = Tanh(e) }>
            y = ConcatFromSequence<axis = 1>(m) }"""
        )
    )
    assert sum(layer.cost.macs for layer in graph.layers) == 0
    assert graph.layers[-1].operator == "ConcatFromSequence"


def quantised(bits, size=256):
    """Two products with dequantised weights between quantised activations, as exporters write them."""
    random = np.random.default_rng(0)
    if bits == 8:
        weights = {name: random.integers(-127, 127, (size, size)).astype(np.int8) for name in ("w", "v")}
        scales = {"sw": np.float32(0.005)}
        options = {}
    else:
        pairs = random.integers(0, 256, size * size // 2).astype(np.uint8).tobytes()  # two of them a byte
        weights = {
            name: helper.make_tensor(name, onnx.TensorProto.INT4, (size, size), pairs, raw=True) for name in ("w", "v")
        }
        scales = {"sw": np.full((size // 32, size), 0.05, np.float32)}
        options = {"axis": 0, "block_size": 32}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "sw"], ["wd"], **options),
        helper.make_node("MatMul", ["xd", "wd"], ["h"]),
        helper.make_node("QuantizeLinear", ["h", "s", "z"], ["hq"]),
        helper.make_node("DequantizeLinear", ["hq", "s", "z"], ["hd"]),
        helper.make_node("DequantizeLinear", ["v", "sw"], ["vd"], **options),
        helper.make_node("MatMul", ["hd", "vd"], ["y"]),
    ]
    given = {**weights, **scales, "s": np.float32(0.02), "z": np.int8(0)}
    given = {k: v if isinstance(v, onnx.TensorProto) else np.asarray(v) for k, v in given.items()}
    return model_of(nodes, {"x": ["n", size]}, {"y": ["n", size]}, given, opset=21)


@pytest.mark.parametrize("bits", [8, 4])
def test_quantised_weights_count_at_their_stored_size(bits):
    model = quantised(bits)
    graph = read_graph(ir.from_proto(model))
    assert graph.parameter_bytes() == pytest.approx(len(model.SerializeToString()), rel=0.02)
    assert sum(layer.cost.macs for layer in graph.layers) == 2 * 256 * 256


def test_between_quantised_operators_integers_move():
    """x is converted, 256 floats in, 256 bytes out; products read and write bytes, but the last writes floats."""
    costs = {layer.outputs[0]: layer.cost for layer in read_graph(ir.from_proto(quantised(8))).layers}
    assert (costs["xq"].read_bytes, costs["xq"].written_bytes) == (1024, 256)
    assert (costs["h"].read_bytes, costs["h"].written_bytes) == (256, 256)
    assert (costs["y"].read_bytes, costs["y"].written_bytes) == (256, 1024)
    assert {costs[name].kind for name in ("xd", "hq", "hd")} == {"view"}


def test_fp16_weights_that_are_cast_count_half():
    w = np.ones((128, 128), np.float16)
    nodes = [helper.make_node("Cast", ["w"], ["wf"], to=FLOAT), helper.make_node("MatMul", ["x", "wf"], ["y"])]
    model = model_of(nodes, {"x": ["n", 128]}, {"y": ["n", 128]}, {"w": w})
    assert read_graph(ir.from_proto(model)).parameter_bytes() == 2 * 128 * 128


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18", "inception_v3"])
def test_stored_bytes_of_the_zoo_are_those_of_the_file(name):
    model = build_architecture(name)
    size = len(ir.to_proto(model).SerializeToString())
    assert read_graph(model).parameter_bytes() == pytest.approx(size, rel=0.02)
