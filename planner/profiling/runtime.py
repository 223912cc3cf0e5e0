"""Running models with onnxruntime."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnx_ir as ir

from planner.model import InputError
from planner.profiling.drawing import Domain, draw, find_domains
from planner.profiling.graphs import input_shape, one_line, request_inputs
from planner.profiling.library import onnxruntime

CPU = "CPUExecutionProvider"
_INLINE_BYTES = 4096  # smaller initializers may hold shapes, which onnxruntime wants to see
_SHARED_TYPES = {ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.INT8, ir.DataType.UINT8}


def open_session(
    model: ir.Model | Path,
    *,
    threads: int = 1,
    provider: str = CPU,
    optimise: bool | Literal["basic", "extended"] = True,
    profile_prefix: str | None = None,
    outputs: Sequence[str] = (),
) -> Any:
    """Return an onnxruntime session of a model or its file, ``threads`` threads inside operators and none between them.

    ``profile_prefix`` makes onnxruntime record kernel times into a file of that prefix. ``outputs`` are further tensors
    of the model to be its outputs; onnxruntime finds out their types.

    Raises
    ------
    InputError
        The execution provider is not installed or cannot be used, or onnxruntime lacks an operator or refuses the
        model.
    """
    ort = onnxruntime()

    require_provider(provider)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    # Spinning threads of one worker would steal the cores of its neighbours.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if isinstance(optimise, str):
        levels = ort.GraphOptimizationLevel
        options.graph_optimization_level = (
            levels.ORT_ENABLE_BASIC if optimise == "basic" else levels.ORT_ENABLE_EXTENDED
        )
    elif not optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.add_session_config_entry("session.disable_prepacking", "1")
    if profile_prefix is not None:
        options.enable_profiling = True
        options.profile_file_prefix = profile_prefix
    weights: dict[str, np.ndarray] = {}
    if isinstance(model, Path):
        source: str | bytes = str(model)
    else:
        light, weights = _take_weights_out(model)
        proto = ir.to_proto(light)
        known = {output.name for output in proto.graph.output}
        proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs if name not in known)
        source = proto.SerializeToString()
    values = [ort.OrtValue.ortvalue_from_numpy(weight) for weight in weights.values()]
    options.add_external_initializers(list(weights), values)
    try:
        session = ort.InferenceSession(source, options, providers=[provider])
    except Exception as error:  # onnxruntime raises a dozen unrelated types, all for models that it cannot run
        name = str(model) if isinstance(model, Path) else model.graph.name
        raise InputError(f"onnxruntime cannot run {name!r}: {one_line(error)}") from None
    if provider not in session.get_providers():
        raise InputError(
            f"execution provider {provider!r} was asked for, but onnxruntime runs {session.get_providers()} instead: "
            "it could not load its libraries (a CUDA wheel needs CUDA and cuDNN); install them, or name another one"
        )
    session.weights_in_use = values, weights  # onnxruntime reads them in place: they must live as long as it
    return session


def require_provider(provider: str) -> None:
    """Raise InputError unless an execution provider of onnxruntime is installed."""
    ort = onnxruntime()

    if provider not in ort.get_available_providers():
        raise InputError(
            f"execution provider {provider!r} is not installed; this onnxruntime has {ort.get_available_providers()}"
        )


def _take_weights_out(model: ir.Model) -> tuple[ir.Model, dict[str, np.ndarray]]:
    """Return the model with its large initializers marked as external, and those.

    So they are neither copied nor serialised, and a model may be larger than the 2 GB of a protocol buffer.
    """
    light = model.clone()
    for graph in light.graphs():
        if graph is not light.graph:  # onnxruntime takes weights of the main graph only
            for value in graph.initializers.values():
                if isinstance(value.const_value, ir.ExternalTensor):
                    value.const_value = _in_memory(value.const_value)
    weights = {}
    for name, value in light.graph.initializers.items():
        tensor = value.const_value
        if tensor is None:
            continue
        if tensor.nbytes <= _INLINE_BYTES or tensor.dtype not in _SHARED_TYPES:
            if isinstance(tensor, ir.ExternalTensor):
                value.const_value = _in_memory(tensor)
            continue
        weights[name] = np.ascontiguousarray(tensor.numpy())
        value.const_value = ir.ExternalTensor(
            "in memory", 0, tensor.nbytes, tensor.dtype, shape=ir.Shape(tensor.shape.numpy()), name=name
        )
    return light, weights


def _in_memory(tensor: ir.ExternalTensor) -> ir.TensorProtocol:
    return ir.tensor(tensor.numpy(), dtype=tensor.dtype, name=tensor.name)


def random_feeds(model: ir.Model, batch: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Return random inputs for ``batch`` requests, of values that the model can take (`planner.profiling.drawing`)."""
    domains = find_domains(model.graph)
    feeds = {}
    for value in request_inputs(model.graph):
        if value.shape is None or value.dtype is None:
            raise InputError(f"input {value.name!r} has no shape or type; export the model with one")
        name = str(value.name)
        feeds[name] = draw(value.dtype, input_shape(value, batch), domains.get(name, Domain()), rng)
    return feeds


def run_model(session: Any, feeds: Mapping[str, np.ndarray], names: Sequence[str] | None = None) -> list[np.ndarray]:
    """Return a session's outputs, all in order or those named; raises InputError where onnxruntime cannot run it."""
    try:
        outputs: list[np.ndarray] = session.run(names, dict(feeds))
    except Exception as error:  # as when opening a session: a dozen unrelated types
        raise InputError(f"onnxruntime cannot run {_failed_layer(error)} on these inputs: {one_line(error)}") from None
    return outputs


def _failed_layer(error: Exception) -> str:
    """Return the innermost layer that an error of onnxruntime names, or the model where it names none.

    >>> _failed_layer(RuntimeError("while running RoiAlign node. Name:'heads' Status Message: Integer overflow"))
    "layer 'heads' (RoiAlign)"
    """
    named = re.findall(r"while running (\S+) node\. Name:'(.*?)' Status Message: ", str(error), re.DOTALL)
    if not named:
        return "the model"
    operator, name = named[-1]
    return f"layer {name!r} ({operator})" if name else f"a layer ({operator})"
