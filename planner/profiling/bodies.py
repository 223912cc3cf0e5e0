"""The bodies of If, Loop and Scan: graphs inside a node, and the tensors in them."""

from collections.abc import Mapping

import onnx
import onnx_ir as ir

from planner.profiling.shapes import Tensor


def trips(node: ir.Node, tensors: Mapping[str, Tensor]) -> int:
    """Return how often a body runs: a Loop's trips if they are a constant, a Scan's steps, else 1."""
    if node.op_type == "Loop" and node.inputs[0] is not None:
        count = ir.convenience.get_const_tensor(node.inputs[0])
        return 1 if count is None else max(0, int(count.numpy().item()))
    if node.op_type == "Scan":
        return max((shape[0] for shape in _scanned(node, tensors)), default=1)
    return 1


def tensors_inside(
    node: ir.Node, body: ir.Graph, tensors: Mapping[str, Tensor], opsets: Mapping[str, int]
) -> dict[str, Tensor]:
    """Return the tensors of a body that ONNX can infer from what the node gives it and what it captures."""
    taken = {name: tensor for name, tensor in tensors.items() if name in _read_inside(body)}
    taken |= _given(node, body, tensors)
    model = onnx.helper.make_model(
        ir.to_proto(body),
        opset_imports=[onnx.helper.make_opsetid(*pair) for pair in opsets.items()],
        ir_version=10,
    )
    del model.graph.input[:]
    model.graph.input.extend(
        onnx.helper.make_tensor_value_info(name, int(tensor.dtype), tensor.shape) for name, tensor in taken.items()
    )
    for output in model.graph.output:
        output.ClearField("type")
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=False, data_prop=True).graph
    found = {}
    for name, value in body.initializers.items():
        if value.const_value is not None:
            shape = tuple(value.const_value.shape.numpy())
            found[name] = Tensor(name, value.const_value.dtype, shape, None)
    for info in (*inferred.input, *inferred.value_info, *inferred.output):
        tensor_type = info.type.tensor_type
        sizes = tuple(size.dim_value if size.HasField("dim_value") else -1 for size in tensor_type.shape.dim)
        if tensor_type.HasField("shape") and min(sizes, default=0) >= 0:
            found[info.name] = Tensor(info.name, ir.DataType(tensor_type.elem_type), sizes, None)
    return found


def _read_inside(body: ir.Graph) -> set[str]:
    made = {str(value.name) for value in (*body.inputs, *body.initializers.values())}
    made |= {str(value.name) for node in body for value in node.outputs}
    read = {str(value.name) for node in body.all_nodes() for value in node.inputs if value is not None}
    return (read | {str(value.name) for value in body.outputs}) - made


def _given(node: ir.Node, body: ir.Graph, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors that the node hands to its body in each trip, by their names there."""
    if not body.inputs:  # an If's
        return {}
    names = [str(value.name) for value in body.inputs]
    outside = [tensors.get(str(value.name)) if value is not None else None for value in node.inputs]
    if node.op_type == "Loop":
        counters = [Tensor(names[0], ir.DataType.INT64, (), None), Tensor(names[1], ir.DataType.BOOL, (), None)]
        handed: list[Tensor | None] = [*counters, *outside[2:]]
    elif node.op_type != "Scan":  # what others hand over, the elements of a sequence, has no shape that is known here
        return {}
    else:
        shapes = iter(_scanned(node, tensors))
        states = len(outside) - node.attributes["num_scan_inputs"].as_int()
        handed = list(outside[:states])
        handed += [
            Tensor(each.name, each.dtype, next(shapes)[1:], None) for each in outside[states:] if each is not None
        ]
    return {
        name: Tensor(name, each.dtype, each.shape, each.batch_axis)
        for name, each in zip(names, handed, strict=True)
        if each is not None
    }


def _scanned(node: ir.Node, tensors: Mapping[str, Tensor]) -> list[tuple[int, ...]]:
    """Return the shapes of what a Scan takes apart, the axis along which it does first."""
    count = node.attributes["num_scan_inputs"].as_int()
    axes = node.attributes["scan_input_axes"].as_ints() if "scan_input_axes" in node.attributes else [0] * count
    shapes = []
    for value, axis in zip(node.inputs[len(node.inputs) - count :], axes, strict=True):
        shape = tensors[str(value.name)].shape if value is not None else (1,)
        shapes.append((shape[axis], *shape[:axis], *shape[axis:][1:]))
    return shapes
