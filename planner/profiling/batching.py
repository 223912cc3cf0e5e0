"""Models that were exported for one batch size, made to take any.

Exporters pin the batch in two places: the inputs' first dimension, and constant targets of Reshape nodes. In
row-major order the batch is the outermost dimension, so a target [1, 4, 28, 56, 56] becomes [-1, 4, 28, 56, 56];
one that already leaves another dimension open, [1, -1], becomes [0, -1], which copies the input's first.
"""

import numpy as np
import onnx_ir as ir

from planner.model import InputError
from planner.profiling.onnx_graph import checked_copy, request_inputs, varying_values
from planner.profiling.shapes import BATCH, infer_tensors


def free_batch(model: ir.Model) -> ir.Model:
    """Return the model with a symbolic batch dimension; the given one where the batch is symbolic already.

    Raises
    ------
    InputError
        An input has no batch dimension, or a node other than a Reshape pins the batch.

    Examples
    --------
    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["" : 13]>
    ...     flat (float[1, 2, 3] x) => (float[1, 6] y) <int64[2] target = {1, 6}> { y = Reshape (x, target) }''')
    >>> free = free_batch(model)
    >>> str(free.graph.inputs[0].shape), str(free.graph.outputs[0].shape)
    ('[batch,2,3]', '[batch,6]')
    """
    if not any(_is_pinned(value) for value in request_inputs(model.graph)):
        return model
    free = checked_copy(model)
    for value in request_inputs(free.graph):
        if value.shape is not None and len(value.shape) > 0:
            value.shape = ir.Shape([BATCH, *value.shape[1:]])
    varying = varying_values(free.graph)
    for node in free.graph:
        if node.op_type == "Reshape" and node.inputs[0] in varying:
            _free_reshape(free, node)
    infer_tensors(free)
    return free


def _is_pinned(value: ir.Value) -> bool:
    return value.shape is None or len(value.shape) == 0 or isinstance(value.shape[0], int)


def _free_reshape(model: ir.Model, node: ir.Node) -> None:
    """Open the first dimension of a constant target; targets computed from the input stay."""
    target = node.inputs[1]
    constant = ir.convenience.get_const_tensor(target) if target is not None else None
    if target is None or constant is None:
        return
    sizes = constant.numpy().copy()
    if sizes.size == 0 or sizes[0] <= 0:
        return
    sizes[0] = 0 if -1 in sizes else -1
    if sizes[0] == 0 and "allowzero" in node.attributes:
        raise InputError(f"node {node.name!r} (Reshape) pins the batch; export the model with a symbolic batch")
    name = f"{node.outputs[0].name}.target"
    opened = ir.Value(name=name, const_value=ir.tensor(sizes.astype(np.int64), name=name))
    model.graph.register_initializer(opened)
    if model.ir_version < 4:
        model.graph.inputs.append(opened)
    node.replace_input_with(1, opened)
