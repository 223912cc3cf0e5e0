"""Observations: runtimes of workloads on platforms, alone or beside others, most pairs never measured.

A *workload* is whatever is run (a program; a block of a DNN at a batch size), a *platform* what it runs on (a device
with a runtime; a share of a device). Both are axes of a table that is known in few places. A platform may be put
together of factors (device, runtime, share), which is how a table of more axes than two is told.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from planner.model import InputError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Axis:
    """The workloads, or the platforms.

    Attributes
    ----------
    names
        A name for each of n entities.
    features
        ``[n, d]``, what is known of each without running anything; d may be 0.
    factors
        For each factor, ``[n]`` integers from 0: which device a platform is part of, and so on.
    """

    names: tuple[str, ...]
    features: Floats
    factors: Mapping[str, Ints] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse features or factors that do not fit the names."""
        if len(set(self.names)) != len(self.names):
            twice = sorted({name for name in self.names if self.names.count(name) > 1})
            raise InputError(f"names: each expected once, got {twice[0]!r} twice; merge or rename them")
        for what, values in (("features", self.features), *self.factors.items()):
            if len(values) != len(self.names):
                raise InputError(f"{what}: expected a row for each of {len(self.names)} names, got {len(values)}")
        if not np.isfinite(self.features).all():
            row, column = np.argwhere(~np.isfinite(self.features))[0]
            raise InputError(
                f"features of {self.names[row]!r}: column {column}: expected a number, got "
                f"{self.features[row, column]}; leave the column out or fill it"
            )

    def __len__(self) -> int:
        """Return the number of entities."""
        return len(self.names)


@dataclass(frozen=True, eq=False)
class Observations:
    """Measured runtimes, a row each.

    Attributes
    ----------
    log_time
        ``[n]``, natural logarithm of the runtime, in one unit for all.
    workload, platform
        ``[n]``, indices into the axes.
    beside
        ``[n, c]``, the workloads that ran on the platform at the same time; -1 fills rows that had fewer than c.

    Examples
    --------
    >>> workloads, platforms = Axis(("a", "b"), np.zeros((2, 0))), Axis(("x",), np.zeros((1, 0)))
    >>> seen = observe(workloads, platforms, [("a", "x", 10.0, ()), ("a", "x", 15.0, ("b",))])
    >>> seen.level
    array([0, 1])
    """

    workloads: Axis
    platforms: Axis
    log_time: Floats
    workload: Ints
    platform: Ints
    beside: Ints

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.log_time)

    @property
    def level(self) -> Ints:
        """How many others ran beside, ``[n]``."""
        found: Ints = (self.beside >= 0).sum(axis=1)
        return found

    def take(self, rows: NDArray[np.generic]) -> "Observations":
        """Return the rows of a mask or of indices."""
        parts = {name: getattr(self, name)[rows] for name in ("log_time", "workload", "platform", "beside")}
        return replace(self, **parts)

    def alone(self) -> "Observations":
        """Return the same rows as if nothing had run beside."""
        return replace(self, beside=np.full((len(self), 0), -1))

    def factor(self, name: str) -> Ints:
        """Return a factor of each row's platform; raises InputError if platforms have no such factor."""
        if name not in self.platforms.factors:
            raise InputError(f"platforms have no factor {name!r}; they have {sorted(self.platforms.factors)}")
        return self.platforms.factors[name][self.platform]


def observe(workloads: Axis, platforms: Axis, rows: list[tuple[str, str, float, tuple[str, ...]]]) -> Observations:
    """Return observations from rows of workload, platform, runtime and the workloads beside.

    Raises
    ------
    InputError
        A name is unknown, or a runtime is not a number above 0.
    """
    index = {"workload": workloads, "platform": platforms}
    places = {what: {name: at for at, name in enumerate(axis.names)} for what, axis in index.items()}

    def place(what: str, name: str, row: int) -> int:
        if name not in places[what]:
            raise InputError(
                f"observation {row}: unknown {what} {name!r}; expected one of the {len(places[what])} that were "
                "described: correct the name, or describe it"
            )
        return places[what][name]

    width = max((len(beside) for *_, beside in rows), default=0)
    others = np.full((len(rows), width), -1, dtype=np.int64)
    for at, (_, _, time, beside) in enumerate(rows):
        if not (np.isfinite(time) and time > 0):
            raise InputError(f"observation {at}: runtime: expected a number above 0, got {time}; measure it again")
        others[at, : len(beside)] = [place("workload", name, at) for name in beside]
    return Observations(
        workloads,
        platforms,
        np.log(np.array([time for _, _, time, _ in rows], dtype=float)),
        np.array([place("workload", name, at) for at, (name, *_) in enumerate(rows)], dtype=np.int64),
        np.array([place("platform", name, at) for at, (_, name, *_) in enumerate(rows)], dtype=np.int64),
        others,
    )


@dataclass(frozen=True, eq=False)
class Split:
    """Row indices: to train on, to calibrate on, and to judge by. Disjoint, and together all rows."""

    train: Ints
    calibrate: Ints
    test: Ints


def split(observations: Observations, fraction: float, rng: np.random.Generator) -> Split:
    """Split every level in the same proportions: 0.8 ``fraction`` to train, 0.2 to calibrate, the rest to test.

    The protocol of Pitot (Section 4.1).

    Raises
    ------
    InputError
        The fraction is not between 0 and 1.
    """
    if not 0 < fraction < 1:
        raise InputError(f"fraction: expected a number between 0 and 1, got {fraction}")
    parts: list[list[Ints]] = [[], [], []]
    level = observations.level
    for one in np.unique(level):
        rows = rng.permutation(np.flatnonzero(level == one))
        ends = round(0.8 * fraction * len(rows)), round(fraction * len(rows))
        for part, chosen in zip(parts, np.split(rows, ends), strict=True):
            part.append(chosen)
    return Split(*(np.sort(np.concatenate(part)) for part in parts))


def standardised(features: Floats) -> Floats:
    """Return features of mean 0 and deviation 1, without those that are constant."""
    spread = features.std(axis=0) if len(features) else np.zeros(features.shape[1])
    kept = spread > 1e-9
    scaled: Floats = (features[:, kept] - features[:, kept].mean(axis=0)) / spread[kept]
    return scaled
