"""Layers that models have in common: runs that could share one copy of their weights.

Two layers are alike if they are the same operator with the same attributes, and their tensors and weights have the same
types and shapes. Members of a run are matched by how often their like occurred before in each model. Where all weights
of a run are equal to the byte, it can be shared as it is; else models that share it must be trained again, and somebody
must say whether they keep their accuracy (`planner.planning.merging.oracles`).
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from planner.model import InputError
from planner.profiling.onnx_graph import Layer, ModelGraph


@dataclass(frozen=True)
class CommonRun:
    """Consecutive layers that models have in common: from layer ``first[model]`` on, ``layers`` of them.

    ``parameter_bytes`` are those of one copy; ``equal`` tells that all copies are equal to the byte.
    """

    first: Mapping[str, int]
    layers: int
    parameter_bytes: int
    equal: bool

    @property
    def saves_bytes(self) -> int:
        """What sharing one copy saves where all of these models lie on one device."""
        return self.parameter_bytes * (len(self.first) - 1)


def common_runs(graphs: Sequence[ModelGraph]) -> list[CommonRun]:
    """Return the runs of layers with weights that two or more models have in common, by falling savings.

    Raises
    ------
    InputError
        Fewer than two models, or two of one name.

    Examples
    --------
    >>> import numpy as np
    >>> from planner.profiling import read_graph
    >>> text = '''<ir_version: 8, opset_import: ["" : 13]>
    ...     net (float[n, 2] x) => (float[n, 2] y) <float[2] w = {1, 2}> { h = Add (x, w)   y = Relu (h) }'''
    >>> graphs = [read_graph(ir.from_onnx_text(text), name) for name in ("a", "b")]
    >>> [(dict(run.first), run.layers, run.saves_bytes, run.equal) for run in common_runs(graphs)]
    [({'a': 0, 'b': 0}, 2, 8, True)]
    """
    names = [graph.name for graph in graphs]
    if len(graphs) < 2 or len(set(names)) < len(names):
        raise InputError(f"common layers: expected two or more models of different names, got {names}")
    places: defaultdict[tuple[str, int], dict[str, int]] = defaultdict(dict)
    for graph in graphs:
        met: Counter[str] = Counter()
        for number, layer in enumerate(graph.layers):
            kind = signature(graph, layer)
            places[kind, met[kind]][graph.name] = number
            met[kind] += 1
    shared = [place for place in places.values() if len(place) > 1]
    by_name = {graph.name: graph for graph in graphs}
    runs = [_run(by_name, group) for group in _consecutive(shared)]
    return sorted((run for run in runs if run.parameter_bytes), key=lambda run: -run.saves_bytes)


def _consecutive(places: list[dict[str, int]]) -> Iterator[list[dict[str, int]]]:
    """Yield places that follow each other in all of the same models."""
    waiting = {tuple(sorted(place.items())): place for place in places}
    for key in sorted(waiting):
        if key not in waiting:
            continue
        run = [waiting.pop(key)]
        while (following := tuple((name, number + 1) for name, number in sorted(run[-1].items()))) in waiting:
            run.append(waiting.pop(following))
        yield run


def _run(graphs: Mapping[str, ModelGraph], places: list[dict[str, int]]) -> CommonRun:
    first = dict(places[0])
    name, start = next(iter(first.items()))
    return CommonRun(
        first,
        len(places),
        graphs[name].parameter_bytes(start, start + len(places)),
        len({_content(graphs[model], number, len(places)) for model, number in first.items()}) == 1,
    )


def signature(graph: ModelGraph, layer: Layer) -> str:
    """Return what two layers must have in common to share weights: operator, attributes, types and shapes."""
    node = node_of(graph, layer)
    attributes = sorted(str(attribute) for attribute in node.attributes.values())
    read = [(_shape(graph, name), name in layer.parameters) for value in node.inputs for name in [_name(value)]]
    made = [_shape(graph, name) for name in layer.outputs]
    return repr((node.domain, node.op_type, attributes, read, made))


def node_of(graph: ModelGraph, layer: Layer) -> ir.Node:
    """Return the node that a layer is."""
    made = set(layer.outputs)
    return next(node for node in graph.model.graph if made & {str(value.name) for value in node.outputs})


def _name(value: ir.Value | None) -> str:
    return "" if value is None else str(value.name)


def _shape(graph: ModelGraph, name: str) -> tuple[str, tuple[int, ...]]:
    tensor = graph.tensors.get(name)
    return ("", ()) if tensor is None else (tensor.dtype.name, tensor.shape)


def _content(graph: ModelGraph, first: int, count: int) -> str:
    """Return a hash of the weights of some layers, in the order in which they are read."""
    content = hashlib.sha256()
    constants = graph.model.graph.initializers
    for layer in graph.layers[first : first + count]:
        for name in layer.parameters:
            value = constants.get(name)
            tensor = None if value is None else value.const_value
            # what a node makes of constants is told by its name only: unlike names are then taken for unlike weights
            content.update(name.encode() if tensor is None else tensor.tobytes())
    return content.hexdigest()
