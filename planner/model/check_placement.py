"""Check where the slices of a plan lie: segments, layouts, memory, network cards, from the placement alone."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from planner.model.packing import fits, geometries
from planner.model.placing import Alike, alike, neighbour_grounds, placement_of, pool_of
from planner.model.plan import Placed, Plan, Stage
from planner.model.problem import Problem
from planner.model.segments import kind_of, processes


class Finding(NamedTuple):
    """A constraint that is broken, where, by how much, and in words."""

    constraint: str
    where: str
    amount: float
    text: str


def check_placement(problem: Problem, plan: Plan, tolerance: float) -> Iterator[Finding]:
    """Yield what the placement of a plan breaks, beyond `unknown_slices`; a plan without one is placed first."""
    placement = placement_of(problem, plan)
    devices = list(alike(plan, placement))
    yield from _every_slice_once(plan, placement)
    yield from _enough_devices(problem, devices)
    for some in devices:
        yield from _device(problem, plan, some)
    yield from _cards(problem, plan, devices, tolerance)
    expected = neighbour_grounds(problem, plan)
    if (plan.placement or plan.neighbours) and dict(plan.neighbours) != expected:
        yield Finding("neighbours", "neighbours", 1, f"expected {expected}, got {dict(plan.neighbours)}")


def unknown_slices(plan: Plan) -> Iterator[Finding]:
    """Yield places of stages that a plan does not have or places elsewhere, of none, and of more than it has."""
    homes = plan.homes
    for placed in plan.placement:
        known = (placed.pipeline, placed.stage) in homes
        where = f"pipelines[{placed.pipeline}].stages[{placed.stage}]"
        if not known:
            yield Finding("placement", where, 1, "expected a stage of the plan, got none")
            continue
        if not placed.slots or placed.devices < 1 or placed.device < 0:
            got = f"{len(placed.slots)} slots on {placed.devices} devices from {placed.device} on"
            yield Finding("placement", where, 1, f"expected slots on devices of the cluster, got {got}")
        if (home := homes[placed.pipeline, placed.stage]) != (placed.pipeline, placed.stage):
            text = f"expected the slices of its pool under pipelines[{home[0]}].stages[{home[1]}] alone"
            yield Finding("placement", where, placed.slices, text)
        slices = plan.pipelines[placed.pipeline].stages[placed.stage].slices
        over = placed.first_slice + placed.slices - slices
        if over > 0:
            yield Finding("placement", where, over, f"expected {slices} slices, got {slices + over}")


def _every_slice_once(plan: Plan, placement: Sequence[Placed]) -> Iterator[Finding]:
    runs: defaultdict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    for placed in placement:
        runs[placed.pipeline, placed.stage].append((placed.first_slice, placed.slices))
    for number, position in dict.fromkeys(plan.homes.values()):
        stage = plan.pipelines[number].stages[position]
        expected = missing = twice = 0
        for first, slices in sorted(runs[number, position]):
            missing += max(0, first - expected)
            twice += max(0, expected - first)
            expected = max(expected, first + slices)
        missing += stage.slices - expected
        if missing or twice:
            text = f"expected each of {stage.slices} slices once, got {missing} missing and {twice} more than once"
            yield Finding("placement", f"pipelines[{number}].stages[{position}]", missing + twice, text)


def _enough_devices(problem: Problem, devices: Sequence[Alike]) -> Iterator[Finding]:
    needed: dict[str, int] = {}
    for some in devices:
        needed[some.device] = max(needed.get(some.device, 0), some.first + some.devices)
    for name, most in needed.items():
        count = problem.cluster.device(name).count
        if most > count:
            yield Finding("devices", name, most - count, f"expected at most {count}, got {most}")


def _device(problem: Problem, plan: Plan, some: Alike) -> Iterator[Finding]:
    """Check one of some devices: processes of one stage per segment, a layout, memory, and who may share it."""
    device, where = problem.cluster.device(some.device), f"{some.device}[{some.first}]"
    by_slot: defaultdict[int, list[Placed]] = defaultdict(list)
    for placed in some.held:
        for slot in placed.slots:
            by_slot[slot].append(placed)
    segments, memory_bytes = [], 0
    for slot, sharers in by_slot.items():
        stages = {(one.pipeline, one.stage) for one in sharers}
        stage = _stage(plan, sharers[0])
        together = processes(stage.share)
        if len(stages) > 1 or len(sharers) > together:
            got = ", ".join(f"pipelines[{p}].stages[{s}]" for p, s in sorted(stages))
            text = f"expected {together} slices of one stage on a segment, got {len(sharers)} of {got}"
            yield Finding("placement", f"{where}, slot {slot}", len(sharers), text)
        segments.append((kind_of(stage.share), slot))
        for one in sharers:
            loaded = _stage(plan, one)
            pipeline = plan.pipelines[one.pipeline]
            profile = problem.dnn(pipeline.dnn).variant(pipeline.variant)
            memory_bytes += profile.memory_bytes(loaded.batch, loaded.first_block, loaded.last_block)
    divided = geometries(device, [kind for kind, _ in segments])
    if len(divided) > 1 or not fits(divided[0], segments):
        text = f"expected a layout of {device.name}, got {', '.join(f'{kind} at {slot}' for kind, slot in segments)}"
        yield Finding("layout", where, 1, text)
    if device.memory_bytes is not None and memory_bytes > device.memory_bytes:
        text = f"expected at most {device.memory_bytes} bytes on a device, got {memory_bytes}"
        yield Finding("memory", where, memory_bytes - device.memory_bytes, text)
    sharing = problem.options.device_sharing
    owners = {
        pool_of(sharing, some.device, plan.pipelines[one.pipeline].dnn, one.stage, _stage(plan, one).pool)
        for one in some.held
    }
    if len(owners) > 1:
        got = ", ".join(f"{name} stage {n}" if n >= 0 else f"pool {name}" for _, name, n in sorted(owners))
        text = f"expected one DNN and position, for devices are not shared, got {got}"
        yield Finding("placement", where, len(owners) - 1, text)


def _stage(plan: Plan, placed: Placed) -> Stage:
    return plan.pipelines[placed.pipeline].stages[placed.stage]


def _cards(problem: Problem, plan: Plan, devices: Sequence[Alike], tolerance: float) -> Iterator[Finding]:
    """Check that no server's card is asked to send, or to receive, more than all the time."""
    used: defaultdict[tuple[str, int], list[float]] = defaultdict(lambda: [0.0, 0.0])
    together: defaultdict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    for stage, home in plan.homes.items():
        together[home].append(stage)
    for some in devices:
        per_server = problem.cluster.device(some.device).devices_per_server
        own = [0.0, 0.0]
        for placed in some.held:
            for stage in together[placed.pipeline, placed.stage]:
                for way, load in enumerate(_card_loads(problem, plan, *stage)):
                    own[way] += load * len(placed.slots)
        first, last = some.first // per_server, (some.first + some.devices - 1) // per_server
        for server in dict.fromkeys((first, min(first + 1, last), last)):  # those between are like the second
            begin, end = server * per_server, (server + 1) * per_server
            inside = min(end, some.first + some.devices) - max(begin, some.first)
            for way, load in enumerate(own):
                used[some.device, server][way] += load * inside
    for (name, server), card in used.items():
        for word, load in zip(("send", "receive"), card, strict=True):
            if not load <= 1 + tolerance:
                text = f"expected to {word} at most all the time, got {load:.6g} of it"
                yield Finding("cards", f"{name} server {server}", load - 1, text)


def _card_loads(problem: Problem, plan: Plan, number: int, position: int) -> tuple[float, float]:
    """Return the part of the time that a slice of a stage sends, and receives, at the planned throughput."""
    pipeline = plan.pipelines[number]
    profile = problem.dnn(pipeline.dnn).variant(pipeline.variant)
    loads = [0.0, 0.0]
    for way, sender in enumerate((position, position - 1)):
        if 0 <= sender < len(pipeline.stages) - 1:
            stage, receiver = pipeline.stages[sender], pipeline.stages[sender + 1]
            size_bytes = profile.cut_bytes[stage.last_block - 1]
            wire_us = problem.cluster.network.wire_us(stage.device, receiver.device, size_bytes)
            loads[way] = pipeline.throughput_rps * wire_us * 1e-6 / pipeline.stages[position].slices
    return loads[0], loads[1]
