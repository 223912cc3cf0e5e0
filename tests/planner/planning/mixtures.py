"""Small problems of every kind: how devices are divided, what limits plans, and what they are for, drawn at random."""

from dataclasses import replace
from typing import get_args

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
    Segment,
)
from planner.model.problem import GIVEN_RATES, Objective

OBJECTIVES: tuple[Objective, ...] = get_args(Objective)
SHARES = (1,), (1, 2), (1, 2, 3), (1, 2, 4), (2, 3, 5), (3, 5, 7), (2, 5)
BATCHES = (1,), (1, 2), (2, 4), (1, 3, 8), (1, 2, 4, 8)
GB = 10**9


def random_problem(
    seed: int, *types: DeviceType, dnns: int = 2, stages: int = 1, sharing: str = "shared", objective: str | None = None
) -> Problem:
    """A problem on these types, with latencies for all of their shares, small enough for brute force."""
    rng = np.random.default_rng(seed)
    cluster = Cluster(types, Network(10.0))
    served = []
    for number in range(dnns):
        base_us, tables = rng.integers(1500, 4000, stages), []
        for device in types:
            speed = rng.uniform(0.7, 1.5)
            for share in device.offers:
                slowdown = float(1 / device.fraction(share)) ** rng.uniform(0.6, 1.0) * speed
                rows = [np.ceil(base_us * slowdown * (0.3 + 0.7 * batch)).astype(int) for batch in (1, 2)]
                latency_us = tuple(tuple(row.tolist()) for row in rows)
                tables.append(LatencyTable(device.name, share, (1, 2), latency_us, Provenance("measured", "drawn")))
        blocks = tuple(Block((f"d{number}{block}",)) for block in range(stages))
        cuts = tuple(rng.integers(1000, 200_000, stages - 1).tolist())
        served.append(
            Dnn(
                f"d{number}",
                float(rng.integers(20_000, 60_000)),
                (Profile(f"d{number}", blocks, cuts, tuple(tables)),),
                weight=float(rng.uniform(0.3, 1.0)),
                np_throughput_rps=float(rng.uniform(200, 2000)),
                rate_rps=float(rng.uniform(20, 200)),
            )
        )
    chosen = objective or str(rng.choice(["max_min_throughput", "max_weighted_throughput", "fewest_devices"]))
    options = Options(objective=chosen, max_stages=stages, slack_fraction=0.2, device_sharing=sharing)  # type: ignore[arg-type]
    return Problem(cluster, tuple(served), options)


def random_mixture(seed: int, objective: Objective | None = None, sharing: str | None = None) -> Problem:
    """A problem of 1 to 3 types and DNNs, of any objective and way of sharing where none is given."""
    rng = np.random.default_rng(seed)
    types = tuple(_device(rng, number) for number in range(rng.choice([1, 2, 3], p=[0.5, 0.35, 0.15])))
    chosen: Objective = objective or OBJECTIVES[rng.integers(len(OBJECTIVES))]
    rated = chosen == "most_accurate" or (chosen in GIVEN_RATES and rng.random() < 0.3)
    slack = float(rng.choice([0.0, 0.2, 0.4]))
    bandwidth = float(rng.choice([10.0, 1.0, 0.2]))
    links = [Link(types[0].name, types[-1].name, 0.4, 90.0)] if rng.random() < 0.3 else []
    network = Network(bandwidth, float(rng.choice([0.0, 150.0])), tuple(links))
    counts = rng.choice([1, 2, 3], p=[0.35, 0.45, 0.2])
    dnns = tuple(_dnn(rng, f"d{number}", types, slack, rated) for number in range(counts))
    options = Options(
        chosen,
        max_stages=int(rng.choice([1, 2, 3], p=[0.4, 0.5, 0.1])),
        slack_fraction=slack,
        batch_building_factor=float(rng.choice([0.0, 1.3])),
        card_sharing=str(rng.choice(["own", "larger"])),  # type: ignore[arg-type]
        device_sharing=sharing or str(rng.choice(["own", "shared"])),  # type: ignore[arg-type]
    )
    if rated and chosen != "most_accurate":
        options = replace(options, min_accuracy=float(rng.uniform(40, 80)))
    if rng.random() < 0.15:
        dearest = sum((device.price_per_hour or 0.0) * device.count for device in types)
        options = replace(options, budget_per_hour=float(rng.uniform(0.3, 0.9) * dearest))
    return Problem(Cluster(types, network), dnns, options)


def _device(rng: Generator, number: int) -> DeviceType:
    """A type that is divided into equal shares, by MIG, by cores, into segments of its own, or two of these ways."""
    idle = float(rng.integers(5, 50))
    base = DeviceType(
        f"t{number}",
        int(rng.integers(1, 4)),
        devices_per_server=int(rng.integers(1, 5)),
        memory_bytes=int(rng.integers(6, 40)) * GB if rng.random() < 0.6 else None,
        price_per_hour=float(rng.choice([0.5, 1.0, 1.2, rng.uniform(0.3, 3)])),
        idle_watts=idle,
        busy_watts=idle + float(rng.integers(0, 200)),
    )
    shares = tuple(SHARES[rng.integers(len(SHARES))])
    way = rng.choice(["shares", "a30", "a100", "cores", "segments"], p=[0.5, 0.15, 0.1, 0.15, 0.1])
    if way == "shares":
        return replace(base, shares=shares, count=min(base.count, 2) if len(shares) > 2 else base.count)
    if way == "a30":
        both = (1, 2) if rng.random() < 0.3 else (1,)
        return replace(base, mig="a30-24gb", shares=both, processes=int(rng.integers(1, 3)), count=min(base.count, 2))
    if way == "a100":
        return replace(base, mig="a100-80gb", count=1)
    if way == "cores":
        return replace(base, kind="cpu", cores=int(rng.choice([2, 3, 4, 6])), count=min(base.count, 2))
    segments = Segment("large", 3, (), 12 * GB), Segment("middle", 2, (0, 3)), Segment("small", 1, (), 2 * GB)
    layouts = ({"large": 1, "small": 2}, {"middle": 2}, {"small": 3}) if rng.random() < 0.5 else ()
    return replace(base, slots=5, segments=segments, layouts=layouts, count=min(base.count, 2))


def _dnn(rng: Generator, name: str, types: tuple[DeviceType, ...], slack: float, rated: bool) -> Dnn:
    variants = tuple(_profile(rng, f"{name}v{number}", types) for number in range(2 if rated else 1))
    whole = [
        (sum(row), batch)
        for variant in variants
        for table in variant.tables
        for batch, row in zip(table.batches, table.latency_us, strict=True)
    ]
    fastest_us = min(latency_us for latency_us, _ in whole)
    most_rps = max(batch / max(latency_us, 1) * 1e6 for latency_us, batch in whole)
    return Dnn(
        name,
        float(np.ceil(fastest_us * rng.uniform(1.2, 12) / (1 - slack))),
        variants,
        weight=float(rng.choice([1.0, rng.uniform(0.1, 3.0)])),
        np_throughput_rps=float(rng.choice([0.0, rng.uniform(0.3, 3) * most_rps], p=[0.1, 0.9])),
        rate_rps=float(rng.uniform(0.05, 1.5) * most_rps),
        accuracy={variant.name: float(rng.uniform(30, 90)) for variant in variants} if rated else {},
    )


def _profile(rng: Generator, name: str, types: tuple[DeviceType, ...]) -> Profile:
    """Blocks of some milliseconds; larger batches cost less than in proportion, parts of a device more."""
    count = int(rng.integers(1, 4))
    base_us, tables = rng.integers(500, 4000, count), []
    for device in types:
        speed, batches = rng.uniform(0.5, 2.0, count), BATCHES[rng.integers(len(BATCHES))]
        offers = device.offers
        if len(offers) > 6:  # try everything only where that is little
            offers = tuple(offers[at] for at in sorted(rng.choice(len(offers), 6, replace=False)))
        for share in offers:
            if rng.random() < 0.1 and tables:
                continue
            slowdown = speed * float(1 / device.fraction(share)) ** rng.uniform(0.5, 1.05)
            rows = [np.ceil(base_us * slowdown * (0.4 + 0.6 * batch)).astype(int) for batch in batches]
            latency_us = tuple(tuple(row.tolist()) for row in rows)
            tables.append(LatencyTable(device.name, share, batches, latency_us, Provenance("measured", "drawn")))
    blocks = tuple(
        Block((f"{name}{number}",), int(rng.integers(0, 3)) * GB, int(rng.integers(0, 5)) * GB // 10)
        for number in range(count)
    )
    return Profile(name, blocks, tuple(rng.integers(100, 400_000, count - 1).tolist()), tuple(tables))


def badly_scaled(problem: Problem, seed: int) -> Problem:
    """Return a problem whose numbers are up to 15 orders of magnitude apart: some of its kinds of numbers, or all."""
    rng = np.random.default_rng(seed)
    each = rng.random(6) < 0.5
    types, dnns = problem.cluster.device_types, problem.dnns
    if each[0]:
        dnns = tuple(replace(dnn, weight=dnn.weight * 10.0 ** rng.integers(-12, 7)) for dnn in dnns)
    if each[1]:
        dnns = tuple(replace(dnn, rate_rps=(dnn.rate_rps or 1.0) * 10.0 ** rng.integers(-9, 1)) for dnn in dnns)
    if each[2]:
        types = tuple(
            replace(device, price_per_hour=(device.price_per_hour or 1.0) * 10.0 ** rng.integers(-9, 7))
            for device in types
        )
    if each[3]:  # latencies of µs, some of them 0
        dnns = tuple(
            replace(
                dnn,
                slo_us=max(1.0, dnn.slo_us // 1000),
                np_throughput_rps=1000 * (dnn.np_throughput_rps or 0.0),
                variants=tuple(_quicker(variant, 1000) for variant in dnn.variants),
            )
            for dnn in dnns
        )
    if each[4]:
        types = tuple(
            replace(device, idle_watts=0.0, busy_watts=10.0 ** float(rng.integers(-6, 7))) for device in types
        )
    if each[5]:
        dnns = tuple(
            replace(dnn, variants=tuple(replace(v, cut_bytes=(0,) * len(v.cut_bytes)) for v in dnn.variants))
            for dnn in dnns
        )
    options = replace(problem.options, budget_per_hour=None)
    return replace(problem, cluster=replace(problem.cluster, device_types=types), dnns=dnns, options=options)


def _quicker(profile: Profile, factor: int) -> Profile:
    tables = (
        replace(table, latency_us=tuple(tuple(us // factor for us in row) for row in table.latency_us))
        for table in profile.tables
    )
    return replace(profile, cut_bytes=tuple(size // factor for size in profile.cut_bytes), tables=tuple(tables))
