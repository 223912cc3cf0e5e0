"""A bound that needs no candidates: blocks may run anywhere, each request on a part of every device.

Cuts, transfers, SLOs and whole slices are left out. A block j of a variant v on a segment of kind σ of a device type
takes at least

    t = min over batches b of max(1, latency_us[b][j]) / b          µs of the segment per request

for a stage takes the sum of its blocks (`planner.planning.pipelines.candidates`), however it is cut. With y_{v,j,g,σ}
requests/s of block j on such segments, all blocks of a variant serve what it serves, and y · t of segments lie on the
devices as in the relaxation over candidates (`planner.planning.programme.relaxation`). It has a few columns per block,
so that it is solved where the time is up before candidates are even listed.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from math import inf

from planner.model import DeviceType, Problem
from planner.model.packing import geometries
from planner.model.problem import MINIMISED
from planner.model.segments import Kind, kind_of, processes
from planner.planning.pipelines.terrain import planned_batches
from planner.planning.programme.backends import solve
from planner.planning.programme.linear import LinearModel
from planner.planning.programme.objectives import PlanColumns, set_objective
from planner.planning.programme.pools import add_relaxed_pool, summed

PERFECT_PERCENT = 100.0  # what no accuracy exceeds


def block_bound(problem: Problem) -> float:
    """Return what no plan exceeds, or falls below where the objective is minimised.

    Where energy is minimised only devices at rest count, and where accuracy is maximised it is 100.

    Examples
    --------
    Two blocks of 4 ms on three devices: no plan serves more than 3 · 125 requests/s.

    >>> from planner.model import *
    >>> table = LatencyTable("L4", 1, (1,), ((4000, 4000),), Provenance("measured", "by hand"))
    >>> profile = Profile("toy", (Block(("a",)), Block(("b",))), (1_250_000,), (table,))
    >>> round(block_bound(Problem(Cluster((DeviceType("L4", 3),), Network(10)), (Dnn("toy", 20_000, (profile,)),))), 3)
    375.0
    """
    if problem.options.objective == "most_accurate":
        return PERFECT_PERCENT
    model = LinearModel()
    types = problem.cluster.device_types
    throughput = [model.add_column(f"throughput[{dnn.name}]") for dnn in problem.dnns]
    used = [model.add_column(f"used[{device.name}]", upper=device.count) for device in types]
    segments: list[defaultdict[Kind, list[tuple[int, float]]]] = [defaultdict(list) for _ in types]
    per_device = _segments_per_device(types)
    for number, dnn in enumerate(problem.dnns):
        rates = []
        for variant in range(len(dnn.variants)):
            rate = model.add_column(f"rate[{dnn.name}/{variant}]")
            rates.append((rate, -1.0))
            for block, places in enumerate(_places(problem, number, variant)):
                columns = []
                for (index, kind), segment_s in _undominated(places, per_device).items():
                    column = model.add_column(f"block[{dnn.name}/{variant},{block},{types[index].name},{kind}]")
                    columns.append((column, -1.0))
                    segments[index][kind].append((column, segment_s))
                model.add_row(f"block[{dnn.name}/{variant},{block}]", [(rate, 1.0), *columns], upper=0.0)
        model.add_row(f"throughput[{dnn.name}]", [(throughput[number], 1.0), *rates], upper=0.0)
    for index, device in enumerate(types):
        terms = (term for pool in add_relaxed_pool(model, device, segments[index]) for term in pool.devices)
        model.add_row(f"devices[{device.name}]", [*summed(terms), (used[index], -1.0)], upper=0.0)
    set_objective(model, problem, PlanColumns(throughput, used, [], []))
    solution, _ = solve(model, "highs")
    unknown = 0.0 if problem.options.objective in MINIMISED else inf
    return solution.objective if solution.status == "optimal" else unknown


def _segments_per_device(types: Sequence[DeviceType]) -> dict[tuple[int, Kind], int]:
    """Return how many segments of a kind fill a device of a type, where only the part of it that they fill counts."""
    return {
        (index, kind): geometry.slots // width
        for index, device in enumerate(types)
        for geometry in geometries(device, map(kind_of, device.offers))
        if geometry.fills_alone
        for kind, width in zip(geometry.kinds, geometry.widths, strict=True)
    }


def _undominated(
    places: Mapping[tuple[int, Kind], float], per_device: Mapping[tuple[int, Kind], int]
) -> dict[tuple[int, Kind], float]:
    """Leave out places where a request takes more of a device than on other segments of it."""
    least: dict[int, float] = {}
    for place, segment_s in places.items():
        if place in per_device:
            least[place[0]] = min(segment_s / per_device[place], least.get(place[0], inf))
    return {
        place: segment_s
        for place, segment_s in places.items()
        if place not in per_device or segment_s / per_device[place] <= least[place[0]]
    }


def _places(problem: Problem, number: int, variant: int) -> list[dict[tuple[int, Kind], float]]:
    """Return for every block of a variant where it can run, and for how many seconds of a segment per request."""
    profile = problem.dnns[number].variants[variant]
    found: list[dict[tuple[int, Kind], float]] = [{} for _ in profile.blocks]
    for index, device in enumerate(problem.cluster.device_types):
        for share in device.offers:
            if device.count == 0 or not profile.has(device.name, share):
                continue
            table = profile.table(device.name, share)
            for batch in planned_batches(profile):
                if batch > table.batches[-1]:
                    continue
                for block, latency_us in enumerate(table.block_latency_us(batch)):
                    place = index, kind_of(share)
                    segment_s = float(max(1, latency_us)) / batch / processes(share) / 1e6
                    found[block][place] = min(segment_s, found[block].get(place, segment_s))
    return found
