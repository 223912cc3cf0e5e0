"""Applications: chains of tasks, each with variants, and the virtual models that serve them end to end.

A choice of one variant per task is a *virtual model*: the blocks of the tasks one after the other, the bytes of a seam
being the input of the task that follows. So an application is a DNN whose variants are the choices, and what plans,
simulates and executes DNNs serves applications; a stage may span a seam.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, replace
from itertools import product
from math import prod
from typing import Annotated, Literal, get_args

from annotated_types import Ge, Gt, Le, MinLen

from planner.model.cluster import Quantity
from planner.model.errors import InputError
from planner.model.profile import LatencyTable, Profile, Provenance
from planner.model.record import LATER, record
from planner.model.segments import Share

AccuracyRule = Literal["multiply", "sum", "average"]
ACCURACY_RULES: tuple[AccuracyRule, ...] = get_args(AccuracyRule)
Percent = Annotated[float, Ge(0), Le(100)]
MOST_CHOICES = 5000  # virtual models of one application
SEAM = "+"  # joins the names of a choice's variants


@record
class Task:
    """A task of an application: any of its ``variants`` may do it, with the ``accuracy`` (percent) of each, by name.

    ``after`` names the task whose answers it takes; None is the one before it in the list. One request of that task
    becomes ``fan_out`` requests of this one, on average.
    """

    name: Annotated[str, MinLen(1)]
    variants: Annotated[tuple[Profile, ...], MinLen(1)]
    accuracy: Mapping[str, Percent] = field(default_factory=dict)
    after: str | None = None
    fan_out: Annotated[float, Gt(0)] = 1.0

    def __post_init__(self) -> None:
        """Refuse two variants of one name, and accuracies of others."""
        names = [variant.name for variant in self.variants]
        if len(set(names)) != len(names):
            raise InputError(f"task {self.name}: variants: names must differ, got {names}")
        check_accuracy(f"task {self.name}", self.accuracy, names)


@record
class Application:
    """A chain (or tree) of tasks that answers a request within ``slo_us`` end to end.

    ``rule`` says how the accuracies of the tasks combine; ``accuracies``, where there are some, state the accuracy
    (percent) of every choice instead, by the names of its variants joined by "+" (`rated` makes them with a function).
    ``weight`` and ``rate_rps`` are as for DNNs. Requests that are older than ``drop_after_us`` may be given up; None is
    never.
    """

    name: Annotated[str, MinLen(1)]
    slo_us: Annotated[float, Gt(0)]
    tasks: Annotated[tuple[Task, ...], MinLen(1)]
    rule: AccuracyRule = "multiply"
    weight: Quantity = 1.0
    rate_rps: Quantity | None = None
    np_throughput_rps: Annotated[float, Ge(0)] | None = None
    drop_after_us: Annotated[float, Gt(0)] | None = None
    accuracies: Mapping[str, Percent] = field(default_factory=dict, metadata=LATER)

    def __post_init__(self) -> None:
        """Refuse two tasks of one name, unknown tasks before them, cycles, unlike outputs, accuracies of a part."""
        names = [task.name for task in self.tasks]
        if len(set(names)) != len(names):
            raise InputError(f"application {self.name}: tasks: names must differ, got {names}")
        for number, task in enumerate(self.tasks):
            if task.after is None:
                continue
            if task.after not in names:
                raise InputError(
                    f"application {self.name}: task {task.name}: after: expected one of {names}, got {task.after!r}"
                )
            if names.index(task.after) >= number:
                raise InputError(
                    f"application {self.name}: task {task.name} is after {task.after}, which does not come before it; "
                    "list tasks so that each follows the one that it takes from, without a cycle"
                )
        for number, task in enumerate(self.tasks):
            if any(before == number for before in self.predecessors):
                _check_outputs(f"application {self.name}: task {task.name}", task)
        if self.accuracies:
            check_accuracy(f"application {self.name}", self.accuracies, [choice_name(one) for one in self.choices()])

    @property
    def predecessors(self) -> tuple[int | None, ...]:
        """The number of the task that each task takes its requests from, None for the first."""
        names = [task.name for task in self.tasks]
        return tuple(
            (number - 1 if number else None) if task.after is None else names.index(task.after)
            for number, task in enumerate(self.tasks)
        )

    @property
    def is_chain(self) -> bool:
        """Whether every task takes each answer of the one before it in the list, once."""
        before = [None, *(task.name for task in self.tasks)]
        return all(task.fan_out == 1 and task.after in (None, before[number]) for number, task in enumerate(self.tasks))

    @property
    def has_accuracy(self) -> bool:
        """Whether the accuracy of every choice is known."""
        return bool(self.accuracies) or all(task.accuracy for task in self.tasks)

    def choices(self) -> tuple[tuple[Profile, ...], ...]:
        """Return every choice of one variant per task."""
        return tuple(product(*(task.variants for task in self.tasks)))


def choice_name(choice: Sequence[Profile]) -> str:
    """Return the name of a choice of variants."""
    return SEAM.join(profile.name for profile in choice)


def _check_outputs(where: str, task: Task) -> None:
    """Refuse variants that hand unlike tensors on to the next task."""
    known = {variant.name: variant.outputs for variant in task.variants if variant.outputs is not None}
    if len(set(known.values())) > 1:
        found = ", ".join(f"{name} {' and '.join(outputs)}" for name, outputs in known.items())
        raise InputError(
            f"{where}: variants hand unlike outputs on to the next task: {found}; expected the same types and shapes: "
            "leave variants out, or bring their outputs into one form within the models"
        )


def choice_accuracy(application: Application, choice: Sequence[Profile]) -> float | None:
    """Return the accuracy (percent) of a choice of variants, None where that of a variant is unknown."""
    if application.accuracies:
        return application.accuracies[choice_name(choice)]
    pairs = list(zip(application.tasks, choice, strict=True))
    if not all(variant.name in task.accuracy for task, variant in pairs):
        return None
    return combined_accuracy([task.accuracy[variant.name] for task, variant in pairs], application.rule)


def rated(application: Application, accuracy: Callable[[tuple[str, ...]], float]) -> Application:
    """Return an application whose choices are as accurate (percent) as a function of their variants' names says.

    Raises
    ------
    InputError
        The function gives something else than a percentage.

    Examples
    --------
    >>> from planner.model import *
    >>> table = LatencyTable("L4", 1, (1,), ((9,),), Provenance("bound", ""))
    >>> find, name = (Task(each, (Profile(each, (Block(("a",)),), (), (table,)),)) for each in ("find", "name"))
    >>> rated(Application("photos", 1000, (find, name)), lambda names: 70.0).accuracies
    {'find+name': 70.0}
    """
    accuracies = {}
    for choice in application.choices():
        percent = accuracy(tuple(profile.name for profile in choice))
        if not 0 <= percent <= 100:
            raise InputError(
                f"application {application.name}: accuracy of {choice_name(choice)}: expected percent in [0, 100], "
                f"got {percent}"
            )
        accuracies[choice_name(choice)] = float(percent)
    return replace(application, accuracies=accuracies)


def check_accuracy(where: str, accuracy: Mapping[str, float], variants: list[str]) -> None:
    """Refuse accuracies of variants that there are not, and some but not all of them."""
    if unknown := sorted(set(accuracy) - set(variants)):
        raise InputError(f"{where}: accuracy: expected variants among {variants}, got {unknown}")
    if accuracy and (missing := [name for name in variants if name not in accuracy]):
        raise InputError(f"{where}: accuracy: missing for {missing}; state it for all variants or for none (percent)")


def combined_accuracy(accuracies: Sequence[float], rule: AccuracyRule, whole: float = 100.0) -> float:
    """Return the accuracy of an application whose tasks have these (IPA, JSys 2024, section 4.2); a sum may exceed all.

    ``whole`` is what counts as right always: 100 for percent, 1 for fractions and ranks.

    >>> round(combined_accuracy([50.0, 80.0], "multiply"), 6), combined_accuracy([50.0, 80.0], "average")
    (40.0, 65.0)
    >>> combined_accuracy([0.5, 0.8], "multiply", whole=1.0)
    0.4
    """
    if rule == "multiply":
        return whole * prod(accuracy / whole for accuracy in accuracies)
    return sum(accuracies) / (len(accuracies) if rule == "average" else 1)


def virtual_models(application: Application) -> tuple[tuple[Profile, ...], dict[str, float]]:
    """Return a profile per choice of variants, and the accuracy of each by name (none where tasks have none).

    Raises
    ------
    InputError
        The application is no chain, the choices are too many, a variant's input is unknown, or two variants that
        follow each other share no device.
    """
    if not application.is_chain:
        raise InputError(
            f"application {application.name}: fan-out and trees cannot be planned end to end; plan it task by task "
            "(--scheduler per-task)"
        )
    count = prod(len(task.variants) for task in application.tasks)
    if count > MOST_CHOICES:
        raise InputError(
            f"application {application.name}: {count} choices of variants; expected at most {MOST_CHOICES}: "
            "leave some variants out, or plan it task by task (--scheduler per-task)"
        )
    models, accuracy = [], {}
    for chosen in application.choices():
        name = choice_name(chosen)
        models.append(chained(name, chosen, application.name))
        percent = choice_accuracy(application, chosen)
        if percent is not None:
            accuracy[name] = percent
    return tuple(models), accuracy


def chained(name: str, profiles: tuple[Profile, ...], where: str) -> Profile:
    """Return profiles one after the other as one.

    A table covers the devices and shares that all of them have, at the batch sizes up to the smallest largest one.

    >>> from planner.model import *
    >>> table = LatencyTable("L4", 1, (1, 4), ((6000,), (9000,)), Provenance("measured", "by hand"))
    >>> first = Profile("find", (Block(("a",)),), (), (table,), input_bytes=100)
    >>> second = Profile("name", (Block(("b",)),), (), (table,), input_bytes=40)
    >>> both = chained("find+name", (first, second), "photos")
    >>> both.cut_bytes, both.tables[0].latency_us
    ((40,), ((6000, 6000), (9000, 9000)))
    """
    if len(profiles) == 1:
        return profiles[0]
    cuts: list[int] = list(profiles[0].cut_bytes)
    for following in profiles[1:]:
        if following.input_bytes is None:
            raise InputError(
                f"application {where}: the input of {following.name} has no known size; profile it again, or state "
                "input_bytes in its profile"
            )
        cuts += [following.input_bytes, *following.cut_bytes]
    places = [
        (table.device, table.share)
        for table in profiles[0].tables
        if all(profile.has(table.device, table.share) for profile in profiles)
    ]
    if not places:
        have = {profile.name: list(profile.devices) for profile in profiles}
        raise InputError(f"application {where}: {name}: no device has latencies of all its variants, {have}")
    tables = tuple(_joined(profiles, device, share) for device, share in places)
    blocks = tuple(block for profile in profiles for block in profile.blocks)
    return Profile(name, blocks, tuple(cuts), tables, input_bytes=profiles[0].input_bytes)


def _joined(profiles: tuple[Profile, ...], device: str, share: Share) -> LatencyTable:
    parts = [profile.table(device, share) for profile in profiles]
    most = min(table.batches[-1] for table in parts)
    batches = tuple(sorted({batch for table in parts for batch in table.batches if batch <= most}))
    rows = tuple(tuple(us for table in parts for us in table.block_latency_us(batch)) for batch in batches)
    kinds = {table.provenance.kind for table in parts}
    kind = next(kind for kind in ("estimated", "bound", "measured") if kind in kinds)  # as good as the worst part
    levels = [table.provenance.level for table in parts if table.provenance.level is not None]
    method = "tasks one after the other: " + "; ".join(dict.fromkeys(table.provenance.method for table in parts))
    measured = tuple(tuple(known for table in parts for known in table.measured_blocks(batch)) for batch in batches)
    return LatencyTable(
        device, share, batches, rows, Provenance(kind, method, level=min(levels, default=None)),
        measured=measured if kind != "measured" and any(map(any, measured)) else None,
    )  # fmt: skip
