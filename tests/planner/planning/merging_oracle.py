"""Deployments of merged models by trying everything, from the rules and without the planner's formulations."""

from collections.abc import Callable, Iterator
from itertools import combinations, product
from math import ceil, inf

import numpy as np
from numpy.typing import NDArray

from planner.planning.merging.deployment import DeployedStage, MergeProblem
from planner.planning.merging.schemes import MergeModel, Sharing
from planner.planning.programme.backends import solve
from planner.planning.programme.linear import LinearModel

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


Division = tuple[tuple[int, ...], ...]  # of models: those of one part share a copy


def fewest_refusals(problem: MergeProblem, accepts: Callable[[Sharing], bool]) -> int:
    """The fewest refusals with which anybody can prove that nothing saves more than the best accepted.

    By trying all sharing of models with equal groups and enough memory. Every sharing that would save more has to hold
    something refused; of these the smallest say it all, and of what is refused the smallest, too: as few of the latter
    as hold in all of the former.
    """
    count, groups = len(problem.models), problem.models[0].groups
    assert all(model.groups == groups for model in problem.models)
    divisions = list(_divisions(count))
    merged = [group for group, one in enumerate(groups) if one.mergeable]
    memory = _memory_of_all(problem, divisions, merged)
    refused = np.zeros(memory.shape, dtype=np.bool_)
    for index in np.ndindex(*memory.shape):
        refused[index] = not accepts(
            frozenset(
                frozenset((model, group) for model in part)
                for group, division in zip(merged, index, strict=True)
                for part in divisions[division]
                if len(part) > 1
            )
        )
    finer = np.array([[_is_finer(one, other) for other in divisions] for one in divisions])
    better, least = (_smallest(some, finer) for some in (memory < memory[~refused].min(), refused))
    if not len(better):
        return 0
    holds = finer[least[:, None, :], better[None, :, :]].all(axis=2)
    model = LinearModel()
    columns = [model.add_column(f"refused[{n}]", upper=1, objective=1.0, integer=True) for n in range(len(least))]
    for number, holders in enumerate(holds.T):
        model.add_row(f"better[{number}]", [(columns[at], 1.0) for at in np.flatnonzero(holders)], lower=1)
    return round(solve(model)[0].objective)


def _divisions(count: int) -> Iterator[Division]:
    """Every division of so many models into parts."""
    if not count:
        yield ()
        return
    for before in _divisions(count - 1):
        for at, part in enumerate(before):
            yield (*before[:at], (*part, count - 1), *before[at + 1 :])
        yield (*before, (count - 1,))


def _is_finer(one: Division, other: Division) -> bool:
    return all(any(set(part) <= set(whole) for whole in other) for part in one)


def _memory_of_all(problem: MergeProblem, divisions: list[Division], merged: list[int]) -> NDArray[np.int64]:
    """The least memory of every sharing, with an axis over the divisions of models per group."""
    devices, groups = len(problem.device_bytes), problem.models[0].groups
    assert min(problem.device_bytes) >= sum(model.parameter_bytes for model in problem.models)
    options = [list(ways(model, n, devices, problem.all_stages)) for n, model in enumerate(problem.models)]
    tables = set()
    for chosen in product(*options):
        present = np.zeros((len(problem.models), len(groups), devices), dtype=np.bool_)
        busy = np.zeros(devices)
        for stage in (stage for stages in chosen for stage in stages):
            model = problem.models[stage.model]
            present[stage.model, stage.first : stage.last, list(stage.devices)] = True
            busy[list(stage.devices)] += model.mean_devices * part(model, stage.first, stage.last) / len(stage.devices)
        if busy.max() <= 1 + 1e-9:
            copies = [[sum(int(present[list(p), g].any(axis=0).sum()) for p in d) for d in divisions] for g in merged]
            own = (group for group in range(len(groups)) if group not in merged)
            rest = sum(int(present[:, group].sum()) * groups[group].parameter_bytes for group in own)
            tables.add((rest, tuple(map(tuple, copies))))
    memory = np.full((len(divisions),) * len(merged), np.iinfo(np.int64).max)
    for rest, copies_of in tables:
        total = np.array(rest)
        for group, numbers in zip(merged, copies_of, strict=True):
            total = total[..., None] + np.array(numbers) * groups[group].parameter_bytes
        memory = np.minimum(memory, total)
    return memory


def _smallest(some: NDArray[np.bool_], finer: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The divisions per group of all that is in a set of sharing which holds nothing else of that set."""
    smallest = some.copy()
    for axis in range(some.ndim):
        along, of = np.moveaxis(smallest, axis, 0), np.moveaxis(some, axis, 0)
        for one, other in zip(*np.nonzero(finer), strict=True):
            if one != other:
                along[other] &= ~of[one]
    return np.argwhere(smallest)
