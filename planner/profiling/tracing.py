"""A model traced node by node: what each makes of single calls, and of the same calls put together.

If requests do not influence each other, a node makes of calls put together what it makes of each, put together: along
one axis, maybe with parts of every call in turn (`Fold`). Where no fold explains what came out, this node is the one
that mixes requests, or whose sizes pin the batch. Each node is given exactly what the calls had before it, so that
nothing but its own arithmetic is in the comparison.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from planner.model import InputError
from planner.profiling.graphs import one_line, read_values, where
from planner.profiling.library import onnxruntime

CLOSE = 1e-4  # of the largest magnitude: one operator's arithmetic at another batch size
HALF_CLOSE = 4e-3  # the same of half precision
_INLINE_ELEMENTS = 1024  # smaller constants may hold shapes, and operators may want to see them before they run

Values = dict[str, np.ndarray]


@dataclass(frozen=True)
class Fold:
    """How calls lie in a tensor: along ``axis``, of which ``outer`` parts come before the calls.

    (0, 1) are rows of one call after those of another; (0, 2) the first halves of all calls, then the second ones.
    """

    axis: int
    outer: int = 1


@dataclass(frozen=True)
class Traced:
    """A value of single calls, and of the calls together; ``fold`` None where it is the same for all calls.

    ``sized`` values depend on the calls' sizes alone, so they need not be explained by a fold.
    """

    calls: tuple[np.ndarray, ...]
    together: np.ndarray
    fold: Fold | None
    sized: bool = False


def put_together(calls: Sequence[np.ndarray], fold: Fold | None) -> np.ndarray:
    """Return calls put together.

    >>> put_together([np.array([1, 2]), np.array([3, 4])], Fold(0, 2)).tolist()
    [1, 3, 2, 4]
    """
    if fold is None:
        return calls[0]
    shape, axis = calls[0].shape, fold.axis
    split = (*shape[:axis], fold.outer, shape[axis] // fold.outer, *shape[axis + 1 :])
    stacked = np.stack([call.reshape(split) for call in calls], axis=axis + 1)
    return stacked.reshape(*shape[:axis], shape[axis] * len(calls), *shape[axis + 1 :])


MIXED = "mixes requests that share a run"


def find_fold(calls: Sequence[np.ndarray], together: np.ndarray, tolerance: float = CLOSE) -> Fold | str | None:
    """Return how calls lie in ``together``, None if it is like each of them, a text if nothing explains it."""
    shape = calls[0].shape
    if any(call.shape != shape for call in calls):
        return "makes a tensor whose size depends on the data"
    if together.shape == shape and all(close(call, together, tolerance) for call in calls):
        return None
    grown = [axis for axis in range(min(len(shape), together.ndim)) if together.shape[axis] != shape[axis]]
    if together.ndim == len(shape) and len(grown) == 1 and together.shape[grown[0]] == shape[grown[0]] * len(calls):
        axis = grown[0]
        for outer in (size for size in range(1, shape[axis] + 1) if shape[axis] % size == 0):
            if close(put_together(calls, Fold(axis, outer)), together, tolerance):
                return Fold(axis, outer)
        return MIXED
    if together.shape == shape:
        return MIXED
    return f"pins the batch: it makes {list(together.shape)} of {len(calls)} requests that give {list(shape)} each"


def close(made: np.ndarray, expected: np.ndarray, tolerance: float = CLOSE) -> bool:
    """Tell whether two tensors are equal but for arithmetic: floats may differ by so much of the largest magnitude."""
    if made.shape != expected.shape or made.dtype != expected.dtype:
        return False
    if made.dtype.kind not in "fc":
        return bool(np.array_equal(made, expected))
    if made.dtype == np.float16:
        tolerance = max(tolerance, HALF_CLOSE)
    with np.errstate(invalid="ignore", over="ignore"):
        finite = np.abs(expected[np.isfinite(expected)])
        scale = float(finite.max()) if finite.size else 0.0
        return bool(np.allclose(made, expected, rtol=tolerance, atol=tolerance * scale, equal_nan=True))


class NodeRunner:
    """A node of a model as a session of its own; large constants are fed like inputs."""

    def __init__(self, node: ir.Node, model: ir.Model, constants: Mapping[str, np.ndarray]) -> None:
        self.node = node
        self._proto = ir.to_proto(node)
        self.reads = list(dict.fromkeys(str(value.name) for value in read_values(node) if value.name))
        self.outputs = [str(value.name) for value in node.outputs if value.name]
        self._constants = {name: constants[name] for name in self.reads if name in constants}
        opsets = [onnx.helper.make_opsetid(domain, version) for domain, version in model.opset_imports.items()]
        self._header: dict[str, Any] = {"opset_imports": opsets, "ir_version": max(4, model.ir_version)}
        self._sessions: dict[tuple[str, ...], Any] = {}

    def __call__(self, varying: Values, changed: Mapping[str, np.ndarray] | None = None) -> list[np.ndarray]:
        """Run the node; ``changed`` are constants that are to be others. Raises InputError where it cannot run."""
        constants = self._constants | dict(changed or {})
        fed = {name: varying[name] for name in self.reads if name in varying and name not in (changed or {})}
        fed |= {name: value for name, value in constants.items() if value.size > _INLINE_ELEMENTS}
        inline = {name: value for name, value in constants.items() if name not in fed}
        made: list[np.ndarray] = self._session(fed, inline, key=changed is None).run(self.outputs, fed)
        if not all(isinstance(each, np.ndarray) for each in made):
            raise InputError(f"{where(self.node)} makes what is no tensor")
        return made

    def _session(self, fed: Values, inline: Values, *, key: bool) -> Any:
        known = tuple(fed) if key else ()
        if key and known in self._sessions:
            return self._sessions[known]
        ort = onnxruntime()

        graph = onnx.helper.make_graph(
            [self._proto],
            "node",
            [_declared(name, value) for name, value in fed.items()],
            [onnx.ValueInfoProto(name=name) for name in self.outputs],
            [_initializer(name, value) for name, value in inline.items()],
        )
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        model = onnx.helper.make_model(graph, **self._header)
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        if key:
            self._sessions[known] = session
        return session


def attempt(
    run: NodeRunner, varying: Values, changed: Mapping[str, np.ndarray] | None = None
) -> list[np.ndarray] | str:
    """Return what a node makes, or why it cannot run."""
    try:
        return run(varying, changed)
    except Exception as error:  # onnxruntime raises a dozen unrelated types
        return one_line(error)


def _declared(name: str, value: np.ndarray) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(name, int(ir.DataType.from_numpy(value.dtype)), None)


def _initializer(name: str, value: np.ndarray) -> onnx.TensorProto:
    return ir.to_proto(ir.tensor(value, name=name))


def last_reads(graph: ir.Graph, nodes: Sequence[ir.Node]) -> list[list[str]]:
    """Return the names of the values that nobody reads after each node."""
    last: dict[str, int] = {str(value.name): len(nodes) for value in graph.outputs}
    freed: list[list[str]] = [[] for _ in nodes]
    for index in reversed(range(len(nodes))):
        for value in (*read_values(nodes[index]), *nodes[index].outputs):
            name = str(value.name)
            if name not in last:
                last[name] = index
                freed[index].append(name)
    return freed
