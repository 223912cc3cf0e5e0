"""Blocks that are one copy: found in files, and extracted once for all models that share them.

Two runs of layers are one copy if they are the same operators, wired alike, with the same attributes, types and shapes,
and weights that are equal to the byte. Names do not matter: tensors are numbered as they first appear, and the numbers
tell which tensor of one model is which of another.
"""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import onnx_ir as ir

from planner.model import InputError, Merged, MergedMember, Problem
from planner.profiling.common_layers import node_of
from planner.profiling.onnx_graph import ModelGraph
from planner.profiling.profiles import block_starts
from planner.profiling.split import Part, Tensors, extract_part


@dataclass(frozen=True)
class Content:
    """What some layers are: a hash of all but names, and their tensors in order of first appearance."""

    digest: str
    tensors: tuple[str, ...]


def content(graph: ModelGraph, first: int, last: int, *, weights: bool = True) -> Content:
    """Return what layers [first, last) of a model are; without ``weights`` only their types and shapes count.

    Examples
    --------
    >>> from planner.profiling.onnx_graph import read_graph
    >>> text = '''<ir_version: 8, opset_import: ["" : 13]>
    ...     net (float[n, 2] X) => (float[n, 2] Y) <float[2] w = {1, 2}> { H = Add (X, w)   Y = Relu (H) }'''
    >>> one, other = (read_graph(ir.from_onnx_text(t), "net") for t in (text, text.replace("H", "inner")))
    >>> content(one, 0, 2).digest == content(other, 0, 2).digest, content(other, 0, 2).tensors
    (True, ('X', 'inner', 'Y'))
    """
    number: dict[str, int] = {}
    hashed = hashlib.sha256()
    for layer in graph.layers[first:last]:
        node = node_of(graph, layer)
        attributes = sorted(str(attribute) for attribute in node.attributes.values())
        hashed.update(repr((node.domain, node.op_type, attributes)).encode())
        for value in (*node.inputs, None, *node.outputs):
            name = "" if value is None else str(value.name)
            if name in layer.parameters:
                hashed.update(_weights(graph, name, values=weights))
            elif name in graph.tensors:
                at = number.setdefault(name, len(number))
                tensor = graph.tensors[name]
                hashed.update(repr((at, tensor.dtype.name, tensor.shape, tensor.batch_axis)).encode())
            else:
                hashed.update(repr(name).encode())
    return Content(hashed.hexdigest(), tuple(number))


def _weights(graph: ModelGraph, name: str, *, values: bool) -> bytes:
    value = graph.model.graph.initializers.get(name)
    tensor = None if value is None else value.const_value
    if tensor is None:  # what a node makes of constants is told by its name only: unlike names are unlike weights
        return name.encode()
    kind = repr((tensor.dtype.name, tuple(tensor.shape))).encode()
    return kind + bytes(tensor.tobytes()) if values or not tensor.dtype.is_floating_point() else kind


def find_merged(problem: Problem, graphs: Mapping[str, ModelGraph]) -> tuple[Merged, ...]:
    """Return the runs of blocks that are one copy in two or more DNNs, as `Problem.merged` has them.

    Parameters
    ----------
    graphs
        The models of variants, by name; variants without one share nothing.

    Raises
    ------
    InputError
        A profile is not of its model.
    """
    places: defaultdict[tuple[str, int], list[tuple[str, str, int]]] = defaultdict(list)
    for dnn in problem.dnns:
        for variant in dnn.variants:
            if variant.name not in graphs:
                continue
            graph = graphs[variant.name]
            starts = (*block_starts(graph, variant), len(graph.layers))
            met: defaultdict[str, int] = defaultdict(int)
            for block, (first, last) in enumerate(pairwise(starts)):
                digest = content(graph, first, last).digest
                places[digest, met[digest]].append((dnn.name, variant.name, block))
                met[digest] += 1
    waiting = {tuple(place): place for place in places.values() if len({name for name, _, _ in place}) > 1}
    found = []
    for key in sorted(waiting):
        if key not in waiting:
            continue
        del waiting[key]
        blocks = 1
        while (following := tuple((d, v, block + blocks) for d, v, block in key)) in waiting:
            del waiting[following]
            blocks += 1
        found.append(Merged(tuple(MergedMember(d, block, v) for d, v, block in key), blocks))
    return tuple(found)


@dataclass(frozen=True, eq=False)
class MergedPart:
    """Layers that several models share, as one model: the first model's, with its names.

    ``names[model]`` has the name in that model of each tensor that ``part`` reads and makes.
    """

    part: Part
    names: tuple[Mapping[str, str], ...]

    def feeds(self, model: int, alive: Tensors) -> dict[str, np.ndarray]:
        """Return what the part reads, from a model's own tensors."""
        return {name: alive[self.names[model][name]] for name in self.part.inputs}

    def made(self, model: int, outputs: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """Return what the part made, under a model's own names."""
        return {self.names[model][name]: tensor for name, tensor in zip(self.part.outputs, outputs, strict=True)}


def merged_part(runs: Sequence[tuple[ModelGraph, int, int]]) -> MergedPart:
    """Return layers [first, last) of several models as one model, after it was verified that they are one copy.

    It makes every tensor that any of the models needs after it.

    Raises
    ------
    InputError
        The layers are not one copy.
    """
    contents = [content(*run) for run in runs]
    graph, first, last = runs[0]
    for (other, begin, end), own in zip(runs[1:], contents[1:], strict=True):
        if own.digest != contents[0].digest:
            raise InputError(
                f"layers {first + 1} to {last} of {graph.name} and {begin + 1} to {end} of {other.name} are not one "
                "copy: expected the same operators, shapes and weights; merge the models, or plan without merged blocks"
            )
    parts = [extract_part(*run) for run in runs]
    back = [dict(zip(own.tensors, contents[0].tensors, strict=True)) for own in contents]
    needed = {names[name] for names, part in zip(back, parts, strict=True) for name in part.outputs}
    outputs = tuple(name for name in contents[0].tensors if name in needed)
    part = parts[0]
    if outputs != part.outputs:
        model = ir.Model(
            ir.convenience.extract(graph.model.graph, part.inputs, outputs),
            ir_version=graph.model.ir_version,
            producer_name=graph.model.producer_name,
            producer_version=graph.model.producer_version,
        )
        part = Part(model, first, last, part.inputs, outputs)
    travelling = {*part.inputs, *outputs}
    names = [{theirs: own for own, theirs in one.items() if theirs in travelling} for one in back]
    return MergedPart(part, tuple(names))
