"""Small problems and slow, obvious answers to them, written from the rules of planning without any of its code.

Positions of a use vector are (position, type); its units are 1/UNIT devices.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations, product
from math import ceil, inf
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from planner.model import (
    Block,
    Cluster,
    DeviceType,
    Dnn,
    LatencyTable,
    Link,
    Network,
    Options,
    Problem,
    Profile,
    Provenance,
)

UNIT = 6  # of the shares 1, 2, 3
MEASURED = Provenance("measured", "by hand")

Use = tuple[tuple[tuple[int, int], int], ...]


def random_profile(rng: Generator, name: str, cluster: Cluster, blocks: int = 3) -> Profile:
    """Blocks of some milliseconds on unlike devices; larger batches cost less than in proportion."""
    tables = []
    base_us = rng.integers(500, 4000, blocks)
    for device in cluster.device_types:
        speed = rng.uniform(0.5, 2.0, blocks)
        for share in device.shares:
            slowdown = share * rng.uniform(0.6, 1.05) if share > 1 else 1.0
            rows = [np.ceil(base_us * speed * slowdown * (0.3 + 0.7 * batch)).astype(int) for batch in (1, 2)]
            latency_us = tuple(tuple(row.tolist()) for row in rows)
            tables.append(LatencyTable(device.name, share, (1, 2), latency_us, MEASURED))
    parts = tuple(
        Block((f"{name}{number}",), int(rng.integers(1, 50)), int(rng.integers(1, 20))) for number in range(blocks)
    )
    return Profile(name, parts, tuple(rng.integers(1000, 200_000, blocks - 1).tolist()), tuple(tables))


def random_problem(
    seed: int, *, dnns: int = 1, stages: int = 2, counts: tuple[int, ...] = (2, 2), shares: tuple[int, ...] = (1, 2)
) -> Problem:
    """A problem small enough for brute force, with X0 given."""
    rng = np.random.default_rng(seed)
    types = tuple(
        DeviceType(
            f"g{number}",
            count,
            shares=shares,
            devices_per_server=int(rng.integers(1, 3)),
            price_per_hour=float(rng.uniform(0.5, 3.0)),
        )
        for number, count in enumerate(counts)
    )
    cluster = Cluster(types, Network(10.0))
    return Problem(
        cluster,
        tuple(
            Dnn(
                f"d{number}",
                float(rng.integers(12_000, 40_000)),
                (random_profile(rng, f"d{number}", cluster),),
                weight=float(rng.uniform(0.2, 1.0)),
                np_throughput_rps=float(rng.uniform(200, 2000)),
            )
            for number in range(dnns)
        ),
        Options(max_stages=stages, slack_fraction=0.2),
    )


def with_larger_cards(problem: Problem, seed: int) -> Problem:
    """Let cards be shared as in the larger server of a hop, servers hold 1 to 4 devices, and transfers matter."""
    rng = np.random.default_rng(seed)
    types = tuple(
        replace(device, devices_per_server=int(rng.integers(1, 5))) for device in problem.cluster.device_types
    )
    cluster = replace(problem.cluster, device_types=types, network=Network(1.0))
    return replace(problem, cluster=cluster, options=replace(problem.options, card_sharing="larger"))


def with_detours(problem: Problem, seed: int) -> Problem:
    """Add what real clusters have: links that differ, hop latencies, small memories, a share without latencies."""
    rng = np.random.default_rng(seed)
    first, last = problem.cluster.device_types[0], problem.cluster.device_types[-1]
    network = Network(
        8.0, hop_latency_us=150.0, links=(Link(first.name, last.name, 2.0, hop_latency_us=float(rng.uniform(0, 900))),)
    )
    types = tuple(replace(device, memory_bytes=int(rng.integers(60, 200))) for device in problem.cluster.device_types)
    dnns = tuple(
        replace(dnn, variants=tuple(replace(variant, tables=variant.tables[1:]) for variant in dnn.variants))
        for dnn in problem.dnns
    )
    return replace(problem, cluster=Cluster(types, network), dnns=dnns)


class Piece(NamedTuple):
    """A pipeline of one slice per stage, with everything about it."""

    variant: int
    cuts: tuple[int, ...]
    devices: tuple[int, ...]
    shares: tuple[int, ...]
    batches: tuple[int, ...]
    slice_rps: tuple[float, ...]
    latency_us: float  # inference, transfers and batch building

    def sizes(self, counts: list[int]) -> Iterator[tuple[int, ...]]:
        """Yield every number of slices per stage that the devices have, in groups that take a whole batch."""
        parts = [self.batches[0] // batch for batch in self.batches]
        yield from product(
            *(
                range(group, counts[device] * share + 1, group)
                for group, device, share in zip(parts, self.devices, self.shares, strict=True)
            )
        )


def every_pipeline(problem: Problem, dnn: Dnn, *, any_slo: bool = False) -> Iterator[Piece]:
    """Yield every feasible pipeline of a DNN, Pareto-best or not."""
    types, network = problem.cluster.device_types, problem.cluster.network
    places = [(index, share) for index, device in enumerate(types) for share in device.shares]
    budget_us = inf if any_slo else dnn.slo_us - round(problem.options.slack_fraction * dnn.slo_us)
    x0_rps = dnn.np_throughput_rps or 0.0
    for variant, profile in enumerate(dnn.variants):
        blocks = len(profile.blocks)
        for stages in range(1, problem.options.max_stages + 1):
            for inner, sequence, batches in product(
                combinations(range(1, blocks), stages - 1), product(places, repeat=stages), _batches(problem, stages)
            ):
                cuts, batch = (0, *inner, blocks), batches[0]
                if batch > 1 and x0_rps == 0:
                    continue
                if any(not profile.has(types[device].name, share) for device, share in sequence):
                    continue
                if any([device for device, _ in sequence].count(index) > types[index].count for index, _ in sequence):
                    continue
                latency_us = problem.options.batch_building_factor * (batch - 1) / (x0_rps or 1.0) * 1e6
                slice_rps, memory_fits = [], True
                for stage, (device, share) in enumerate(sequence):
                    first, last, kind = cuts[stage], cuts[stage + 1], types[device]
                    part = batches[stage]
                    rows = profile.table(kind.name, share).latency_us[part - 1]
                    inference_us = sum(max(1, value) for value in rows[first:last])
                    held = sum(block.parameter_bytes for block in profile.blocks[first:last])
                    held += part * max(block.activation_bytes for block in profile.blocks[first:last])
                    memory_fits &= kind.memory_bytes is None or held <= kind.memory_bytes / share
                    latency_us += inference_us
                    limits = [part / inference_us * 1e6]
                    on_card = kind.devices_per_server
                    if problem.options.card_sharing == "larger" and stage < stages - 1:
                        on_card = max(on_card, types[sequence[stage + 1][0]].devices_per_server)
                    for sender in (stage - 1, stage):
                        if 0 <= sender < stages - 1:
                            names = types[sequence[sender][0]].name, types[sequence[sender + 1][0]].name
                            wire_us = (
                                profile.cut_bytes[cuts[sender + 1] - 1] * 8e-3 / network.link(*names).bandwidth_gbps
                            )
                            limits.append(1e6 / (wire_us * share * on_card))
                            if sender == stage:
                                latency_us += batch * wire_us + network.link(*names).hop_latency_us
                    slice_rps.append(min(limits))
                if memory_fits and latency_us <= budget_us:
                    devices = tuple(device for device, _ in sequence)
                    shares = tuple(share for _, share in sequence)
                    yield Piece(variant, cuts, devices, shares, batches, tuple(slice_rps), latency_us)


def _batches(problem: Problem, stages: int) -> list[tuple[int, ...]]:
    """Return the batch sizes per stage that the rules allow, of 1 and 2."""
    if problem.options.stage_batches:
        return [(first, *rest) for first in (1, 2) for rest in product(range(1, first + 1), repeat=stages - 1)]
    return [(batch,) * stages for batch in (1, 2)]


def best_by_use(problem: Problem, dnn: Dnn) -> dict[tuple[int, ...], float]:
    """Return the best throughput of a DNN per numbers of whole devices taken, by growing multisets of pipelines."""
    counts = [device.count for device in problem.cluster.device_types]
    pieces: dict[Use, float] = {}
    for piece in every_pipeline(problem, dnn):
        for slices in piece.sizes(counts):
            use: dict[tuple[int, int], int] = {}
            for position, (device, share, count) in enumerate(zip(piece.devices, piece.shares, slices, strict=True)):
                use[position, device] = count * UNIT // share
            if fits(use, counts):
                key = tuple(sorted(use.items()))
                rps = min(rps * count for rps, count in zip(piece.slice_rps, slices, strict=True))
                pieces[key] = max(rps, pieces.get(key, 0.0))
    best: dict[Use, float] = {(): 0.0}
    for piece_use, rps in pieces.items():
        queue = list(best.items())
        while queue:
            base, value = queue.pop()
            use = dict(base)
            for key, units in piece_use:
                use[key] = use.get(key, 0) + units
            key = tuple(sorted(use.items()))
            if fits(use, counts) and value + rps > best.get(key, -1.0):
                best[key] = value + rps
                queue.append((key, value + rps))
    whole: dict[tuple[int, ...], float] = {}
    for base, value in best.items():
        devices = _devices(dict(base), len(counts))
        whole[devices] = max(value, whole.get(devices, 0.0))
    return whole


def _devices(use: dict[tuple[int, int], int], types: int) -> tuple[int, ...]:
    return tuple(sum(ceil(units / UNIT) for (_, g), units in use.items() if g == device) for device in range(types))


def fits(use: dict[tuple[int, int], int], counts: list[int]) -> bool:
    return all(used <= count for used, count in zip(_devices(use, len(counts)), counts, strict=True))


def brute_force(problem: Problem) -> float | None:
    """Return the optimum of a problem's objective; None where nothing satisfies it."""
    counts = [device.count for device in problem.cluster.device_types]
    prices = [device.price_per_hour or 0.0 for device in problem.cluster.device_types]
    objective, best = problem.options.objective, None
    for choice in product(*(best_by_use(problem, dnn).items() for dnn in problem.dnns)):
        used = [sum(column) for column in zip(*(devices for devices, _ in choice), strict=True)]
        if any(one > most for one, most in zip(used, counts, strict=True)):
            continue
        rps = [value for _, value in choice]
        if objective == "max_min_throughput":
            value = min(got / dnn.weight for got, dnn in zip(rps, problem.dnns, strict=True))
        elif objective == "max_weighted_throughput":
            value = sum(got * dnn.weight for got, dnn in zip(rps, problem.dnns, strict=True))
        elif any(got < (dnn.rate_rps or 0.0) for got, dnn in zip(rps, problem.dnns, strict=True)):
            continue
        elif objective == "fewest_devices":
            value = -float(sum(used))
        else:
            value = -sum(price * count for price, count in zip(prices, used, strict=True))
        best = value if best is None else max(best, value)
    return best if best is None or objective.startswith("max") else -best
