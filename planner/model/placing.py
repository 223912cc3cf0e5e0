"""Where slices lie: from the pools of a plan to segments of devices, and back.

Pools that may share devices are placed together: under ``device_sharing`` "own" those of one position of one DNN, under
"shared" all of a type. Their segments go to as few devices as `planner.model.packing` knows, or to given layouts; the
stages are laid down one after the other, so that the slices of a DNN lie side by side.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from planner.model.cluster import DeviceType
from planner.model.packing import Geometry, Layout, arranged, geometries, packed, sums_decide
from planner.model.plan import Pipeline, Placed, Plan, Stage, homes
from planner.model.problem import DeviceSharing, Problem
from planner.model.segments import Kind, kind_of, processes

Pool = tuple[str, str, int]  # device type, and DNN and position where these do not share devices
Layouts = Mapping[Kind, int]  # numbers of segments of one device


@dataclass(frozen=True)
class Location:
    """Where one slice lies: ``number`` of the device among those of its type, server, and first slot of the segment."""

    pipeline: int
    stage: int
    slice: int
    device: str
    number: int
    server: int
    slot: int


def pool_of(sharing: DeviceSharing, device: str, dnn: str, position: int, named: str | None = None) -> Pool:
    """Return the pool whose slices may lie on a device with those of a stage; ``named`` is the pool that it names.

    >>> pool_of("own", "L4", "resnet", 1), pool_of("shared", "L4", "resnet", 1), pool_of("own", "L4", "resnet", 1, "a")
    (('L4', 'resnet', 1), ('L4', '', 0), ('L4', 'a', -1))
    """
    if sharing == "shared":
        return device, "", 0
    return (device, dnn, position) if named is None else (device, named, -1)


def place(
    problem: Problem, pipelines: Sequence[Pipeline], layouts: Mapping[Pool, Sequence[Layouts]] | None = None
) -> tuple[Placed, ...]:
    """Return where the slices of pipelines lie.

    Parameters
    ----------
    layouts
        The devices of a pool by the segments that they have; pools that are not in it are packed here.

    Examples
    --------
    Three halves and a third fit on two devices:

    >>> from planner.model import *
    >>> provenance = Provenance("measured", "by hand")
    >>> tables = tuple(LatencyTable("L4", k, (1,), ((9,),), provenance) for k in (2, 3))
    >>> profile = Profile("toy", (Block(("a",)),), (), tables)
    >>> cluster = Cluster((DeviceType("L4", 2, shares=(2, 3)),), Network(10))
    >>> problem = Problem(cluster, (Dnn("toy", 20_000, (profile,)),))
    >>> stages = [Stage(0, 1, "L4", k, slices, 1, 9, 0.0, 1.0) for k, slices in ((2, 3), (3, 1))]
    >>> for placed in place(problem, [Pipeline("toy", "toy", 1.0, 0.0, 0.0, (stage,)) for stage in stages]):
    ...     print(placed.pipeline, placed.slices, "on device", placed.device, "at", placed.slots)
    0 2 on device 0 at (0, 3)
    0 1 on device 1 at (0,)
    1 1 on device 1 at (3,)
    """
    members: defaultdict[Pool, list[tuple[int, int, Stage]]] = defaultdict(list)
    for number, position in dict.fromkeys(homes(pipelines).values()):
        pipeline = pipelines[number]
        stage = pipeline.stages[position]
        pool = pool_of(problem.options.device_sharing, stage.device, pipeline.dnn, position, stage.pool)
        members[pool].append((number, position, stage))
    used: Counter[str] = Counter()
    found: list[Placed] = []
    for pool, stages in members.items():
        device = problem.cluster.device(pool[0])
        segments: Counter[Kind] = Counter()
        for _, _, stage in stages:
            segments[kind_of(stage.share)] += -(-stage.slices // processes(stage.share))
        given = None if layouts is None else layouts.get(pool)
        free, devices = _free_segments(device, segments, given, used[pool[0]])
        used[pool[0]] += devices
        for number, position, stage in stages:
            found += _laid_down(number, position, stage, free)
    return tuple(sorted(found, key=lambda one: (one.pipeline, one.stage, one.first_slice)))


@dataclass
class _Free:
    """The segments of one kind that are still free: runs of (first device, devices, first slots on each), in order."""

    runs: deque[tuple[int, int, tuple[int, ...]]]

    def take(self, segments: int) -> Iterator[tuple[int, int, tuple[int, ...]]]:
        """Yield the runs of the next so many segments; those on consecutive devices with equal slots are one."""
        held: tuple[int, int, tuple[int, ...]] | None = None
        while segments:
            device, devices, slots = self.runs.popleft()
            full = min(devices, segments // len(slots))
            if full:
                taken = device, full, slots
                segments -= full * len(slots)
                if full < devices:
                    self.runs.appendleft((device + full, devices - full, slots))
            else:  # a part of one device
                taken = device, 1, slots[:segments]
                if devices > 1:
                    self.runs.appendleft((device + 1, devices - 1, slots))
                self.runs.appendleft((device, 1, slots[segments:]))
                segments = 0
            if held and held[2] == taken[2] and held[0] + held[1] == taken[0]:
                held = held[0], held[1] + taken[1], held[2]
            else:
                if held:
                    yield held
                held = taken
        if held:
            yield held


def _free_segments(
    device: DeviceType, segments: Mapping[Kind, int], given: Sequence[Layouts] | None, first: int
) -> tuple[dict[Kind, _Free], int]:
    """Return the segments of each kind, device by device, and how many devices they take."""
    free: defaultdict[Kind, _Free] = defaultdict(lambda: _Free(deque()))
    number = first
    for geometry in geometries(device, segments):
        chosen = chosen_layouts(geometry, segments, given)
        chosen.sort(key=lambda run: (-sum(w * n for w, n in zip(geometry.widths, run[0], strict=True)), run[0]))
        for layout, devices in chosen:
            slots: defaultdict[int, list[int]] = defaultdict(list)
            for kind, slot in arranged(geometry, layout):
                slots[kind].append(slot)
            for kind, own in slots.items():
                free[geometry.kinds[kind]].runs.append((number, devices, tuple(sorted(own))))
            number += devices
    return free, number - first


def chosen_layouts(
    geometry: Geometry, segments: Mapping[Kind, int], given: Sequence[Layouts] | None
) -> list[tuple[Layout, int]]:
    """Return the layouts of as many devices as the segments take, and how many devices have each.

    They are those ``given``, less what nothing needs, where sums of fractions do not decide; else they are packed.
    """
    if given is None or sums_decide(geometry):
        return packed(geometry, segments)
    of_devices = [tuple(one.get(kind, 0) for kind in geometry.kinds) for one in given]
    trimmed = _trimmed([one for one in of_devices if any(one)], [segments[kind] for kind in geometry.kinds])
    return list(Counter(trimmed).items())


def devices_for(device: DeviceType, segments: Mapping[Kind, int], given: Sequence[Layouts] | None = None) -> int:
    """Return how many devices segments of one pool take, as `place` lays them.

    >>> devices_for(DeviceType("L4", 9, shares=(1, 2, 3)), {2: 3, 3: 2})
    3
    """
    total = 0
    for geometry in geometries(device, segments):
        if sums_decide(geometry):
            filled = sum(w * segments[kind] for kind, w in zip(geometry.kinds, geometry.widths, strict=True))
            total += -(-filled // geometry.slots)
        else:
            total += sum(devices for _, devices in chosen_layouts(geometry, segments, given))
    return total


def _trimmed(layouts: list[Layout], counts: list[int]) -> list[Layout]:
    """Take away segments that nothing needs, and devices that are then empty."""
    left, kept = list(counts), []
    for layout in sorted(layouts, key=lambda one: -sum(min(n, most) for n, most in zip(left, one, strict=True))):
        taken = tuple(min(n, most) for n, most in zip(left, layout, strict=True))
        left = [n - one for n, one in zip(left, taken, strict=True)]
        if any(taken):
            kept.append(taken)
    return kept


def _laid_down(number: int, position: int, stage: Stage, free: Mapping[Kind, _Free]) -> Iterator[Placed]:
    """Yield a stage's slices on the next free segments, devices on which they lie alike in one."""
    together = processes(stage.share)
    segments = -(-stage.slices // together)
    missing = segments * together - stage.slices  # processes of the last segment
    first_slice = 0
    for device, devices, slots in free[kind_of(stage.share)].take(segments):
        each = tuple(slot for slot in slots for _ in range(together))
        whole = devices
        if missing and first_slice + devices * len(each) > stage.slices:
            whole -= 1
        if whole:
            yield Placed(number, position, first_slice, device, whole, each)
        if whole < devices:
            first = first_slice + whole * len(each)
            yield Placed(number, position, first, device + whole, 1, each[: len(each) - missing])
        first_slice += devices * len(each)


def placement_of(problem: Problem, plan: Plan) -> tuple[Placed, ...]:
    """Return where the slices of a plan lie: as it says, or, where it does not, as `place` puts them."""
    return plan.placement or place(problem, plan.pipelines)


def locations(problem: Problem, plan: Plan) -> Iterator[Location]:
    """Yield where every slice of every stage of a plan lies, in plan order; those of a pool for each stage of it."""
    placed_at: defaultdict[tuple[int, int], list[Placed]] = defaultdict(list)
    for placed in placement_of(problem, plan):
        placed_at[placed.pipeline, placed.stage].append(placed)
    for here, home in plan.homes.items():
        yield from _located(problem, plan, here, placed_at[home])


def _located(problem: Problem, plan: Plan, here: tuple[int, int], found: Sequence[Placed]) -> Iterator[Location]:
    stage = plan.pipelines[here[0]].stages[here[1]]
    for placed in found:
        per_server = problem.cluster.device(stage.device).devices_per_server
        for offset in range(placed.devices):
            number = placed.device + offset
            for index, slot in enumerate(placed.slots):
                yield Location(
                    *here,
                    placed.first_slice + offset * len(placed.slots) + index,
                    stage.device,
                    number,
                    number // per_server,
                    slot,
                )


@dataclass(frozen=True)
class Alike:
    """Devices of a type, from number ``first`` on, that hold the same: the placed slices that cover them."""

    device: str
    first: int
    devices: int
    held: tuple[Placed, ...]


def alike(plan: Plan, placement: Sequence[Placed]) -> Iterator[Alike]:
    """Yield the devices in use, those that hold the same together, however many they are.

    >>> from planner.model import *
    >>> stage = Stage(0, 1, "L4", 2, 7, 1, 9, 0.0, 1.0)
    >>> plan = Plan("np", "max_min_throughput", "optimal", 1, 1, "", "", 0, "", {},
    ...             (Pipeline("toy", "toy", 1.0, 0.0, 0.0, (stage,)),))
    >>> for some in alike(plan, [Placed(0, 0, 0, 0, 3, (0, 1)), Placed(0, 0, 6, 3, 1, (0,))]):
    ...     print(some.device, some.first, some.devices, [placed.slots for placed in some.held])
    L4 0 3 [(0, 1)]
    L4 3 1 [(0,)]
    """
    by_type: defaultdict[str, list[Placed]] = defaultdict(list)
    for placed in placement:
        by_type[plan.pipelines[placed.pipeline].stages[placed.stage].device].append(placed)
    for device, found in by_type.items():
        begin: defaultdict[int, list[Placed]] = defaultdict(list)
        end: defaultdict[int, list[Placed]] = defaultdict(list)
        for placed in found:
            begin[placed.device].append(placed)
            end[placed.device + placed.devices].append(placed)
        held: list[Placed] = []
        for number, following in pairwise(sorted({*begin, *end})):
            held = [placed for placed in held if placed not in end[number]] + begin[number]
            if held:
                yield Alike(device, number, following - number, tuple(held))


def devices_used(problem: Problem, plan: Plan) -> Counter[str]:
    """Return the devices of each type on which slices of a plan lie."""
    used: Counter[str] = Counter()
    for some in alike(plan, placement_of(problem, plan)):
        used[some.device] += some.devices
    return used


def neighbour_grounds(problem: Problem, plan: Plan) -> dict[str, str]:
    """Return, per device type with unlike stages on one device, on what ground their latencies stand.

    Stages are unlike that run other blocks or another model. A type that only *assumes* counts as *measured* where all
    tables were measured beside every other model on their devices.
    """
    grounds: dict[str, str] = {}
    for some in alike(plan, placement_of(problem, plan)):
        stages = {(placed.pipeline, placed.stage) for placed in some.held}
        if len({_loaded(plan, *stage) for stage in stages}) == 1:
            continue
        ground = problem.cluster.device(some.device).ground
        if ground == "assumed" and all(_measured_beside(problem, plan, stage, stages) for stage in stages):
            ground = "measured"
        grounds[some.device] = "assumed" if "assumed" in (ground, grounds.get(some.device)) else ground
    return dict(sorted(grounds.items()))


def _loaded(plan: Plan, pipeline: int, stage: int) -> tuple[str, int, int]:
    """Return what a slice has loaded: a model, and its blocks."""
    found = plan.pipelines[pipeline].stages[stage]
    return plan.pipelines[pipeline].variant, found.first_block, found.last_block


def _measured_beside(problem: Problem, plan: Plan, stage: tuple[int, int], others: set[tuple[int, int]]) -> bool:
    """Tell whether a stage's latencies were measured beside the models of the other stages of a device."""
    pipeline = plan.pipelines[stage[0]]
    at = pipeline.stages[stage[1]]
    table = problem.dnn(pipeline.dnn).variant(pipeline.variant).table(at.device, at.share)
    return {plan.pipelines[other].variant for other, _ in others - {stage}} <= set(table.beside)
