"""DART-r, which replicates one small pipeline (PPipe, ATC'25, section 7).

It gives each DNN the devices that NP gave it and an equal share, rounded down, of what NP left over. On two
device types it replicates the best plan of one device of each (at most two stages) as often as the smaller count, and
adds the best one-stage plan of one device on the excess of the larger.

Deviation: with more than two types they are paired by what one device of each serves alone: the fastest with the
slowest, the second fastest with the second slowest, and so on; a type in the middle is on its own. Two types give the
published rule.
"""

from collections.abc import Mapping, Sequence

from planner.model import InputError, Plan, Problem
from planner.planning.baselines.unpartitioned import certain, expect_throughput, whole_devices_only
from planner.planning.pipelines.candidates import Candidate, enumerate_candidates
from planner.planning.pipelines.sizing import Sized, Sizing

DART_STAGES = 2
Allocation = Mapping[str, Mapping[str, int]]  # DNN -> device type -> whole devices


def size_dart_r(problem: Problem, np_devices: Allocation) -> Sizing:
    """Return DART-r's plan; X0 must be known.

    Parameters
    ----------
    problem
        What to plan.
    np_devices
        The whole devices of each type that NP gave each DNN.
    """
    expect_throughput(problem, "dart-r")
    if problem.options.device_sharing == "shared":
        raise InputError("dart-r replicates pipelines on whole devices; use device_sharing own, or another scheduler")
    whole = whole_devices_only(problem, min(DART_STAGES, problem.options.max_stages))
    pipelines: list[Sized] = []
    for number, counts in enumerate(_shares_of_cluster(problem, np_devices)):
        candidates = enumerate_candidates(whole, number, problem.dnns[number].np_throughput_rps or 0.0)
        for first, second in _pairs(candidates, len(counts)):
            pipelines += _replicate(candidates, counts, first, second)
    return certain(problem, tuple(pipelines))


def devices_of(plan: Plan) -> Allocation:
    """Return the whole devices of each type that an NP plan gives each DNN: each slice has one."""
    found: dict[str, dict[str, int]] = {}
    for pipeline in plan.pipelines:
        counts = found.setdefault(pipeline.dnn, {})
        for stage in pipeline.stages:
            counts[stage.device] = counts.get(stage.device, 0) + stage.slices
    return found


def _shares_of_cluster(problem: Problem, np_devices: Allocation) -> list[tuple[int, ...]]:
    """Return the devices per type that each DNN has: those that NP gave it, and its share of the others."""
    given = [
        tuple(np_devices.get(dnn.name, {}).get(device.name, 0) for device in problem.cluster.device_types)
        for dnn in problem.dnns
    ]
    taken = [sum(column) for column in zip(*given, strict=True)]
    spare = [
        (device.count - count) // len(problem.dnns)
        for device, count in zip(problem.cluster.device_types, taken, strict=True)
    ]
    return [tuple(count + more for count, more in zip(counts, spare, strict=True)) for counts in given]


def _pairs(candidates: Sequence[Candidate], types: int) -> list[tuple[int, int]]:
    """Pair device types from the two ends of their order by speed; a type left in the middle pairs with itself."""
    order = sorted(range(types), key=lambda device: -_rps(_best(candidates, (device,))))
    return [(order[rank], order[-1 - rank]) for rank in range((types + 1) // 2)]


def _replicate(candidates: Sequence[Candidate], counts: tuple[int, ...], first: int, second: int) -> list[Sized]:
    """Return the best plan of a pair as often as both types allow, and single devices for the rest."""
    alone = {device: _best(candidates, (device,)) for device in {first, second}}
    together = max(
        (_best(candidates, order) for order in ((first, second), (second, first)) if first != second),
        key=_rps,
        default=None,
    )
    pairs = min(counts[first], counts[second]) if _rps(together) > sum(map(_rps, alone.values())) else 0
    found = [Sized(together, (pairs, pairs))] if together is not None and pairs else []
    for device, candidate in alone.items():
        if candidate is not None and counts[device] > pairs:
            found.append(Sized(candidate, (counts[device] - pairs,)))
    return found


def _best(candidates: Sequence[Candidate], devices: tuple[int, ...]) -> Candidate | None:
    """Return the candidate on this sequence of device types that serves the most with a slice per stage."""
    return max((candidate for candidate in candidates if candidate.devices == devices), key=_rps, default=None)


def _rps(candidate: Candidate | None) -> float:
    return 0.0 if candidate is None else min(candidate.slice_rps)
