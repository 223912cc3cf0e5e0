"""Settings of a model file: what profiling and execution must read alike."""

from collections.abc import Mapping
from dataclasses import field
from math import prod

from planner.model.cluster import Count, Positive
from planner.model.errors import InputError
from planner.model.record import record


@record
class Constant:
    """A tensor that every request is given alike: ``values`` in row-major order."""

    shape: tuple[Count, ...]
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuse values that do not fill the shape."""
        if len(self.values) != prod(self.shape):
            raise InputError(
                f"constant: shape {list(self.shape)} expects {prod(self.shape)} values, got {len(self.values)}"
            )


@record
class ModelSettings:
    """How a model file is read.

    ``sizes`` are numbers for symbolic dimensions, by their name or as ``input:axis``. ``constants`` are inputs that no
    request brings. ``states`` are outputs that come back as an input of the next call (output -> input).
    ``batch_axes`` are the axes of inputs along which requests lie. With ``opened`` the batch, which inputs leave open
    but layers pin, is opened there too. With ``single`` a run takes one request: a call of the model, whatever its
    sizes are.
    """

    sizes: Mapping[str, Positive] = field(default_factory=dict, hash=False)
    constants: Mapping[str, Constant] = field(default_factory=dict, hash=False)
    states: Mapping[str, str] = field(default_factory=dict, hash=False)
    batch_axes: Mapping[str, Count] = field(default_factory=dict, hash=False)
    opened: bool = False
    single: bool = False
