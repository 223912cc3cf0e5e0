"""Deployments of merged models by trying everything, from the rules and without the planner's formulations."""

from collections.abc import Iterator
from itertools import combinations, product
from math import ceil, inf

from planner.planning.merging.deployment import DeployedStage, MergeProblem
from planner.planning.merging.schemes import MergeModel

Copy = tuple[object, int]  # what it is called, and its bytes


def ways(model: MergeModel, number: int, devices: int, all_stages: bool) -> Iterator[list[DeployedStage]]:
    """Every division into stages with every choice of devices for each."""
    count = len(model.groups)
    for pieces in range(1, min(model.max_stages, count) + 1):
        for cuts in combinations(range(1, count), pieces - 1):
            bounds = list(zip((0, *cuts), (*cuts, count), strict=True))
            choices = []
            for first, last in bounds:
                least = max(1, ceil(model.peak_devices * part(model, first, last) - 1e-9))
                choices.append([s for k in range(least, devices + 1) for s in combinations(range(devices), k)])
            for chosen in product(*choices):
                used = [device for places in chosen for device in places]
                empty = model.max_stages - pieces if all_stages else 0
                if len(set(used)) == len(used) and len(used) + empty <= devices:
                    yield [DeployedStage(number, *bound, places) for bound, places in zip(bounds, chosen, strict=True)]


def part(model: MergeModel, first: int, last: int) -> float:
    """The part of a model's latency that some of its groups take."""
    return sum(group.latency for group in model.groups[first:last]) / sum(group.latency for group in model.groups)


def least_bytes(problem: MergeProblem) -> int | None:
    """The least memory of all deployments that keep memory and loads; None where none does."""
    devices = range(len(problem.device_bytes))
    options = [list(ways(model, n, len(devices), problem.all_stages)) for n, model in enumerate(problem.models)]
    best = inf

    def place(number: int, held: list[frozenset[Copy]], busy: list[float]) -> None:
        nonlocal best
        used = [sum(size for _, size in things) for things in held]
        if sum(used) >= best or any(used[j] > problem.device_bytes[j] or busy[j] > 1 + 1e-9 for j in devices):
            return
        if number == len(options):
            best = sum(used)
            return
        model = problem.models[number]
        for stages in options[number]:
            more, busier = list(held), list(busy)
            for stage in stages:
                things = frozenset(
                    (copy_of(problem, number, group), model.groups[group].parameter_bytes)
                    for group in range(stage.first, stage.last)
                )
                for device in stage.devices:
                    more[device] |= things
                    load = model.mean_devices * part(model, stage.first, stage.last) / len(stage.devices)
                    busier[device] += load
            place(number + 1, more, busier)

    place(0, [frozenset() for _ in devices], [0.0 for _ in devices])
    return None if best == inf else int(best)


def copy_of(problem: MergeProblem, model: int, group: int) -> object:
    """What a copy of a group is called: the set of those that share it, or itself."""
    return next((members for members in problem.sharing if (model, group) in members), (model, group))
