"""Inputs drawn so that a model can take them.

Numbers are standard normal, integers and booleans 0 or 1, bytes (images, as a rule) of the whole range. Where an input
reaches an operator that allows less (the rows of a table that is gathered from, the depth of a one-hot code, the length
of a sequence, a divisor), integers are drawn from what it allows; texts from the vocabulary that the model knows. Such
operators are found by walking from the inputs through layers that pass values on, or add and multiply constants.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import ceil, floor, inf

import numpy as np
import onnx_ir as ir

_PASSED_ON = {
    "Cast", "Concat", "Dropout", "Expand", "Flatten", "Gather", "Identity", "Pad", "Reshape", "Slice", "Split",
    "Squeeze", "Tile", "Transpose", "Unsqueeze", "Where",
}  # fmt: skip
_GROWING = {"Abs", "Ceil", "Clip", "Exp", "Floor", "Relu", "Round", "Sigmoid", "Sqrt", "Tanh"}
_WORDS = ("a", "b", "the", "cat")
_VOCABULARIES = ("keys_strings", "cats_strings", "pool_strings")


@dataclass(frozen=True)
class Domain:
    """What an input may hold: integers from ``low`` to ``high`` (both included), or some texts.

    ``ordered``: numbers are positive and grow along the last axis, as those of a box do (left, top, right, bottom).
    """

    low: float = -inf
    high: float = inf
    texts: tuple[str, ...] = ()
    ordered: bool = False

    def __and__(self, other: "Domain") -> "Domain":
        """Return what both allow."""
        return Domain(
            max(self.low, other.low),
            min(self.high, other.high),
            self.texts + other.texts,
            self.ordered or other.ordered,
        )


@dataclass(frozen=True)
class _Image:
    """What became of an input x on the way: factor · x + a constant between ``least`` and ``most``.

    Where not ``exact`` all that is known is that it grows with x.
    """

    value: ir.Value
    factor: int = 1
    least: int = 0
    most: int = 0
    exact: bool = True

    def before(self, domain: Domain) -> Domain:
        """Return what x may be so that its image is in a domain."""
        if not self.exact:
            return Domain(ordered=domain.ordered)
        low = -inf if domain.low == -inf else ceil((domain.low - self.least) / self.factor)
        high = inf if domain.high == inf else floor((domain.high - self.most) / self.factor)
        return Domain(low, high, domain.texts, domain.ordered)


def find_domains(graph: ir.Graph) -> dict[str, Domain]:
    """Return what the inputs of a graph may hold, where its operators do not allow all values of their type.

    Examples
    --------
    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["" : 17]>
    ...     words (int64[n, 4] ids) => (float[n, 4, 2] y) <float[3, 2] table = {1, 2, 3, 4, 5, 6}, int64 one = {1}>
    ...     { next = Add(ids, one)   y = Gather(table, next) }''')
    >>> find_domains(model.graph)
    {'ids': Domain(low=-4, high=1, texts=(), ordered=False)}
    """
    return {str(value.name): domain for value in graph.inputs if (domain := _domain(value)) != Domain()}


def draw(dtype: ir.DataType, shape: tuple[int, ...], domain: Domain, rng: np.random.Generator) -> np.ndarray:
    """Return a random tensor of a type, a shape and a domain."""
    if dtype == ir.DataType.STRING:
        return np.array(rng.choice(domain.texts or _WORDS, shape), object)
    if domain.low > -inf or domain.high < inf:
        low = max(0, domain.low) if domain.high >= 0 else domain.low
        high = domain.high if domain.high < inf else low + 1
        return rng.integers(int(low), max(int(low), int(high)) + 1, shape).astype(dtype.numpy())
    if dtype.is_floating_point():
        numbers = rng.standard_normal(shape, np.float32)
        return (np.sort(np.abs(numbers), axis=-1) if domain.ordered and shape else numbers).astype(dtype.numpy())
    if dtype in (ir.DataType.INT8, ir.DataType.UINT8):
        limits = np.iinfo(dtype.numpy())
        return rng.integers(limits.min, limits.max, shape, dtype.numpy(), endpoint=True)
    if dtype in (ir.DataType.COMPLEX64, ir.DataType.COMPLEX128):
        return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(dtype.numpy())
    return rng.integers(0, 2, shape).astype(dtype.numpy())


def _domain(value: ir.Value) -> Domain:
    found = Domain()
    waiting, seen = [_Image(value)], {value}
    while waiting:
        image = waiting.pop()
        for node, position in image.value.uses():
            found &= image.before(_allowed(node, position))
            for after in _images(node, position, image):
                if after.value not in seen:
                    seen.add(after.value)
                    waiting.append(after)
    return found


def _images(node: ir.Node, position: int, image: _Image) -> Iterator[_Image]:
    """Yield what becomes of a value in a node that passes it on, adds or multiplies a constant, or keeps its order."""
    if node.op_type in _PASSED_ON and _allowed(node, position) == Domain():
        for output in node.outputs:
            yield _Image(output, image.factor, image.least, image.most, image.exact)
    elif node.op_type in _GROWING and position == 0:
        yield _Image(node.outputs[0], exact=False)
    elif node.op_type in ("Add", "Sub", "Mul", "Div") and len(node.inputs) == 2:
        constant = _constant(node.inputs[1 - position])
        if constant is None or constant.size == 0:
            return
        if constant.dtype.kind not in "iu" or node.op_type == "Div" or not image.exact:
            if _grows(node.op_type, position, constant):
                yield _Image(node.outputs[0], exact=False)
            return
        least, most = int(constant.min()), int(constant.max())
        if node.op_type == "Add":
            yield _Image(node.outputs[0], image.factor, image.least + least, image.most + most)
        elif node.op_type == "Sub" and position == 0:
            yield _Image(node.outputs[0], image.factor, image.least - most, image.most - least)
        elif node.op_type == "Mul" and least == most > 0:
            yield _Image(node.outputs[0], image.factor * least, image.least * least, image.most * least)


def _grows(operator: str, position: int, constant: np.ndarray) -> bool:
    """Tell whether a sum, difference, product or quotient of a value and a constant grows with the value."""
    if operator in ("Sub", "Div") and position == 1:
        return False
    return operator in ("Add", "Sub") or bool((constant > 0).all())


def _allowed(node: ir.Node, position: int) -> Domain:
    """Return what an operator allows at one of its inputs."""
    words = [node.attributes[name].as_strings() for name in _VOCABULARIES if name in node.attributes]
    if words:
        return Domain(texts=tuple(word for each in words for word in each))
    rule = _RULES.get((node.op_type, position))
    return rule(node) if rule else Domain()


def _below(size: int | None) -> Domain:
    """Return the domain of indices, which count from either end; 0 alone where the size is unknown."""
    return Domain(0, 0) if size is None else Domain(-size, size - 1)


def _rows(table: int, axis: int | None = 0) -> Callable[[ir.Node], Domain]:
    """Return the rule for indices of an input's rows along an axis; None for the axis that an attribute names."""

    def rule(node: ir.Node) -> Domain:
        at = _attribute(node, "axis", 0) if axis is None else axis
        sizes = _sizes(node.inputs[table])
        return _below(sizes[at] if sizes and -len(sizes) <= at < len(sizes) else None)

    return rule


def _points(node: ir.Node) -> Domain:
    """GatherND and ScatterND: the last axis of the indices holds a coordinate for each of the first axes."""
    sizes, indices = _sizes(node.inputs[0]), _sizes(node.inputs[1])
    first = _attribute(node, "batch_dims", 0)
    depth = indices[-1] if indices else None
    named = sizes[first : first + depth] if sizes and depth is not None else ()
    known = [size for size in named if size is not None]
    return _below(min(known) if known and len(known) == len(named) else None)


def _depth(node: ir.Node) -> Domain:
    depth = _constant(node.inputs[1])
    return _below(None if depth is None else int(depth.reshape(-1)[0]))


def _compared(other: int) -> Callable[[ir.Node], Domain]:
    """Return the rule for integers that are compared with many constants: a one-hot code made by hand."""

    def rule(node: ir.Node) -> Domain:
        codes = _constant(node.inputs[other])
        if codes is None or codes.size < 3 or codes.dtype.kind not in "iu":
            return Domain()
        return Domain(int(codes.min()), int(codes.max()))

    return rule


def _length(axis: int) -> Callable[[ir.Node], Domain]:
    """Return the rule for lengths of sequences, which lie along an axis of the first input."""

    def rule(node: ir.Node) -> Domain:
        sizes = _sizes(node.inputs[0])
        at = _attribute(node, "time_axis", axis)
        return Domain(1, sizes[at] or 1 if sizes else 1)

    return rule


_RULES: dict[tuple[str, int], Callable[[ir.Node], Domain]] = {
    ("Gather", 1): _rows(0, None),
    ("GatherElements", 1): _rows(0, None),
    ("GatherND", 1): _points,
    ("GatherBlockQuantized", 1): _rows(0, None),
    ("ArrayFeatureExtractor", 1): _rows(0, -1),
    ("ScatterElements", 1): _rows(0, None),
    ("Scatter", 1): _rows(0, None),
    ("ScatterND", 1): _points,
    ("OneHot", 0): _depth,
    ("Equal", 0): _compared(1),
    ("Equal", 1): _compared(0),
    ("EmbedLayerNormalization", 0): _rows(2),
    ("EmbedLayerNormalization", 1): _rows(4),
    ("EmbedLayerNormalization", 8): _rows(3),
    ("RNN", 4): _length(0),
    ("GRU", 4): _length(0),
    ("LSTM", 4): _length(0),
    ("ReverseSequence", 1): _length(0),
    ("RoiAlign", 1): lambda _: Domain(ordered=True),
    ("RoiAlign", 2): lambda _: Domain(0, 0),  # the image that a box is of
    ("Div", 1): lambda _: Domain(low=1),
    ("Mod", 1): lambda _: Domain(low=1),
}


def _sizes(value: ir.Value | None) -> tuple[int | None, ...]:
    if value is None:
        return ()
    constant = ir.convenience.get_const_tensor(value)
    shape = value.shape if constant is None else constant.shape
    return tuple(size if isinstance(size, int) else None for size in shape or ())


def _constant(value: ir.Value | None) -> np.ndarray | None:
    constant = None if value is None or value.is_graph_input() else ir.convenience.get_const_tensor(value)
    return None if constant is None or constant.dtype == ir.DataType.STRING else constant.numpy()


def _attribute(node: ir.Node, name: str, default: int) -> int:
    return node.attributes[name].as_int() if name in node.attributes else default
