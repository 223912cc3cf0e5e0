"""Models as layer groups, and schemes by which some of them share one copy (CoMPI, SoCC 2025)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf

from planner.model import InputError

Member = tuple[int, int]  # a model and one of its layer groups, by their indices
Sharing = frozenset[frozenset[Member]]  # the members of each set share one copy


@dataclass(frozen=True)
class LayerGroup:
    """A run of layers that is merged or not as one: a stem, a residual block, a head (which is never merged).

    Groups of equal ``kind`` and bytes can share one copy, whatever the architectures around them.
    """

    parameter_bytes: int
    latency: float
    mergeable: bool = True
    kind: str = ""


@dataclass(frozen=True)
class MergeModel:
    """A model to deploy: its layer groups, at most so many stages, and its peak and mean demand in devices."""

    name: str
    groups: tuple[LayerGroup, ...]
    max_stages: int
    peak_devices: float
    mean_devices: float

    @property
    def latency(self) -> float:
        """The latency of all groups."""
        return sum(group.latency for group in self.groups)

    @property
    def parameter_bytes(self) -> int:
        """The bytes of all groups."""
        return sum(group.parameter_bytes for group in self.groups)


@dataclass(frozen=True)
class Scheme:
    """The models ``models`` use one copy of each mergeable group in [first, last)."""

    models: tuple[int, ...]
    first: int
    last: int


def sharing_of(models: Sequence[MergeModel], schemes: Iterable[Scheme]) -> Sharing:
    """Return the sets of (model, group) that share one copy; schemes that meet in a member join.

    Raises
    ------
    InputError
        A scheme names a model or groups that there are not, or groups of unlike sizes.

    Examples
    --------
    >>> group, head = LayerGroup(100, 1.0), LayerGroup(10, 1.0, mergeable=False)
    >>> models = [MergeModel(name, (group, head), 1, 1.0, 0.5) for name in "abc"]
    >>> [sorted(members) for members in sharing_of(models, [Scheme((0, 2), 0, 2)])]
    [[(0, 0), (2, 0)]]
    """
    classes: dict[Member, set[Member]] = {}
    for number, scheme in enumerate(schemes):
        _check(models, scheme, number)
        for group in range(scheme.first, scheme.last):
            members = {(model, group) for model in scheme.models if models[model].groups[group].mergeable}
            joined = set(members).union(*(classes.get(member, ()) for member in members))
            classes.update(dict.fromkeys(joined, joined))
    return frozenset(frozenset(members) for members in classes.values() if len(members) > 1)


def _check(models: Sequence[MergeModel], scheme: Scheme, number: int) -> None:
    where = f"schemes[{number}]"
    if len(set(scheme.models)) != len(scheme.models) or len(scheme.models) < 2:
        raise InputError(f"{where}: models: expected at least two different ones, got {list(scheme.models)}")
    for model in scheme.models:
        if not 0 <= model < len(models):
            raise InputError(f"{where}: models: expected numbers below {len(models)}, got {model}")
        if not 0 <= scheme.first < scheme.last <= len(models[model].groups):
            raise InputError(
                f"{where}: groups: expected a range within the {len(models[model].groups)} groups of "
                f"{models[model].name}, got [{scheme.first}, {scheme.last})"
            )
    for group in range(scheme.first, scheme.last):
        kinds = {
            (models[model].groups[group].parameter_bytes, models[model].groups[group].mergeable)
            for model in scheme.models
        }
        if len(kinds) > 1:
            sizes = {models[model].name: models[model].groups[group].parameter_bytes for model in scheme.models}
            raise InputError(f"{where}: group {group}: expected equal groups to merge, got bytes {sizes}")


def check_models(models: Sequence[MergeModel]) -> None:
    """Refuse models of one name, without groups or stages, and numbers that are none, negative, or take no time."""
    names = [model.name for model in models]
    if not models or len(set(names)) < len(names):
        raise InputError(f"models: expected one or more of different names, got {names}")
    for model in models:
        if not model.groups or model.max_stages < 1:
            raise InputError(
                f"{model.name}: expected one or more layer groups and stages, got {len(model.groups)} and "
                f"{model.max_stages}"
            )
        numbers = {"peak_devices": model.peak_devices, "mean_devices": model.mean_devices}
        for number, group in enumerate(model.groups):
            numbers |= {
                f"group {number}: bytes": group.parameter_bytes,
                f"group {number}: latency": group.latency,
            }
        for what, value in numbers.items():
            if not 0 <= value < inf:
                raise InputError(f"{model.name}: {what}: expected a number from 0 on, got {value}")
        if model.latency == 0:
            raise InputError(f"{model.name}: its groups take no time at all; measure them, loads are shares of it")


def check_sharing(models: Sequence[MergeModel], sharing: Sharing) -> None:
    """Refuse sharing of members that there are not, of two groups of one model, of heads, and of unlike groups."""
    for members in sharing:
        where = f"sharing {sorted(members)}"
        for model, group in members:
            if not (0 <= model < len(models) and 0 <= group < len(models[model].groups)):
                raise InputError(f"{where}: there is no group {group} of model {model}")
        groups = [models[model].groups[group] for model, group in members]
        if len({model for model, _ in members}) < len(members) or len(members) < 2:
            raise InputError(f"{where}: expected groups of two or more different models")
        if not all(group.mergeable for group in groups):
            raise InputError(f"{where}: heads cannot be merged; leave them out")
        if len({(group.kind, group.parameter_bytes) for group in groups}) > 1:
            unlike = sorted((group.kind, group.parameter_bytes) for group in groups)
            raise InputError(f"{where}: expected equal groups to merge, got (kind, bytes) {unlike}")


def read_schemes(raw: Sequence[Mapping[str, object]]) -> tuple[Scheme, ...]:
    """Return schemes from their published form: ``models``, ``start``, ``num_layers``."""
    found = []
    for number, entry in enumerate(raw):
        try:
            models, start, count = entry["models"], entry["start"], entry["num_layers"]
        except KeyError as missing:
            raise InputError(
                f"schemes[{number}]: {missing.args[0]} is missing; expected models, start, num_layers"
            ) from None
        if not (
            isinstance(models, list)
            and all(isinstance(model, int) for model in models)
            and isinstance(start, int)
            and isinstance(count, int)
        ):
            raise InputError(
                f"schemes[{number}]: expected a list of numbers of models and two integers, got {dict(entry)}"
            )
        found.append(Scheme(tuple(models), start, start + count))
    return tuple(found)


def middle(limits: Sequence[int]) -> int:
    """Return where CoMPI halves models with these stage limits: where they change, nearest the middle.

    >>> middle([1, 1, 1, 2]), middle([1, 2, 3]), middle([2, 2, 2])
    (3, 1, 1)
    """
    cuts = range(1, len(limits))
    changes = [cut for cut in cuts if limits[cut] != limits[cut - 1]] or list(cuts)
    return min(changes, key=lambda cut: abs(2 * cut - len(limits)))
