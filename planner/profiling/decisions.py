"""What the data of requests decide beside numbers: how large tensors are, and which course If and Loop take.

Requests that are drawn seldom show it: none of their numbers is zero, so that NonZero finds them all, and no score is
below a threshold. So it is read off the graph. A value is *sized* where it depends on the sizes of what requests bring
alone: what Shape and Size make, and what is made of that. The size of what data decide is no such size. All other
values that depend on requests are *data*.
"""

from collections.abc import Iterable, Iterator

import onnx_ir as ir

from planner.profiling.graphs import subgraphs

FINDERS = {"NonZero": 1, "NonMaxSuppression": 0, "Unique": 0, "Compress": 0}  # operator -> axis of what it finds
# Which of an operator's inputs its outputs' sizes depend on, beside the sizes of its inputs.
_SIZING = {
    "NonZero": (0,), "NonMaxSuppression": (0, 1, 2, 3, 4), "Unique": (0,), "Compress": (1,), "StringSplit": (0,),
    "AffineGrid": (1,), "BlackmanWindow": (0,), "CenterCropPad": (1,), "Col2Im": (1, 2), "ConstantOfShape": (0,),
    "DFT": (1,), "Expand": (1,), "HammingWindow": (0,), "HannWindow": (0,), "MaxUnpool": (2,),
    "MelWeightMatrix": (0, 1), "OneHot": (1,), "Pad": (1, 3), "Range": (0, 1, 2), "Reshape": (1,),
    "Resize": (1, 2, 3), "STFT": (1, 3), "Slice": (1, 2, 3, 4), "Split": (1,), "SplitToSequence": (1,), "Tile": (1, 2),
    "TopK": (1,), "Upsample": (1,),
}  # fmt: skip
_MEASURES = {"Shape", "Size", "SequenceLength", "OptionalHasElement"}

Values = set[ir.Value]


def sized_values(graph: ir.Graph, varying: Values) -> Values:
    """Return those of the ``varying`` values, which depend on requests, that depend on sizes alone.

    Examples
    --------
    >>> from planner.profiling.graphs import varying_values
    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["" : 17]>
    ...     found (float[n, 4] x) => (int64[2] rows, int64[2] count)
    ...     { rows = Shape(x)   places = NonZero(x)   count = Shape(places) }''')
    >>> [value.name for value in sized_values(model.graph, varying_values(model.graph))]
    ['rows']
    """
    return _walk(graph, varying)[0]


def sizing_nodes(graph: ir.Graph, varying: Values) -> list[ir.Node]:
    """Return the nodes of a graph that make tensors of sizes which data decide, of tensors of other sizes."""
    data = varying - sized_values(graph, varying)
    return [node for node in graph if _is_sizing(node, data)]


def find_fork(graph: ir.Graph, varying: Values) -> ir.Node | None:
    """Return the first If or Loop, those in bodies included, whose course depends on data."""
    return _fork(graph, varying - sized_values(graph, varying))


def _walk(nodes: Iterable[ir.Node], varying: Values) -> tuple[Values, Values]:
    """Return the sized values of a graph, and those that may be of a size which data decide."""
    sized: Values = set()
    loose: Values = set()
    for node in nodes:
        read = {value for value in _reads(node) if value in varying}
        made = [value for value in node.outputs if value.name]
        if not read:
            continue
        if read <= sized or (node.op_type in _MEASURES and not read & loose):
            sized.update(made)
        elif read & loose or _is_sizing(node, read - sized) or _fork([node], read - sized) is not None:
            loose.update(made)
    return sized, loose


def _is_sizing(node: ir.Node, data: Values) -> bool:
    places = _SIZING.get(node.op_type, ())
    return any(place < len(node.inputs) and node.inputs[place] in data for place in places)


def _fork(nodes: Iterable[ir.Node], data: Values) -> ir.Node | None:
    for node in nodes:
        if node.op_type in ("If", "Loop") and any(
            value in data for value in node.inputs[: 1 + (node.op_type == "Loop")]
        ):
            return node
        for body in subgraphs(node):
            inside = _data_inside(node, body, data)
            if node.op_type == "Loop" and body.outputs[0] in inside:
                return node
            found = _fork(body, inside)
            if found is not None:
                return found
    return None


def _data_inside(node: ir.Node, body: ir.Graph, data: Values) -> Values:
    """Return the values that are data inside a body; ``data`` are those outside."""
    # A Loop's body is handed the trip's number and a condition, and gives back a condition before its states.
    skipped, states = (2, 1) if node.op_type == "Loop" else (0, 0)
    handed = {
        inner for inner, outer in zip(body.inputs[skipped:], node.inputs[skipped:], strict=False) if outer in data
    }
    while True:
        varying = data | handed
        for inner in body:
            if any(value in varying for value in _reads(inner)):
                varying |= {value for value in inner.outputs if value.name}
        inside = varying - _walk(body, varying)[0]
        carried = zip(body.inputs[skipped:], body.outputs[states:], strict=False) if body.inputs else ()
        more = {before for before, after in carried if after in inside} - handed
        if not more:
            return inside
        handed |= more


def _reads(node: ir.Node) -> Iterator[ir.Value]:
    """Yield the values that a node and all nodes in its bodies read."""
    yield from (value for value in node.inputs if value is not None)
    for body in subgraphs(node):
        for inner in body.all_nodes():
            yield from (value for value in inner.inputs if value is not None)
        yield from body.outputs
