"""What a model computes from sizes alone, made constant where the batch does not change it.

Exporters leave much to the runtime: targets of Reshape from Shape, grids from Range, an If for each rank that an input
might have. With all sizes fixed but the batch these are numbers. They become initializers, and an If whose condition
is known becomes the branch that it takes, so that its nodes are layers like others.
"""

from collections.abc import Mapping, Sequence
from itertools import count

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from planner.profiling.decisions import sized_values
from planner.profiling.graphs import result_name, varying_values
from planner.profiling.runtime import open_session, random_feeds

_BATCHES = (1, 2, 3, 5)
_LARGEST = 2**22  # elements of a constant that is worth keeping


def fold_sizes(model: ir.Model, *, single: bool = False) -> ir.Model:
    """Return a copy without the nodes that compute what is always the same.

    Where a part of the model cannot be run it stays as it is.
    """
    folded = model.clone()
    for _ in range(len(list(folded.graph.all_nodes())) + 1):
        varying = varying_values(folded.graph)
        sized = sized_values(folded.graph, varying)
        conditions = [node.inputs[0] for node in folded.graph if node.op_type == "If" and node.inputs[0] is not None]
        wanted = [value for value in sized if value.uses()]
        wanted += [value for value in conditions if value not in varying and value.producer() is not None]
        known = _constant_values(folded, list(dict.fromkeys(wanted)), (1,) if single else _BATCHES)
        for value in sized:
            if str(value.name) in known and not value.is_graph_output():
                _make_constant(folded, value, known[str(value.name)])
        taken = [node for node in folded.graph if node.op_type == "If" and _inline_branch(folded, node, known)]
        RemoveUnusedNodesPass()(folded)
        if not taken:
            break
    return folded


def _constant_values(model: ir.Model, values: Sequence[ir.Value], batches: Sequence[int]) -> dict[str, np.ndarray]:
    """Return those of some values that are the same at all batch sizes and on all inputs."""
    if not values:
        return {}
    try:
        graph = ir.convenience.extract(model.graph, list(model.graph.inputs), list(values))
        part = ir.Model(graph, ir_version=model.ir_version)
        session = open_session(part, optimise=False)
        fed = {each.name for each in session.get_inputs()}
        found: list[list[np.ndarray]] = []
        for seed, batch in enumerate((*batches, batches[0])):
            feeds = random_feeds(model, batch, np.random.default_rng([seed, batch]))
            found.append(
                session.run([str(value.name) for value in values], {k: v for k, v in feeds.items() if k in fed})
            )
    except Exception:  # a part that cannot be run, for whatever reason, is not folded
        return {}
    return {
        str(value.name): each[0]
        for value, each in zip(values, zip(*found, strict=True), strict=True)
        if isinstance(each[0], np.ndarray)
        and each[0].size <= _LARGEST
        and all(np.array_equal(each[0], other) for other in each[1:])
    }


def _make_constant(model: ir.Model, value: ir.Value, numbers: np.ndarray) -> None:
    name = f"{value.name}.folded"
    constant = ir.Value(name=name, const_value=ir.tensor(numbers, name=name))
    constant.shape, constant.dtype = ir.Shape(numbers.shape), ir.DataType.from_numpy(numbers.dtype)
    value.replace_all_uses_with(constant)
    model.graph.register_initializer(constant)
    if model.ir_version < 4:
        model.graph.inputs.append(constant)


def _inline_branch(model: ir.Model, node: ir.Node, known: Mapping[str, np.ndarray]) -> bool:
    """Put the nodes of the branch that an If always takes in its place; tell whether that was known."""
    condition = node.inputs[0]
    assert condition is not None
    name = str(condition.name).removesuffix(".folded")
    constant = ir.convenience.get_const_tensor(condition)
    value = constant.numpy() if constant is not None else known.get(name)
    if value is None:
        return False
    branch = node.attributes["then_branch" if bool(np.all(value)) else "else_branch"].as_graph()
    outer = model.graph
    taken = _names(outer)
    for initializer in list(branch.initializers.values()):
        del branch.initializers[str(initializer.name)]
        initializer.name = _unique(str(initializer.name), taken)
        outer.register_initializer(initializer)
        if model.ir_version < 4:
            outer.inputs.append(initializer)
    results = list(branch.outputs)
    branch.outputs.clear()
    nodes = list(branch)
    branch.remove(nodes)
    made = set()
    for inner in nodes:
        for value_made in inner.outputs:
            made.add(value_made)
            if value_made.name:
                value_made.name = _unique(str(value_made.name), taken)
        if inner.name:
            inner.name = f"{node.name or result_name(node)}/{inner.name}"
    outer.insert_before(node, nodes)
    for output, result in zip(node.outputs, results, strict=True):
        given = result
        if result not in made or output.is_graph_output():  # an outer value, or a name that must stay
            given = ir.Value(name=str(output.name), type=output.type or result.type)
            outer.insert_before(node, ir.Node("", "Identity", [result], outputs=[given]))
        output.replace_all_uses_with(given, replace_graph_outputs=True)
        if given is not result:
            output.name = _unique(f"{output.name}.before", taken)
    outer.remove(node, safe=True)
    return True


def _names(graph: ir.Graph) -> set[str]:
    names = {str(value.name) for value in graph.inputs} | set(graph.initializers)
    return names | {str(value.name) for node in graph for value in node.outputs}


def _unique(name: str, taken: set[str]) -> str:
    found = name if name not in taken else next(f"{name}.{n}" for n in count(1) if f"{name}.{n}" not in taken)
    taken.add(found)
    return found
