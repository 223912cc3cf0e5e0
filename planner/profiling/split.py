"""Parts of a model: any contiguous run of layers as an ONNX model of its own.

Parts chained reproduce the whole. Each part says which tensors it reads and makes; a tensor that is alive across
a part which does not read it (a long skip connection) is no business of that part, so whoever chains parts keeps
the tensors alive at the cut, as `run_chain` does.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import AddInitializersToInputsPass

from planner.profiling.onnx_graph import ModelGraph

Tensors = Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Part:
    """Layers [first, last) of a model as a valid model; ``inputs`` and ``outputs`` are tensor names of the whole."""

    model: ir.Model
    first: int
    last: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def extract_part(graph: ModelGraph, first: int, last: int) -> Part:
    """Return layers [first, last) as a model with the whole's operator sets and IR version.

    Constants are shared with the whole, not copied. Before IR version 4 initializers must be graph inputs too.

    Examples
    --------
    >>> from planner.profiling.onnx_graph import read_graph
    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["" : 13]>
    ...     twice (float[n, 2] x) => (float[n, 2] y) { h = Relu (x)   y = Add (h, x) }''')
    >>> part = extract_part(read_graph(model), 1, 2)
    >>> part.inputs, part.outputs, part.model.opset_imports
    (('x', 'h'), ('y',), {'': 13})
    """
    layers = graph.layers[first:last]
    read = {name for layer in layers for name in layer.inputs}
    made = {name for layer in layers for name in layer.outputs}
    inputs = tuple(name for name in graph.alive[first] if name in read)
    outputs = tuple(name for name in graph.alive[last] if name in made)
    if last == len(graph.layers):  # answers that depend on no request
        outputs += tuple(name for name in graph.outputs if name not in graph.alive[last])
    part = ir.Model(
        ir.convenience.extract(graph.model.graph, inputs, outputs),
        ir_version=graph.model.ir_version,
        producer_name=graph.model.producer_name,
        producer_version=graph.model.producer_version,
    )
    if part.ir_version < 4:
        AddInitializersToInputsPass()(part)
    return Part(part, first, last, inputs, outputs)


def extract_parts(graph: ModelGraph, starts: Sequence[int]) -> tuple[Part, ...]:
    """Return the parts that begin at layers ``starts`` (the first is 0), each up to the next one."""
    ends = [*starts[1:], len(graph.layers)]
    return tuple(extract_part(graph, first, last) for first, last in zip(starts, ends, strict=True))


def run_chain(
    parts: Iterable[Part], run: Callable[[Part, Tensors], Sequence[np.ndarray]], feeds: Tensors
) -> dict[str, np.ndarray]:
    """Run parts one after the other and return all tensors met; ``run`` returns a part's outputs in order."""
    alive = dict(feeds)
    for part in parts:
        made = run(part, {name: alive[name] for name in part.inputs})
        alive.update(zip(part.outputs, made, strict=True))
    return alive
