"""Graphs of ONNX models walked: which values requests bring, which depend on them, and what to call things.

A request's dimension of the batch is a symbolic one, named "batch", or "batch*5" where a request has 5 rows.
"""

import re
from collections.abc import Iterator
from itertools import chain, count

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass, RemoveUnusedNodesPass

from planner.model import InputError

BATCH = "batch"
RANDOM_OPERATORS = {
    "RandomNormal",
    "RandomUniform",
    "RandomNormalLike",
    "RandomUniformLike",
    "Multinomial",
    "Bernoulli",
}
# What onnxruntime takes from and gives to Python without a conversion: only that travels between stages.
TRAVELLING = {
    ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BOOL,
    ir.DataType.INT8, ir.DataType.INT16, ir.DataType.INT32, ir.DataType.INT64,
    ir.DataType.UINT8, ir.DataType.UINT16, ir.DataType.UINT32, ir.DataType.UINT64,
}  # fmt: skip


def tidy(model: ir.Model) -> ir.Model:
    """Return a `checked_copy` with functions inlined and unused nodes removed."""
    copy = checked_copy(model)
    if copy.functions:
        InlinePass()(copy)
    RemoveUnusedNodesPass()(copy)
    return copy


def checked_copy(model: ir.Model) -> ir.Model:
    """Return a copy that shares the weights; both have their nodes in topological order afterwards.

    Raises
    ------
    InputError
        The graph has a cycle, or a node reads what nothing makes.
    """
    try:
        model.graph.sort()
    except ValueError:
        raise InputError(f"graph {model.graph.name!r} has a cycle; export the model again") from None
    for node in model.graph.all_nodes():
        for value in node.inputs:
            if value is not None and value.graph is None and value.name:
                raise InputError(
                    f"tensor {value.name!r}, read by node {node.name or node.op_type!r}, is neither an input, an "
                    "initializer nor another node's output; export the model again with its weights"
                )
    return model.clone()


def request_inputs(graph: ir.Graph) -> list[ir.Value]:
    """Return the graph inputs that a request brings: before IR version 4 initializers are inputs too."""
    return [value for value in graph.inputs if value.name not in graph.initializers]


def read_values(node: ir.Node) -> Iterator[ir.Value]:
    """Yield the values that a node reads, those that its subgraphs capture included."""
    yield from (value for value in node.inputs if value is not None)
    for subgraph in subgraphs(node):
        for inner in subgraph.all_nodes():
            yield from (value for value in inner.inputs if value is not None and value.graph is node.graph)
        yield from (value for value in subgraph.outputs if value.graph is node.graph)


def subgraphs(node: ir.Node) -> Iterator[ir.Graph]:
    """Yield the bodies of a node (If, Loop, Scan)."""
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


def varying_values(graph: ir.Graph, random: bool = True) -> set[ir.Value]:
    """Return the values that depend on a request, and on ``random`` numbers."""
    varying = set(request_inputs(graph))
    for node in graph:
        drawn = random and node.op_type in RANDOM_OPERATORS
        if drawn or any(value in varying for value in read_values(node)):
            varying.update(value for value in node.outputs if value.name)
    return varying


def input_shape(value: ir.Value, batch: int) -> tuple[int, ...]:
    """Return an input's shape for ``batch`` requests: its symbolic dimension, times the rows that a request has.

    >>> input_shape(ir.Value(name="boxes", shape=ir.Shape(["batch*5", 4])), 3)
    (15, 4)
    """
    assert value.shape is not None
    return tuple(size if isinstance(size, int) else batch * _rows(size) for size in value.shape)


def _rows(size: ir.SymbolicDim) -> int:
    name, _, rows = str(size.value).partition("*")
    return int(rows) if name == BATCH and rows.isdecimal() else 1


def batch_dimension(rows: int) -> str:
    """Return the name of a dimension that has ``rows`` per request."""
    return BATCH if rows == 1 else f"{BATCH}*{rows}"


def axis_label(value: ir.Value, axis: int) -> str:
    """Return the name of a symbolic dimension of an input; ``input:axis`` for one without a name."""
    assert value.shape is not None
    size = value.shape[axis]
    name = "" if isinstance(size, int) else str(size.value or "")
    return name if name.strip("?") else f"{value.name}:{axis}"


# Where onnxruntime's own source raised an error: file, line and a function's signature.
_PLACE_IN_SOURCE = re.compile(r"/onnxruntime_src/\S+:\d+ .*?\w(?:\([^()]*\))+(?: const)? ")


def one_line(error: BaseException) -> str:
    """Return an error's message on one line, shortened to 200 characters; of onnxruntime's what it says at the end.

    >>> one_line(RuntimeError("FAIL : /onnxruntime_src/b.h:46 void a::check(const map<int>&, bool) opset 99 is new"))
    'FAIL : opset 99 is new'
    """
    text = _PLACE_IN_SOURCE.sub("", " ".join(str(error).split()).rpartition("Status Message: ")[2])
    return text if len(text) <= 200 else text[:197] + "..."


def where(node: ir.Node | None) -> str:
    """Return a node's name and operator for messages."""
    return "the model" if node is None else f"node {node.name or result_name(node)!r} ({node.op_type})"


def result_name(node: ir.Node) -> str:
    """Return the name of a node's first output that has one: no other node makes it.

    >>> node = ir.Node("", "LSTM", [], outputs=[ir.Value(name=""), ir.Value(name="last")])
    >>> result_name(node)
    'last'
    """
    return next((str(value.name) for value in node.outputs if value.name), "")


def free_prefix(model: ir.Model, prefix: str) -> str:
    """Return the prefix, or it and a number, so that no tensor of the model has a name that begins with it."""
    names = {str(value.name) for graph in model.graphs() for value in (*graph.inputs, *graph.initializers.values())}
    names |= {str(value.name) for node in model.graph.all_nodes() for value in node.outputs}
    candidates = chain([prefix], (f"{prefix}.{number}" for number in count(1)))
    return next(found for found in candidates if not any(name.startswith(found) for name in names))
