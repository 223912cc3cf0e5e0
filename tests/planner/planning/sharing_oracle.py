"""Optima of small problems, of any objective, by trying everything: every pipeline, every number of segments.

Written from the rules of planning without its code: what a slice sustains and takes is worked out here, and segments
are laid on devices slot by slot.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import wraps
from itertools import combinations, product
from math import inf, lcm
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import linprog

from planner.model import DeviceType, Dnn, LatencyTable, Problem, Profile

Kind = int | str
Held = Mapping[tuple[int, int, Kind], int]  # (position, type, kind of segment) -> segments
Use = tuple[tuple[tuple[int, int, Kind], int], ...]  # the same

# Widths and first slots of MIG's profiles (NVIDIA's user guide), those of the A100 on 8 slots.
A30 = {"1g.6gb": (1, (0, 1, 2, 3)), "2g.12gb": (2, (0, 2)), "4g.24gb": (4, (0,))}
A100 = {
    "1g.10gb": (1, (0, 1, 2, 3, 4, 5, 6)), "1g.20gb": (2, (0, 2, 4, 6)), "2g.20gb": (2, (0, 2, 4)),
    "3g.40gb": (4, (0, 4)), "4g.40gb": (4, (0,)), "7g.80gb": (8, (0,)),
}  # fmt: skip
SLICE_BYTES = {"a30-24gb": 5.8 * 2**30, "a100-80gb": 9.5 * 2**30}
MOST_PLANS, MOST_CHOICES = 20_000, 200_000  # of one DNN, and of one plan per DNN: seconds


class TooMany(Exception):
    """The problem is too large for trying everything."""


# ---- what fits on a device


def by_device(function: Callable[..., Any]) -> Callable[..., Any]:
    """Remember answers by device, which layouts make unhashable, and other arguments."""
    known: dict[tuple[object, ...], tuple[DeviceType, Any]] = {}

    @wraps(function)
    def answer(device: DeviceType, *arguments: object) -> Any:
        key = id(device), *arguments
        if key not in known:
            known[key] = device, function(device, *arguments)  # a device that is kept keeps its id
        return known[key][1]

    return answer


def geometry(device: DeviceType, kind: Kind) -> tuple[int, int, tuple[int, ...]]:
    """Return slots of a device, width of a segment, and the slots at which it may begin."""
    if isinstance(kind, int):
        slots = lcm(*device.shares)
        return slots, slots // kind, tuple(range(slots - slots // kind + 1))
    if device.mig:
        width, starts = (A30 if device.mig == "a30-24gb" else A100)[kind]
        return (4 if device.mig == "a30-24gb" else 8), width, starts
    if device.cores:
        width = int(kind.split()[0])
        return device.cores, width, tuple(range(device.cores - width + 1))
    assert device.slots is not None
    own = next(segment for segment in device.segments if segment.name == kind)
    return device.slots, own.width, own.starts or tuple(range(device.slots - own.width + 1))


def segment_bytes(device: DeviceType, kind: Kind) -> float:
    """Return the memory of a segment, infinite where nothing limits it."""
    slots, width, _ = geometry(device, kind)
    if device.mig:
        return int(width * SLICE_BYTES[device.mig])
    stated = [segment.memory_bytes for segment in device.segments if segment.name == kind]
    if stated and stated[0] is not None:
        return stated[0]
    return inf if device.memory_bytes is None else device.memory_bytes * width / slots


def fewest(device: DeviceType, segments: Mapping[Kind, int]) -> int:
    """Return the fewest devices that hold so many segments; a device has 1/k or named ones, not both."""
    total = 0
    for named in (False, True):
        mine = tuple(sorted((kind, n) for kind, n in segments.items() if isinstance(kind, str) == named and n))
        total += _fewest(device, mine) if mine else 0
    return total


@by_device
def _fewest(device: DeviceType, segments: tuple[tuple[Kind, int], ...]) -> int:
    return next(count for count in range(1, 99) if _fits(device, segments, count))


@by_device
def _by_device(device: DeviceType, kinds: tuple[Kind, ...]) -> frozenset[tuple[int, ...]]:
    """Return every multiset of segments that one device holds, by putting each at each slot."""
    found: set[tuple[int, ...]] = set()
    seen: set[tuple[tuple[int, ...], frozenset[int]]] = set()
    shapes = [geometry(device, kind) for kind in kinds]
    # Where all may begin anywhere, none needs a gap before it.
    anywhere = all(starts == tuple(range(slots - width + 1)) for slots, width, starts in shapes)
    named = [kind for kind in kinds if isinstance(kind, str)]
    over = bool(named) and device.memory_bytes is not None

    def allowed(held: tuple[int, ...]) -> bool:
        if over and sum(n * segment_bytes(device, k) for n, k in zip(held, kinds, strict=True)) > device.memory_bytes:  # type: ignore[operator]
            return False
        counts = dict(zip(kinds, held, strict=True))
        return not (named and device.layouts) or any(
            all(n <= layout.get(str(kind), 0) for kind, n in counts.items()) for layout in device.layouts
        )

    def put(held: tuple[int, ...], taken: frozenset[int], first: int) -> None:
        if (held, taken) in seen:
            return
        seen.add((held, taken))
        found.add(held)
        for number in range(first, len(kinds)):
            _, width, starts = shapes[number]
            more = (*held[:number], held[number] + 1, *held[number + 1 :])
            if allowed(more):
                for start in starts:
                    slots = frozenset(range(start, start + width))
                    if not slots & taken:
                        put(more, taken | slots, number)
                        if anywhere:
                            break

    put((0,) * len(kinds), frozenset(), 0)
    return frozenset(found)


@by_device
def _fits(device: DeviceType, segments: tuple[tuple[Kind, int], ...], count: int) -> bool:
    if not any(n for _, n in segments):
        return True
    if count == 0:
        return False
    layouts = _by_device(device, tuple(kind for kind, _ in segments))
    return any(
        _fits(
            device, tuple((kind, max(0, n - less)) for (kind, n), less in zip(segments, held, strict=True)), count - 1
        )
        for held in layouts
        if any(held)
    )


@by_device
def _most(device: DeviceType, kind: Kind) -> int:
    return max(held for (held,) in _by_device(device, (kind,)))


# ---- pipelines


class Piece(NamedTuple):
    """A pipeline; per stage (type, kind of segment), what one segment serves, and the megabytes that lie on it."""

    places: tuple[tuple[int, Kind], ...]
    segment_rps: tuple[float, ...]
    megabytes: tuple[float, ...]
    joules: float  # of a request, beyond those of idle devices
    accuracy: float

    def sizes(self, problem: Problem) -> Iterator[tuple[int, ...]]:
        """Yield the numbers of segments per stage of which none can be taken away."""
        types = problem.cluster.device_types
        most = [types[device].count * _most(types[device], kind) for device, kind in self.places]
        numbers = [1] * len(most)
        while all(n <= limit for n, limit in zip(numbers, most, strict=True)):
            rps = min(x * n for x, n in zip(self.segment_rps, numbers, strict=True))
            yield tuple(numbers)
            numbers = [n + (x * n <= rps * (1 + 1e-12)) for x, n in zip(self.segment_rps, numbers, strict=True)]


def pieces(problem: Problem, dnn: Dnn) -> list[Piece]:
    """Return the pipelines of a DNN that are in time, without those that another on equal segments makes needless."""
    found: defaultdict[tuple[tuple[int, Kind], ...], list[Piece]] = defaultdict(list)
    for piece in _every_piece(problem, dnn):
        found[piece.places].append(piece)
    best = []
    for alike in found.values():
        merits = np.array([_merits(problem, piece) for piece in alike])
        for number, own in enumerate(merits):
            reached = (merits >= own).all(axis=1)
            better = reached & (merits > own).any(axis=1)
            if not better.any() and not reached[:number].any():
                best.append(alike[number])
    return best


def _merits(problem: Problem, piece: Piece) -> tuple[float, ...]:
    """Return what may make a pipeline better than another on equal segments: more of any of it, less of none."""
    objective = problem.options.objective
    held = piece.megabytes if objective == "least_memory" else ()
    joules = piece.joules if objective == "least_energy" else 0.0
    return (*piece.segment_rps, *(-megabytes for megabytes in held), -joules, piece.accuracy)


def _every_piece(problem: Problem, dnn: Dnn) -> Iterator[Piece]:
    types, options = problem.cluster.device_types, problem.options
    budget_us = dnn.slo_us - round(options.slack_fraction * dnn.slo_us)
    x0_rps = dnn.np_throughput_rps or 0.0
    for profile in dnn.variants:
        places = [
            (index, share)
            for index, device in enumerate(types)
            for share in device.offers
            if device.count and profile.has(device.name, share)
        ]
        batches = sorted({1}.union(*(table.batches for table in profile.tables)))
        for stages in range(1, min(options.max_stages, len(profile.blocks)) + 1):
            for inner in combinations(range(1, len(profile.blocks)), stages - 1):
                for sequence, batch in product(product(places, repeat=stages), batches):
                    building_us = 0.0
                    if batch > 1 and options.batch_building_factor:
                        building_us = options.batch_building_factor * (batch - 1) / x0_rps * 1e6 if x0_rps else inf
                    cuts = (0, *inner, len(profile.blocks))
                    piece = _piece(problem, dnn, profile, cuts, sequence, batch, budget_us - building_us)
                    if piece is not None:
                        yield piece


def _piece(
    problem: Problem, dnn: Dnn, profile: Profile, cuts: tuple[int, ...],
    sequence: Sequence[tuple[int, Kind]], batch: int, left_us: float,
) -> Piece | None:  # fmt: skip
    types, network = problem.cluster.device_types, problem.cluster.network
    rates, megabytes, joules = [], [], 0.0
    for stage, (index, share) in enumerate(sequence):
        device, first, last = types[index], cuts[stage], cuts[stage + 1]
        table = profile.table(device.name, share)
        if batch > table.batches[-1]:
            return None
        together = int(share.partition("/")[2] or 1) if isinstance(share, str) else 1
        kind = share.partition("/")[0] if isinstance(share, str) else share
        slots, width, _ = geometry(device, kind)
        part = width / slots / together
        latency_us = sum(max(1, us) for us in _row(table, batch)[first:last])
        held = sum(block.parameter_bytes for block in profile.blocks[first:last])
        held += batch * max(block.activation_bytes for block in profile.blocks[first:last])
        if held * together > segment_bytes(device, kind):
            return None
        left_us -= latency_us
        on_card = device.devices_per_server
        if problem.options.card_sharing == "larger" and stage + 1 < len(sequence):
            on_card = max(on_card, types[sequence[stage + 1][0]].devices_per_server)
        slice_rps = batch / latency_us * 1e6
        for sender in (stage - 1, stage):
            if 0 <= sender < len(sequence) - 1:
                link = network.link(types[sequence[sender][0]].name, types[sequence[sender + 1][0]].name)
                wire_us = profile.cut_bytes[cuts[sender + 1] - 1] * 8e-3 / link.bandwidth_gbps
                slice_rps = min(slice_rps, 1e6 / (wire_us * on_card / part) if wire_us else inf)
                if sender == stage:
                    left_us -= batch * wire_us + link.hop_latency_us
        if device.busy_watts is not None and device.idle_watts is not None:
            joules += (device.busy_watts - device.idle_watts) * part * latency_us * 1e-6 / batch
        rates.append(slice_rps * together)
        megabytes.append(held * together / 1e6)
    if left_us < 0:
        return None
    kinds = (share.partition("/")[0] if isinstance(share, str) else share for _, share in sequence)
    places = tuple(zip((index for index, _ in sequence), kinds, strict=True))
    return Piece(places, tuple(rates), tuple(megabytes), joules, dnn.accuracy.get(profile.name, 0.0))


def _row(table: LatencyTable, batch: int) -> Sequence[float]:
    """Return the latencies at a batch size: those profiled, else on the line between, rounded up."""
    if batch in table.batches or batch < table.batches[0]:
        return table.latency_us[table.batches.index(batch) if batch in table.batches else 0]
    above = next(number for number, size in enumerate(table.batches) if size > batch)
    low, high = table.batches[above - 1], table.batches[above]
    pairs = zip(table.latency_us[above - 1], table.latency_us[above], strict=True)
    return [-((one * (high - batch) + other * (batch - low)) // -(high - low)) for one, other in pairs]


# ---- plans

Taken = tuple[tuple[Piece, float], ...]  # pipelines with what they serve


def plans(problem: Problem, number: int) -> dict[Use, float]:
    """Return, by use of segments, the best that a DNN gets of it.

    That is the largest throughput where throughput is the objective; else the least (watts, megabytes, minus accuracy
    times rate) at which its rate is served, 0 for objectives that look at devices alone.
    """
    dnn, objective = problem.dnns[number], problem.options.objective
    own = pieces(problem, dnn)
    keys = list(dict.fromkeys((s, *place) for piece in own for s, place in enumerate(piece.places)))
    # Where work counts, every choice of pipelines is looked at; where it does not, of those that use the same segments
    # the one that serves most, or those that serve more or hold less than others.
    work = objective in ("least_energy", "most_accurate") or problem.options.min_accuracy is not None
    enough_rps = inf if work or dnn.rate_rps is None or objective.startswith("max") else dnn.rate_rps
    states: dict[tuple[int, ...], list[tuple[float, float, Taken]]] = {(0,) * len(keys): [(0.0, 0.0, ())]}
    for piece in own:
        at = [keys.index((s, *place)) for s, place in enumerate(piece.places)]
        before = [(use, list(contents)) for use, contents in states.items()]
        for segments in piece.sizes(problem):
            rps = min(x * n for x, n in zip(piece.segment_rps, segments, strict=True))
            megabytes = sum(m * n for m, n in zip(piece.megabytes, segments, strict=True))
            megabytes = megabytes if objective == "least_memory" else 0.0
            for use, contents in before:
                more = list(use)
                for index, n in zip(at, segments, strict=True):
                    more[index] += n
                if _devices(problem, [dict(zip(keys, more, strict=True))]) is None:
                    continue
                for served, held, taken in contents:
                    if served < enough_rps:
                        content = served + rps, held + megabytes, (*taken, (piece, rps)) if work else ()
                        _keep(states.setdefault(tuple(more), []), content, work=work)
            if sum(map(len, states.values())) > MOST_PLANS:
                raise TooMany
    best: dict[Use, float] = {}
    for use, contents in states.items():
        worths = (_worth(problem, dnn, *content) for content in contents)
        known = [worth for worth in worths if worth is not None]
        if known:
            used = tuple((key, n) for key, n in zip(keys, use, strict=True) if n)
            best[used] = max(known) if objective.startswith("max") else min(known)
    return best


def _keep(known: list[tuple[float, float, Taken]], content: tuple[float, float, Taken], *, work: bool) -> None:
    if not work:
        if any(rps >= content[0] and held <= content[1] for rps, held, _ in known):
            return
        known[:] = [one for one in known if one[0] > content[0] or one[1] < content[1]]
    known.append(content)


def _worth(problem: Problem, dnn: Dnn, total_rps: float, megabytes: float, taken: Taken) -> float | None:
    """Return what pipelines of a DNN at their throughputs are worth; None where they do not serve it as asked."""
    objective = problem.options.objective
    if objective.startswith("max"):
        return total_rps
    assert dnn.rate_rps is not None
    if total_rps < dnn.rate_rps * (1 - 1e-9):
        return None
    least, accuracy = problem.options.min_accuracy, 0.0
    if least is not None or objective == "most_accurate":
        accuracy = -_filled(dnn.rate_rps, [(-piece.accuracy, rps) for piece, rps in taken]) / dnn.rate_rps
        if least is not None and accuracy < least - 1e-9:
            return None
    if objective == "least_energy" and least is not None:
        return _least_watts(dnn.rate_rps, taken, least)
    if objective == "least_energy":
        return _filled(dnn.rate_rps, [(piece.joules, rps) for piece, rps in taken])
    if objective == "least_memory":
        return megabytes
    return -accuracy * dnn.rate_rps if objective == "most_accurate" else 0.0


def _least_watts(rate_rps: float, taken: Taken, least: float) -> float | None:
    """Return the least watts at which a rate is so accurate, by a linear programme."""
    found = linprog(
        [piece.joules for piece, _ in taken],
        A_ub=[[least - piece.accuracy for piece, _ in taken]],
        b_ub=[1e-9],
        A_eq=[[1.0] * len(taken)],
        b_eq=[min(rate_rps, sum(rps for _, rps in taken))],
        bounds=[(0.0, rps) for _, rps in taken],
    )
    return float(found.fun) if found.status == 0 else None


def _filled(rate_rps: float, costs: Sequence[tuple[float, float]]) -> float:
    """Return the sum of cost · requests/s when a rate goes to (cost, throughput), the cheapest first."""
    total = 0.0
    for cost, rps in sorted(costs):
        served = min(rate_rps, rps)
        total, rate_rps = total + cost * served, rate_rps - served
    return total


def _devices(problem: Problem, uses: Sequence[Held]) -> tuple[int, ...] | None:
    """Return the fewest devices of each type for the uses of all DNNs; None where there are not so many."""
    shared = problem.options.device_sharing == "shared"
    pools: defaultdict[tuple[int, int, int], Counter[Kind]] = defaultdict(Counter)
    for dnn, use in enumerate(uses):
        for (position, device, kind), count in use.items():
            pools[(0, 0, device) if shared else (dnn, position, device)][kind] += count
    used = [0] * len(problem.cluster.device_types)
    for (_, _, device), segments in pools.items():
        used[device] += fewest(problem.cluster.device_types[device], segments)
        if used[device] > problem.cluster.device_types[device].count:
            return None
    return tuple(used)


def _worth_having(problem: Problem, found: Mapping[Use, float]) -> list[tuple[Held, float]]:
    """Return the plans of a DNN that no other, on as few segments (or devices, where these are its own), beats."""
    sign = 1 if problem.options.objective.startswith("max") else -1
    shared = problem.options.device_sharing == "shared"
    kept: dict[tuple[int, ...], tuple[Held, float]] = {}
    keys = sorted({(device, kind) for use in found for (_, device, kind), _ in use}, key=repr)
    for use, value in found.items():
        if shared:
            total: Counter[tuple[int, Kind]] = Counter()
            for (_, device, kind), count in use:
                total[device, kind] += count
            key = tuple(total[one] for one in keys)
        else:
            key = _devices(problem, [dict(use)]) or ()
        if key not in kept or sign * value > sign * kept[key][1]:
            kept[key] = dict(use), value
    return [
        (use, value)
        for key, (use, value) in kept.items()
        if not any(
            other != key and all(a <= b for a, b in zip(other, key, strict=True)) and sign * beaten >= sign * value
            for other, (_, beaten) in kept.items()
        )
    ]


def brute_force(problem: Problem) -> float | None:
    """Return the optimum of a problem's objective; None where nothing satisfies it. Raises TooMany."""
    maximised = problem.options.objective.startswith("max") or problem.options.objective == "most_accurate"
    best: float | None = None
    tried = 0
    own = [_worth_having(problem, plans(problem, number)) for number in range(len(problem.dnns))]

    def choose(uses: list[Held], worths: list[float]) -> None:
        nonlocal best, tried
        used = _devices(problem, uses)
        tried += 1
        if tried > MOST_CHOICES:
            raise TooMany
        if used is None:
            return
        if len(uses) < len(own):
            for use, worth in own[len(uses)]:
                choose([*uses, use], [*worths, worth])
            return
        value = _value(problem, used, worths)
        if value is not None and (best is None or (value > best if maximised else value < best)):
            best = value

    choose([], [])
    return best


def _value(problem: Problem, used: Sequence[int], worths: Sequence[float]) -> float | None:
    types, options = problem.cluster.device_types, problem.options
    cost = sum((device.price_per_hour or 0.0) * n for device, n in zip(types, used, strict=True))
    if options.budget_per_hour is not None and cost > options.budget_per_hour * (1 + 1e-9):
        return None
    if options.objective == "max_min_throughput":
        return min(rps / dnn.weight for rps, dnn in zip(worths, problem.dnns, strict=True))
    if options.objective == "max_weighted_throughput":
        return sum(rps * dnn.weight for rps, dnn in zip(worths, problem.dnns, strict=True))
    if options.objective == "most_accurate":
        return -sum(worths) / sum(dnn.rate_rps or 0.0 for dnn in problem.dnns)
    if options.objective == "fewest_devices":
        return float(sum(used))
    if options.objective == "least_cost":
        return cost
    idle = sum((device.idle_watts or 0.0) * n for device, n in zip(types, used, strict=True))
    return sum(worths) + (idle if options.objective == "least_energy" else 0.0)
