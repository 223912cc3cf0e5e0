"""Training of one network: batches of every level, drawn without replacement, until the schedule ends.

Nothing but the rows given is looked at: there is no early stopping, so that rows kept for calibration and for judging
stay unseen.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from planner.completion.losses import Loss
from planner.completion.monolith import Monolith, MonolithNetwork
from planner.completion.network import Architecture, Batch, Network
from planner.completion.observations import Observations
from planner.completion.parameters import Schedule, minimise
from planner.model import InputError

Interference = Literal["modelled", "discarded", "ignored"]

BATCH_ALONE, BATCH_BESIDE = 4096, 8192
KEPT_BYTES = 31 << 20  # below glibc's largest threshold of 32 MiB


@dataclass(frozen=True)
class Recipe:
    """Everything that determines a network, given rows and a seed.

    ``beside_weight`` is what the mean loss of each further level counts against that of the rows that ran alone. Rows
    with others beside are learned from as such, or *discarded*, or taken as if they had run alone (*ignored*).
    """

    architecture: Architecture | Monolith
    schedule: Schedule
    loss: Loss = "pinball"
    beside_weight: float = 0.5
    interference: Interference = "modelled"
    batch_alone: int = BATCH_ALONE
    batch_beside: int = BATCH_BESIDE


def train(recipe: Recipe, observations: Observations, seed: int) -> Network | MonolithNetwork:
    """Return a network that has learned from all rows.

    Raises
    ------
    InputError
        No row ran alone.
    """
    if not (observations.level == 0).any():
        raise InputError("observations: no workload was measured alone on a platform; measure some alone first")
    np.empty(KEPT_BYTES, np.uint8)  # once such a piece was freed, glibc keeps smaller ones: a quarter of the time
    learned = _learned_rows(recipe, observations)
    network = recipe.architecture.build(learned, seed)
    rng = np.random.default_rng([seed, 77])
    levels = []
    for level in np.unique(learned.level):
        size = recipe.batch_beside if level else recipe.batch_alone
        rows = network.batch(learned.take(learned.level == level), recipe.beside_weight if level else 1.0)
        levels.append(_batches(rows, size, rng))

    def compute_gradient() -> None:
        network.descend([next(batches) for batches in levels], recipe.loss)

    minimise(network.parameters, network.decay(recipe.schedule), recipe.schedule, compute_gradient)
    return network


def _learned_rows(recipe: Recipe, observations: Observations) -> Observations:
    if recipe.interference == "discarded":
        return observations.take(observations.level == 0)
    return observations.alone() if recipe.interference == "ignored" else observations


def _batches(rows: Batch, size: int, rng: np.random.Generator) -> Iterator[Batch]:
    """Yield batches for ever; a permutation's remainder that fills no batch is left out."""
    size = min(size, len(rows.target))
    while True:
        order = rng.permutation(len(rows.target))
        for start in range(0, len(order) - size + 1, size):
            chosen = order[start : start + size]
            yield replace(rows, target=rows.target[chosen], own=rows.own[chosen], others=rows.others[chosen])
