"""From a model file to the model that requests meet: sizes fixed, constants put in, and the batch found.

Settings say what a file leaves open (`planner.model.ModelSettings`). What they do not say is guessed where only one
reading makes sense; whoever uses the model compares it with the file (`planner.profiling.acceptance`).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice, product

import numpy as np
import onnx_ir as ir

from planner.model import Constant, InputError, ModelSettings
from planner.profiling.graphs import TRAVELLING, axis_label, batch_dimension, request_inputs, tidy

_READINGS = 8  # of inputs whose batch may lie along several axes, at most

Axes = dict[str, int]


def with_settings(model: ir.Model, settings: ModelSettings) -> ir.Model:
    """Return a tidy copy whose symbolic dimensions have their numbers and whose constant inputs are initializers.

    Raises
    ------
    InputError
        Settings name what the model does not have, or an input is no tensor of numbers.
    """
    copy = tidy(model)
    for value in request_inputs(copy.graph):
        if value.shape is not None:  # some exporters write -1 where a size is open
            value.shape = ir.Shape(None if isinstance(size, int) and size < 0 else size for size in value.shape)
    _check_names(copy.graph, settings)
    for value in [each for each in request_inputs(copy.graph) if not each.uses() and not each.is_graph_output()]:
        copy.graph.inputs.remove(value)  # nothing reads it
    for value in request_inputs(copy.graph):
        name = str(value.name)
        if name in settings.constants:
            _put_in(copy, value, settings.constants[name])
            continue
        if not isinstance(value.type, ir.TensorType) or value.dtype not in TRAVELLING:
            kind = value.type.dtype.name.lower() if isinstance(value.type, ir.TensorType) else str(value.type)
            raise InputError(
                f"input {name!r} is of {kind}: only numbers of the types that NumPy has travel between "
                "stages; export the model from behind the layers that read it, or with another type"
            )
        if value.shape is not None:
            if 0 in value.shape:
                raise InputError(
                    f"input {name!r} has shape {value.shape}, with a size of 0: a request would bring nothing; export "
                    "the model with that size open, or give the input with --constant"
                )
            labels = [axis_label(value, axis) for axis in range(len(value.shape))]
            value.shape = ir.Shape(
                size if isinstance(size, int) else settings.sizes.get(label, settings.sizes.get(f"{name}:{axis}", size))
                for axis, (size, label) in enumerate(zip(value.shape, labels, strict=True))
            )
    return copy


def _check_names(graph: ir.Graph, settings: ModelSettings) -> None:
    inputs = {str(value.name): value for value in request_inputs(graph)}
    outputs = [str(value.name) for value in graph.outputs]
    symbols = {
        label: None
        for value in inputs.values()
        for axis, size in enumerate(value.shape or ())
        if not isinstance(size, int)
        for label in (axis_label(value, axis), f"{value.name}:{axis}")
    }
    for option, names, known in (
        ("fix", settings.sizes, list(symbols)),
        ("constant", settings.constants, list(inputs)),
        ("batch-axis", settings.batch_axes, list(inputs)),
        ("state", settings.states, outputs),
        ("state", settings.states.values(), list(inputs)),
    ):
        for name in names:
            if name not in known:
                what = "symbolic dimension" if option == "fix" else "output" if known is outputs else "input"
                raise InputError(f"--{option}: the model has no {what} {name!r}; it has {', '.join(known) or 'none'}")
    for name, axis in settings.batch_axes.items():
        shape = inputs[name].shape
        if shape is not None and axis >= len(shape):
            raise InputError(f"--batch-axis: input {name!r} has {len(shape)} dimensions, so no axis {axis}")


def _put_in(model: ir.Model, value: ir.Value, constant: Constant) -> None:
    """Make an initializer of an input; before IR version 4 it stays an input as well."""
    name = str(value.name)
    if value.dtype is None or value.dtype == ir.DataType.STRING:
        raise InputError(f"--constant: input {name!r} is no tensor of numbers")
    declared = [size if isinstance(size, int) else -1 for size in value.shape or constant.shape]
    given = list(constant.shape)
    fits = len(given) == len(declared) and all(want in (-1, have) for want, have in zip(declared, given, strict=True))
    if not fits and len(constant.values) == 1 and all(size in (-1, 1) for size in declared):
        given, fits = [1] * len(declared), True  # a number for a tensor of one element
    if not fits:
        raise InputError(f"--constant: input {name!r} has shape {value.shape}, the value given has {given}")
    numbers = np.array(constant.values, dtype=np.float64).reshape(given)
    tensor = numbers.astype(value.dtype.numpy())
    if not np.array_equal(tensor.astype(np.float64), numbers) and not np.issubdtype(tensor.dtype, np.floating):
        raise InputError(f"--constant: input {name!r} is {value.dtype.name.lower()}, which cannot hold the value given")
    value.shape = ir.Shape(given)
    value.const_value = ir.tensor(tensor, dtype=value.dtype, name=name)
    model.graph.register_initializer(value)
    if model.ir_version >= 4:
        model.graph.inputs.remove(value)


def constant_inputs(model: ir.Model, plain: ir.Model) -> dict[str, np.ndarray]:
    """Return the values of a file's inputs that no request brings, zeros where nothing reads them.

    ``plain`` is what `with_settings` made of the file's ``model``.
    """
    brought = {value.name for value in request_inputs(plain.graph)}
    found = {}
    for value in request_inputs(model.graph):
        name = str(value.name)
        constant = plain.graph.initializers[name].const_value if name in plain.graph.initializers else None
        if constant is not None:
            found[name] = constant.numpy()
        elif name not in brought and value.dtype is not None:
            sizes = [size if isinstance(size, int) and size > 0 else 1 for size in value.shape or ()]
            found[name] = np.zeros(sizes, value.dtype.numpy())
    return found


@dataclass
class _Missing:
    """What settings do not say: the first problem in words, and all options that would."""

    problem: str = ""
    sizes: dict[str, None] = field(default_factory=dict)
    options: list[str] = field(default_factory=list)

    def note(self, problem: str, option: str = "") -> None:
        self.problem = self.problem or problem
        self.options += [option] if option else []

    def error(self) -> InputError:
        sizes = [f"--fix {','.join(f'{name}=NUMBER' for name in self.sizes)}"] if self.sizes else []
        return InputError(f"{self.problem}: give {' '.join([*sizes, *self.options])}")


def batch_readings(graph: ir.Graph, settings: ModelSettings) -> Iterator[Axes]:
    """Yield along which axis of each input requests may lie, the likeliest first.

    Raises
    ------
    InputError
        Nothing tells: an input is a scalar, or several dimensions are open.
    """
    inputs = request_inputs(graph)
    open_axes = {str(value.name): _open_axes(value) for value in inputs}
    names = {
        axis_label(value, axes[0])
        for value in inputs
        if (axes := open_axes[str(value.name)]) and str(value.name) not in settings.batch_axes
    }
    choices, missing = [], _Missing()
    for value in inputs:
        name, axes = str(value.name), open_axes[str(value.name)]
        if name in settings.batch_axes:
            choices.append([settings.batch_axes[name]])
        elif not axes:
            choices.append(_closed_axes(value, missing, pinned=not names))
        else:
            choices.append([_batch_among(value, axes, names, missing)])
        for axis in axes:
            if axis != choices[-1][0]:
                missing.sizes[axis_label(value, axis)] = None
                missing.note(
                    f"unsupported dynamic shape: input {name!r} has shape {value.shape}, whose dimension {axis} is no "
                    "number; only the batch may vary"
                )
    if missing.problem:
        raise missing.error()
    yield from (dict(zip(open_axes, axes, strict=True)) for axes in islice(product(*choices), _READINGS))


def _open_axes(value: ir.Value) -> list[int]:
    if value.shape is None:
        raise InputError(f"unsupported dynamic shape: input {value.name!r} has no shape; export the model with one")
    return [axis for axis, size in enumerate(value.shape) if not isinstance(size, int)]


def _closed_axes(value: ir.Value, missing: _Missing, *, pinned: bool) -> list[int]:
    """Return along which axes of an input of fixed shape requests may lie: those of size 1, or the first of all."""
    sizes = [int(size) for size in value.shape or () if isinstance(size, int)]
    ones = [axis for axis, size in enumerate(sizes) if size == 1]
    if not sizes:
        missing.note(f"input {value.name!r} has no batch dimension (it is a scalar)", f"--constant {value.name}=VALUE")
    elif not ones and not pinned:
        missing.note(
            f"input {value.name!r} has no batch dimension: its shape is {sizes}",
            f"--constant {value.name}=FILE.npy (or --batch-axis {value.name}=AXIS)",
        )
    return ones or [0]


def _batch_among(value: ir.Value, axes: list[int], names: set[str], missing: _Missing) -> int:
    """Return which of the open dimensions is the batch: the first one, if it comes first or others share it."""
    shared = [axis for axis in axes if axis_label(value, axis) in names]
    if axes[0] == 0 or len(axes) == 1:
        return axes[0]
    if len(shared) != 1:
        missing.note(
            f"input {value.name!r} has shape {value.shape}, of which several dimensions vary",
            f"--batch-axis {value.name}=AXIS",
        )
    return shared[0] if shared else axes[0]


def name_batch(graph: ir.Graph, axes: Mapping[str, int]) -> int:
    """Name the batch in the inputs' shapes, and return how many requests a call of the model had as it was.

    A call has as many requests as all inputs have rows; where they have different numbers it is one request.
    """
    inputs = request_inputs(graph)
    pinned = {str(value.name): value.shape[axes[str(value.name)]] for value in inputs if value.shape is not None}
    rows = {name: size if isinstance(size, int) else 1 for name, size in pinned.items()}
    call = next(iter(rows.values())) if len(set(rows.values())) == 1 and len(rows) > 0 else 1
    for value in inputs:
        sizes: list[int | str | ir.SymbolicDim] = list(value.shape or ())
        sizes[axes[str(value.name)]] = batch_dimension(rows[str(value.name)] // call)
        value.shape = ir.Shape(sizes)
    return call


def as_single(graph: ir.Graph, axes: Mapping[str, int]) -> None:
    """Give the batch of every input that leaves it open the size 1."""
    for value in request_inputs(graph):
        axis = axes.get(str(value.name), 0)
        value.shape = ir.Shape(
            1 if position == axis and not isinstance(size, int) else size
            for position, size in enumerate(value.shape or ())
        )
