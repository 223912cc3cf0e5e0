"""The constants of a model as its file stores them: what layers hold, and how many bytes of it.

A layer may read a weight through nodes that depend on constants alone: dequantised, cast, reshaped, transposed. What
is stored is what went into those (int8, packed int4, fp16), each with its own size. Only nodes that make a constant
out of its shape (ConstantOfShape and the like) store nothing to go back to, and count by what they make. Constants
inside the bodies of If, Loop and Scan belong to the node, those of both branches.
"""

from collections.abc import Mapping

import onnx_ir as ir

from planner.profiling.graphs import result_name, subgraphs
from planner.profiling.shapes import Tensor

DATA_FIRST = {"Flatten", "Identity", "Pad", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"}  # the rest say how
MAKERS = {"Constant", "ConstantOfShape", "EyeLike", "Expand", "OneHot", "Range", "Tile"}


def stored_bytes(node: ir.Node, varying: set[ir.Value], tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Return the bytes of each constant in the file that a node holds, by name; ``varying`` values are no constants."""
    found: dict[str, int] = {}
    for value in node.inputs:
        if value is not None and value not in varying:
            found |= _behind(value, tensors)
    for graph in subgraphs(node):
        for name, value in graph.initializers.items():
            if value.const_value is not None:
                found[f"{result_name(node)}/{graph.name}/{name}"] = _size_bytes(value.const_value)
        for inner in graph:
            inside = stored_bytes(inner, varying | _made_inside(graph), tensors)
            captured = {name: size for name, size in inside.items() if name not in graph.initializers}
            found |= captured
            if inner.op_type == "Constant":
                found[f"{result_name(node)}/{graph.name}/{inner.outputs[0].name}"] = _constant_bytes(inner)
    return found


def _made_inside(graph: ir.Graph) -> set[ir.Value]:
    return {*graph.inputs, *graph.initializers.values(), *(value for node in graph for value in node.outputs)}


def _behind(value: ir.Value, tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Return the stored constants that a constant is computed from."""
    node, name = value.producer(), str(value.name)
    if node is None:
        if value.const_value is not None:
            return {name: _size_bytes(value.const_value)}
        return {name: tensors[name].request_bytes} if name in tensors else {}
    if node.op_type in MAKERS:
        return {name: tensors[name].request_bytes if name in tensors else _constant_bytes(node)}
    found: dict[str, int] = {}
    for read in node.inputs[:1] if node.op_type in DATA_FIRST else node.inputs:
        if read is not None:
            found |= _behind(read, tensors)
    return found


def _constant_bytes(node: ir.Node) -> int:
    tensor = ir.convenience.get_const_tensor(node.outputs[0])
    return 0 if tensor is None else _size_bytes(tensor)


def _size_bytes(tensor: ir.TensorProtocol) -> int:
    """Return the bytes of a tensor with elements of less than a byte packed, as files hold them."""
    if tensor.dtype == ir.DataType.STRING:
        return tensor.nbytes
    return -(-tensor.size * tensor.dtype.bitwidth // 8)
