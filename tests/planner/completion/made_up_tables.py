"""Made-up tables whose truth is known: log times of low rank plus interference plus noise."""

import numpy as np

from planner.completion.observations import Axis, Observations


def made_up(
    workloads: int = 30,
    platforms: int = 18,
    *,
    beside: int = 0,
    rows: int | None = None,
    noise: float = 0.02,
    seed: int = 0,
) -> Observations:
    """Return random cells of a table: features explain it up to ``noise``; up to ``beside`` others per row."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(workloads, 4)), rng.normal(size=(platforms, 3))
    table = 2 + x[:, :1] + 0.7 * y[:, 0] + 0.3 * x[:, 1:3] @ y[:, 1:3].T
    cells = np.array([(i, j) for i in range(workloads) for j in range(platforms)])
    chosen = rng.permutation(cells)[:rows]
    others = np.full((len(chosen), beside), -1)
    for level in range(1, beside + 1):
        part = np.arange(len(chosen)) % (beside + 1) >= level
        others[part, level - 1] = rng.integers(0, workloads, part.sum())
    pressure = np.where(others >= 0, np.abs(x[others, 3]), 0).sum(axis=1)
    i, j = chosen.T
    log_time = table[i, j] + 0.2 * (1 + np.tanh(y[j, 2])) * pressure + rng.normal(0, noise, len(chosen))
    devices = {"device": np.arange(platforms) // 3, "runtime": np.arange(platforms) % 3}
    return Observations(
        Axis(tuple(f"w{n}" for n in range(workloads)), x),
        Axis(tuple(f"p{n}" for n in range(platforms)), y, devices),
        log_time,
        i,
        j,
        others,
    )
