"""The model of a virtual variant: those of an application's tasks, one after the other.

An application that is planned end to end is a DNN whose variants are choices of one variant per task
(`planner.model.applications`). Its model is made of theirs: what one makes is what the next one reads, tensor by
tensor. The layers of task k are called ``k/name``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import onnx
import onnx_ir as ir

from planner.model import Block, InputError, Pipeline, Problem, Profile
from planner.model.applications import SEAM


def tasks_of(problem: Problem, dnn: str, variant: str) -> tuple[Profile, ...]:
    """Return the profiles that a variant is made of, task by task; it alone where it is not virtual."""
    for application in problem.applications:
        if application.name == dnn:
            for chosen in application.choices():
                if SEAM.join(profile.name for profile in chosen) == variant:
                    return chosen
    return (problem.dnn(dnn).variant(variant),)


def with_chained(
    problem: Problem, pipelines: Sequence[Pipeline], models: Mapping[str, ir.Model]
) -> dict[str, ir.Model]:
    """Return the models, and those of the virtual variants that pipelines serve, made of those of their tasks.

    Raises
    ------
    InputError
        A model is missing, or does not take what the one before it makes.
    """
    found = dict(models)
    for pipeline in pipelines:
        tasks = tasks_of(problem, pipeline.dnn, pipeline.variant)
        if len(tasks) == 1 or pipeline.variant in found:
            continue
        if missing := [profile.name for profile in tasks if profile.name not in models]:
            raise InputError(
                f"no model is given for variant {missing[0]!r} of {pipeline.dnn}; the models are {sorted(models)}"
            )
        found[pipeline.variant] = chained_model([models[profile.name] for profile in tasks], pipeline.variant)
    return found


def prefixed(profile: Profile, tasks: Sequence[Profile]) -> Profile:
    """Return a virtual profile whose layers are called as those of its model."""
    if len(tasks) == 1:
        return profile
    blocks = [
        Block(tuple(f"{number}/{layer}" for layer in block.layers))
        for number, task in enumerate(tasks)
        for block in task.blocks
    ]
    return replace(profile, blocks=tuple(blocks))


def chained_model(models: Sequence[ir.Model], name: str) -> ir.Model:
    """Return models one after the other as one; raises InputError where one does not take what the one before makes."""
    protos = []
    for number, model in enumerate(models):
        proto = ir.to_proto(ir.external_data.load_to_model(model))
        protos.append(onnx.compose.add_prefix(proto, f"{number}/", rename_inputs=number > 0))
    whole = protos[0]
    for number, following in enumerate(protos[1:], start=1):
        _require_fit(whole, following, f"{name}: task {number}")
        pairs = zip(whole.graph.output, following.graph.input, strict=True)
        io_map = [(made.name, read.name) for made, read in pairs]
        whole.ir_version = following.ir_version = max(whole.ir_version, following.ir_version)
        whole = onnx.compose.merge_models(whole, following, io_map, name=name)
    return ir.from_proto(whole)


def _require_fit(before: onnx.ModelProto, following: onnx.ModelProto, where: str) -> None:
    """Raise InputError where what one model makes is not what the next one reads."""
    made, read = ([_described(value) for value in values] for values in (before.graph.output, following.graph.input))
    if len(made) != len(read) or not all(map(_fit, made, read)):
        raise InputError(f"{where} reads {_said(read)}, the task before it makes {_said(made)}; expected the same")
    sets = [{one.domain or "ai.onnx": one.version for one in model.opset_import} for model in (before, following)]
    if differ := sorted(domain for domain in sets[0].keys() & sets[1].keys() if sets[0][domain] != sets[1][domain]):
        versions = ", ".join(f"{domain} {sets[0][domain]} and {sets[1][domain]}" for domain in differ)
        raise InputError(f"{where} and the task before it are exported for other operator sets: {versions}")


Described = tuple[int, tuple[int | None, ...]]


def _described(value: onnx.ValueInfoProto) -> Described:
    tensor = value.type.tensor_type
    return tensor.elem_type, tuple(axis.dim_value if axis.HasField("dim_value") else None for axis in tensor.shape.dim)


def _fit(made: Described, read: Described) -> bool:
    """Return whether a tensor may be another, as far as sizes are known."""
    return (
        made[0] == read[0]
        and len(made[1]) == len(read[1])
        and all(None in (left, right) or left == right for left, right in zip(made[1], read[1], strict=True))
    )


def _said(tensors: Sequence[Described]) -> str:
    types = onnx.TensorProto.DataType
    return ", ".join(
        f"{types.Name(kind).lower()}{[size if size is not None else 'n' for size in sizes]}".replace("'", "")
        for kind, sizes in tensors
    )
