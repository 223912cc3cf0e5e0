"""Random pipelines of a DNN, small enough for the oracle: unlike pipelines, waiting cards, few slices."""

from collections.abc import Hashable
from dataclasses import replace

import numpy as np

from simulator.dispatch.system import System
from simulator.engine.world import Degradation, FailureRate, Switch, World
from simulator.workload import poisson


def random_system(rng: np.random.Generator, *, types: int = 1, slo_us: int | None = None) -> System:
    """One to three pipelines of one to three stages; latencies need not grow with the batch."""
    pipelines, width = rng.integers(1, 4, 2)
    stages = rng.integers(1, width + 1, pipelines)
    stages[0] = width
    batch = rng.integers(1, 6, pipelines)
    shape = int(pipelines), int(width)
    present = np.arange(width) < stages[:, None]
    last = np.arange(width) == stages[:, None] - 1
    latency_us = np.zeros((*shape, int(batch.max()) + 1), np.int64)
    for p, s in np.argwhere(present):
        drawn = rng.integers(500, 6000, batch[p])
        latency_us[p, s, 1 : batch[p] + 1] = drawn if rng.random() < 0.1 else np.sort(drawn)
    after = present & (np.arange(width) > 0)
    ints = {
        "transfer_us": rng.integers(1, 900, shape) * after,
        "hop_us": rng.choice([0, 0, 37, 200], shape) * after,
        "later_us": rng.integers(0, 2000, shape) * (present & ~last),
        "slices": rng.integers(1, 7, shape) * present,
        "card_slices": np.where(last, 1, rng.integers(1, 4, shape)) * present,
        "server_slices": rng.integers(1, 3, shape) * present,
        "share": present.astype(np.int64),
    }
    return System(
        dnn="net",
        slo_us=slo_us or int(latency_us.max(axis=2).sum(axis=1).max() * rng.uniform(1.1, 4)),
        stages=stages,
        batch=batch,
        latency_us=latency_us,
        device=np.where(present, rng.integers(0, types, shape), -1),
        device_types=tuple(f"type {number}" for number in range(types)),
        devices=(1.0,) * types,
        prices_per_hour=(1.0,) * types,
        **{name: values.astype(np.int64) for name, values in ints.items()},
    )


def random_arrivals(rng: np.random.Generator, system: System, seconds: float = 0.02) -> np.ndarray:
    """Poisson arrivals at 40 to 130 % of what the pools sustain, often in coarse times, so that much is tied."""
    rates = [
        min(
            system.slices[p, s] * system.batch[p] / system.latency_us[p, s, system.batch[p]]
            for s in range(system.stages[p])
        )
        for p in range(len(system.stages))
    ]
    arrivals_us = poisson(max(500.0, sum(rates) * 1e6 * rng.uniform(0.4, 1.3)), seconds, rng)
    grain = int(rng.choice([1, 500]))
    return np.append(arrivals_us, int(seconds * 1e6)) // grain * grain


def random_world(rng: np.random.Generator) -> World:
    """Jitter or factors, failures, loading, a slow network: each sometimes."""
    varying = rng.random()
    return World(
        seed=int(rng.integers(0, 1000)),
        spread=0.3 if varying < 0.4 else 0.0,
        factors=(0.5, 1.0, 1.7) if varying > 0.8 else (),
        load_us=int(rng.choice([0, 3000])),
        degradations=(Degradation(5_000, 15_000, 2.5),) if rng.random() < 0.5 else (),
        failure_rate=FailureRate(str(rng.choice(["slice", "device", "server"])), 20_000.0, 4_000.0)  # type: ignore[arg-type]
        if rng.random() < 0.7
        else None,
    )


def random_sharing(rng: np.random.Generator, count: int) -> tuple[list[System], list[dict[tuple[int, int], Hashable]]]:
    """Some DNNs whose pools are often the same: of as many slices and cards, last where the other's is."""
    systems = [random_system(rng) for _ in range(count)]
    known: list[tuple[Hashable, int, int, bool]] = []
    pools = []
    for d, system in enumerate(systems):
        mine: dict[tuple[int, int], Hashable] = {}
        for p, stages in enumerate(system.stages.tolist()):
            for s in range(stages):
                last = s == stages - 1
                free = [one for one in known if one[3] == last and one[0] not in mine.values()]
                if free and rng.random() < 0.6:
                    name, system.slices[p, s], system.card_slices[p, s], _ = free[int(rng.integers(len(free)))]
                else:
                    name = d, p, s
                mine[p, s] = name
        known += [
            (name, int(system.slices[at]), int(system.card_slices[at]), at[1] == system.stages[at[0]] - 1)
            for at, name in mine.items()
            if name not in [one[0] for one in known]
        ]
        pools.append(mine)
    return systems, pools


def placed(rng: np.random.Generator, system: System) -> System:
    """Return a system whose slices lie on numbered devices, often on those that other pools use as well."""
    number = np.full((*system.slices.shape, int(system.slices.max())), -1)
    for p, s in np.argwhere(system.slices > 0).tolist():
        count = int(system.slices[p, s])
        number[p, s, :count] = rng.integers(0, 4) + np.arange(count) // rng.integers(1, 4)
    return replace(system, number=number)


def random_switching(rng: np.random.Generator) -> tuple[list[System], list[World]]:
    """One or two DNNs in a world in which plans take over, at times together, on devices that are known or not."""
    count, known = int(rng.integers(1, 3)), rng.random() < 0.7
    first = [random_system(rng, types=2) for _ in range(count)]
    world = random_world(rng)
    worlds = []
    for system in first:
        times_us = np.unique(rng.choice([3_000, 6_000, 6_001, 9_000, 14_000], rng.integers(0, 4))).tolist()
        later = [random_system(rng, types=2, slo_us=system.slo_us) for _ in times_us]
        switches = [Switch(at, placed(rng, one) if known else one) for at, one in zip(times_us, later, strict=True)]
        worlds.append(replace(world, switches=tuple(switches)))
    return [placed(rng, system) if known else system for system in first], worlds
