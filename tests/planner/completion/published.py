"""Made-up published timings: a few models with blocks of different kinds on devices with different strengths."""

import numpy as np

from planner.model import Block, LatencyTable, Profile, Provenance

DEVICES = {"A": (3.0, 2.0), "B": (1.0, 2.0), "C": (2.0, 0.6)}  # speed at computing, at moving
MEASURED = Provenance("measured", "made up")


def profiles(models: int = 5, blocks: int = 6, noise: float = 0.01, seed: int = 0) -> list[Profile]:
    """Return fully measured profiles: blocks compute or move, batches and shares cost as usual, with some noise."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(models):
        work, moved = rng.lognormal(7, 0.4, blocks), rng.lognormal(6.5, 0.8, blocks)
        tables = []
        for device, (computing, moving) in DEVICES.items():
            for share in (1, 2):
                rows = []
                for batch in (1, 2, 4):
                    growth = batch**0.9 * share**0.95
                    exact = (work / computing + moved / moving) * growth
                    rows.append(tuple(int(v) for v in exact * np.exp(rng.normal(0, noise, blocks))))
                tables.append(LatencyTable(device, share, (1, 2, 4), tuple(rows), MEASURED))
        layers = tuple(Block((f"layer{n}",)) for n in range(blocks))
        found.append(Profile(f"net{number}", layers, (1000,) * (blocks - 1), tuple(tables)))
    return found
