"""ONNX models as plans see them: layers in order, the tensors alive at every cut, and what each layer costs.

A *layer* is a node that depends on the model's inputs. Nodes that depend on constants alone (weights in
Constant or ConstantOfShape nodes, their casts and reshapes) are no layers: they count as parameters and travel
with every part that needs them.

Cut i lies before layer i, for i = 0 (the model's inputs) to the number of layers (its outputs). A tensor is
alive at a cut if it exists before it (a model input, or an output of a layer before the cut) and is needed
after it (by a layer, or as a model output: the last stage answers the request).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import onnx_ir as ir

from planner.model import InputError
from planner.profiling.costs import Cost, is_opaque, layer_cost
from planner.profiling.graphs import read_values, request_inputs, tidy, varying_values
from planner.profiling.parameters import stored_bytes
from planner.profiling.shapes import Tensor, infer_tensors


@dataclass(frozen=True)
class Layer:
    """A node of the model.

    ``inputs`` are the tensors that it reads and that depend on the model's inputs, ``parameters`` its constants
    (names of initializers and of constant nodes' outputs); both include what its subgraphs capture. ``stored`` are
    the bytes of the constants in the file behind them, by name (`planner.profiling.parameters`). ``live_bytes`` is
    what all tensors alive while it runs take per request, its outputs included. ``opaque`` tells that
    nothing is known of its work.
    """

    name: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    parameters: tuple[str, ...]
    stored: Mapping[str, int]
    live_bytes: int
    cost: Cost
    opaque: bool = False

    @property
    def parameter_bytes(self) -> int:
        """Bytes of the constants that it holds."""
        return sum(self.stored.values())


@dataclass(frozen=True, eq=False)
class ModelGraph:
    """A model's layers in topological order, and its tensors.

    ``alive[i]`` are the names of the tensors alive at cut i, in order of appearance; ``model`` is the model
    itself, with functions inlined and the shapes of all tensors filled in. Where ``single``, a run takes one request.
    ``constants`` are inputs of the model's file that no request brings, ``states`` the outputs that a caller brings
    back as an input of the next call (output -> input).
    """

    name: str
    model: ir.Model
    layers: tuple[Layer, ...]
    tensors: dict[str, Tensor]
    alive: tuple[tuple[str, ...], ...]
    single: bool = False
    constants: Mapping[str, np.ndarray] = field(default_factory=dict)
    states: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def inputs(self) -> tuple[Tensor, ...]:
        """The tensors that a request brings."""
        return tuple(self.tensors[name] for name in self.alive[0])

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """Names of the tensors that answer a request."""
        return tuple(str(value.name) for value in self.model.graph.outputs)

    @cached_property
    def cut_bytes(self) -> tuple[int, ...]:
        """Bytes per request of the tensors alive at each cut between two layers (one fewer than layers)."""
        return tuple(sum(self.tensors[name].request_bytes for name in names) for names in self.alive[1:-1])

    @cached_property
    def opaque(self) -> str:
        """Which operators' work is not known, in words; empty where all is."""
        found = Counter(layer.operator for layer in self.layers if layer.opaque)
        counts = ", ".join(f"{count} {operator}" for operator, count in sorted(found.items()))
        return f"work not known, counted as one operation per element: {counts}" if counts else ""

    @cached_property
    def barred(self) -> dict[int, str]:
        """Why the model cannot be cut at some of the cuts between two layers: by cut, the tensor and its obstacle."""
        return {
            cut: f"tensor {name!r} cannot cross: {self.tensors[name].obstacle}"
            for cut, names in enumerate(self.alive[1:-1], start=1)
            for name in names
            if self.tensors[name].obstacle
        }

    def parameter_bytes(self, first: int = 0, last: int | None = None) -> int:
        """Return the bytes of all constants of layers [first, last) as the file stores them, each counted once."""
        return sum({name: size for layer in self.layers[first:last] for name, size in layer.stored.items()}.values())

    def live_bytes(self, first: int, last: int) -> int:
        """Return the peak bytes per request of the tensors alive while layers [first, last) run."""
        return max(layer.live_bytes for layer in self.layers[first:last])


def read_graph(model: ir.Model, name: str = "", *, single: bool = False) -> ModelGraph:
    """Return the layers, cuts and costs of a model whose inputs all have one symbolic dimension, the batch.

    The model given is not changed, but for the order of its nodes. Weights are not loaded, unless ONNX cannot infer
    the shapes and the model has to be run.

    Parameters
    ----------
    single
        No input has a symbolic dimension: a run takes one request.

    Raises
    ------
    InputError
        The model has a cycle, lacks an initializer, has no layer, or has tensors of unknown shape;
        ``planner.profiling.batching.free_batch`` makes a pinned batch symbolic.

    Examples
    --------
    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["" : 13]>
    ...     twice (float[n, 2] x) => (float[n, 2] y) { h = Relu (x)   y = Add (h, x) }''')
    >>> graph = read_graph(model)
    >>> [layer.operator for layer in graph.layers], graph.alive, graph.cut_bytes
    (['Relu', 'Add'], (('x',), ('x', 'h'), ('y',)), (16,))
    """
    model = tidy(model)
    tensors = infer_tensors(model, single=single)
    varying = varying_values(model.graph)
    nodes = [node for node in model.graph if any(value in varying for value in node.outputs)]
    if not nodes:
        raise InputError("the model has no layer: none of its nodes depends on an input; check how it was exported")
    alive = _alive_tensors(model.graph, nodes, varying)
    layers = _layers(nodes, varying, tensors, alive, model.opset_imports)
    return ModelGraph(name or str(model.graph.name or "model"), model, layers, tensors, alive, single)


def _alive_tensors(graph: ir.Graph, nodes: Sequence[ir.Node], varying: set[ir.Value]) -> tuple[tuple[str, ...], ...]:
    """Return the names of the tensors alive at each of the cuts 0 .. number of layers."""
    last_use = {value: len(nodes) for value in graph.outputs}
    for index in reversed(range(len(nodes))):
        for value in read_values(nodes[index]):
            last_use.setdefault(value, index)
    current = [value for value in request_inputs(graph) if value in last_use]
    cuts = [tuple(str(value.name) for value in current)]
    for index, node in enumerate(nodes):
        current = [value for value in current if last_use[value] > index]
        current += [value for value in node.outputs if value in varying and last_use.get(value, -1) > index]
        cuts.append(tuple(str(value.name) for value in current))
    return tuple(cuts)


def _layers(
    nodes: Sequence[ir.Node],
    varying: set[ir.Value],
    tensors: dict[str, Tensor],
    alive: tuple[tuple[str, ...], ...],
    opsets: Mapping[str, int],
) -> tuple[Layer, ...]:
    used = Counter(node.name for node in nodes)
    layers = []
    for index, node in enumerate(nodes):
        read = {str(value.name): value in varying for value in read_values(node)}
        inputs = tuple(name for name, varies in read.items() if varies)
        parameters = tuple(name for name, varies in read.items() if not varies and name)
        outputs = tuple(str(value.name) for value in node.outputs if value.name in tensors)
        live = dict.fromkeys((*alive[index], *outputs))
        layers.append(
            Layer(
                name=str(node.name) if node.name and used[node.name] == 1 else outputs[0],
                operator=node.op_type,
                inputs=inputs,
                outputs=outputs,
                parameters=parameters,
                stored=stored_bytes(node, varying, tensors),
                live_bytes=sum(tensors[name].request_bytes for name in live),
                cost=layer_cost(node, tensors, inputs, outputs, opsets),
                opaque=is_opaque(node),
            )
        )
    return tuple(layers)
