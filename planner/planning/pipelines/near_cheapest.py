"""The pipelines of a DNN that cost little more than the cheapest, at given prices of device types.

With m the cheapest cost of a request/s, an item (`planner.planning.pipelines.sizes`) loses what it costs beyond m times
its throughput. All pipelines of which some size loses no more than a budget are listed, without those that cannot:

*Stages.* A stage on blocks [i, j) and a place takes t of the latency budget T at least, and costs a per request/s at
least, of which a slice serves x and costs sigma. By Lagrange's relaxation of the budget, for any mu >= 0 the rest of a
pipeline with that stage costs at least

    L  =  min over the other stages of sum (a + mu · t)  +  mu · (t - T)

per request/s, which a shortest path over blocks finds. A size with n >= 1 slices there serves y <= n · x, and so loses
at least

    sigma · n + L · y - m · y  >=  min(sigma, sigma + (L - m) · x)

Only stages where that is within the budget, for each of some mu, are those of which pipelines are listed
(`planner.planning.pipelines.listing`).
"""

from collections.abc import Sequence

import numpy as np

from planner.compilation import compiled
from planner.planning.arrays import Floats
from planner.planning.pipelines.candidates import Pipelines
from planner.planning.pipelines.listing import listed
from planner.planning.pipelines.pricing import Pricer
from planner.planning.pipelines.terrain import Terrain

# Prices of time, in parts of what a request/s costs for the whole budget.
TIME_PRICES = np.array([0.0, 0.03, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0])
HAIR = 1e-9  # relative: sums of floats are off by less


def near_cheapest(pricers: Sequence[Pricer], device_price: Floats, budget: float) -> Pipelines:
    """Return all candidates of a DNN of which some size may lose no more than a budget, and some that do not.

    Parameters
    ----------
    pricers
        Of every variant of the DNN; some pipeline meets the SLO.
    device_price, budget
        In the same unit.
    """
    cheapest = min(cost for pricer in pricers for cost, _ in pricer.cheapest(device_price)) * (1 + HAIR)
    grounds = [(pricer.variant, pricer.terrain) for pricer in pricers]
    return Pipelines.of(
        pricers[0].dnn,
        [
            (variant, ground, listed(ground, allowed=least_losses(ground, device_price, cheapest) <= budget))
            for variant, ground in grounds
        ],
    )


def least_losses(ground: Terrain, device_price: Floats, cheapest: float) -> Floats:
    """Return what an item with a stage loses at least ``[place, batch, first, last]``, infinite where there is none."""
    wait_us = ground.batches[:, np.newaxis] * ground.wire_us.min(axis=(0, 1)) + ground.hop_us.min(initial=0.0)
    wait_us[:, -1] = 0.0
    loss = np.full(ground.latency_us.shape, np.inf)
    for batch, (size, budget_us) in enumerate(zip(ground.batches.tolist(), ground.budget_us.tolist(), strict=True)):
        if budget_us > 0:
            loss[:, batch] = _least_losses(
                np.ascontiguousarray(ground.latency_us[:, batch]),
                device_price[ground.device] * ground.fraction,
                float(size),
                wait_us[batch],
                budget_us,
                ground.max_stages,
                cheapest,
                cheapest / budget_us * TIME_PRICES,
            )
    return loss


@compiled
def _least_losses(
    latency_us: Floats,
    slice_price: Floats,
    size: float,
    wait_us: Floats,
    budget_us: float,
    stages: int,
    cheapest: float,
    time_prices: Floats,
) -> Floats:
    """Return the least loss ``[place, first, last]`` of the items of one batch size."""
    places, blocks = latency_us.shape[0], latency_us.shape[1] - 1
    rest = np.full(latency_us.shape, -np.inf)  # what a request/s costs at least on the other stages
    for time_price in time_prices:
        paid = np.full((blocks + 1, blocks + 1), np.inf)
        for i in range(blocks):
            for j in range(i + 1, blocks + 1):
                for p in range(places):
                    needed_us = latency_us[p, i, j] + wait_us[j]
                    paid[i, j] = min(
                        paid[i, j], slice_price[p] * latency_us[p, i, j] / size * 1e-6 + time_price * needed_us
                    )
        before, after = _shortest(paid, stages)
        for i in range(blocks):
            for j in range(i + 1, blocks + 1):
                others = np.inf
                for stage in range(stages):
                    others = min(others, before[stage, i] + after[stages - 1 - stage, j])
                for p in range(places):
                    spared_us = budget_us - latency_us[p, i, j] - wait_us[j]
                    rest[p, i, j] = max(rest[p, i, j], others - time_price * spared_us)
    loss = np.full(latency_us.shape, np.inf)
    for i in range(blocks):
        for j in range(i + 1, blocks + 1):
            for p in range(places):
                if latency_us[p, i, j] < np.inf and rest[p, i, j] < np.inf:
                    slice_rps = size / latency_us[p, i, j] * 1e6
                    loss[p, i, j] = slice_price[p] + min(0.0, (rest[p, i, j] - cheapest) * slice_rps)
    return loss


@compiled
def _shortest(paid: Floats, stages: int) -> tuple[Floats, Floats]:
    """Return what blocks before and from a cut on cost at least in up to so many stages, ``[stages, cut]``."""
    blocks = len(paid) - 1
    before, after = np.full((stages, blocks + 1), np.inf), np.full((stages, blocks + 1), np.inf)
    before[:, 0], after[:, blocks] = 0.0, 0.0
    for stage in range(1, stages):
        for cut in range(blocks + 1):
            for other in range(blocks + 1):
                if other < cut:
                    before[stage, cut] = min(before[stage, cut], before[stage - 1, other] + paid[other, cut])
                if other > cut:
                    after[stage, cut] = min(after[stage, cut], paid[cut, other] + after[stage - 1, other])
    return before, after
