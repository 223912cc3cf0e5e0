"""Recipes: this project's, by how much there is to learn from, and those of Pitot's paper.

Pitot's own model, its ablations and its baselines (MLSys 2025, Sections 3 and 5) are the same network with parts
changed; each entry says which. They are trained here by this module's schedule rather than by 20,000 small steps.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from planner.completion.losses import Loss
from planner.completion.monolith import Monolith
from planner.completion.network import Architecture
from planner.completion.parameters import Schedule
from planner.completion.training import Interference, Recipe

FEW_ROWS, MANY_ROWS = 30_000, 100_000


@dataclass(frozen=True)
class Method:
    """A recipe, how many members, and how bounds are made: ``scaled`` by residuals, or the same everywhere (not)."""

    recipe: Recipe
    members: int
    scaled: bool = False


def ours(rows: int) -> Method:
    """Return this project's method for so many rows to learn from.

    Few rows want a small network without embeddings of its own for each entity, many a longer schedule.

    >>> ours(10_000).recipe.architecture.rank, ours(60_000).recipe.architecture.rank
    (32, 64)
    """
    if rows < FEW_ROWS:
        few = Architecture(rank=32, learned_inputs=1, free_embedding=False, factor_scale=1.0)
        return Method(Recipe(few, Schedule(1000, 2e-2, input_decay=0.0)), members=6, scaled=True)
    steps = 1000 if rows < MANY_ROWS else 2000
    return Method(Recipe(Architecture(), Schedule(steps, 5e-3)), members=5, scaled=True)


PUBLISHED = Architecture(rank=32, learned_inputs=1, free_embedding=False, factor_scale=0.0)
ALONE = replace(PUBLISHED, terms=0)
QUANTILES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)


def pitot(
    rows: int, architecture: Architecture = PUBLISHED, loss: Loss = "squared", interference: Interference = "modelled"
) -> Method:
    """Return Pitot's model: squared error, one learned input, no embedding, features as published; one network."""
    schedule = Schedule(2000 if rows < FEW_ROWS else 3000, 3e-3, weight_decay=0.02, input_decay=0.0)
    return Method(Recipe(architecture, schedule, loss, beside_weight=1.0, interference=interference), members=1)


def factorisation(rows: int) -> Method:
    """Return matrix factorisation: an embedding per workload and platform, no features, no baseline, nobody beside."""
    architecture = replace(ALONE, hidden=0, residual=False, features=False)
    schedule = Schedule(2000, 2e-2, embedding_decay=0.02)
    return Method(Recipe(architecture, schedule, "squared", beside_weight=1.0, interference="ignored"), members=1)


def monolith(rows: int, *, attention: bool) -> Method:
    """Return one network of everything, those beside summed up or attended to."""
    schedule = Schedule(2000 if rows < FEW_ROWS else 4000, 3e-3, weight_decay=0.02)
    architecture = Monolith(attention=attention)
    recipe = Recipe(architecture, schedule, "squared", beside_weight=1.0, batch_alone=1024, batch_beside=1024)
    return Method(recipe, members=1)


METHODS: dict[str, Callable[[int], Method]] = {
    "ours": ours,
    "pitot": pitot,
    # Section 3.5: a head per quantile, of which calibration chooses
    "pitot-quantiles": partial(pitot, architecture=replace(PUBLISHED, quantiles=QUANTILES), loss="pinball"),
    # Section 5.2, ablations: rows beside others left out, or taken as alone; learned inputs only; act the identity;
    # no additive baseline; the relative error in place of that of logarithms
    "discard": partial(pitot, architecture=ALONE, interference="discarded"),
    "ignore": partial(pitot, architecture=ALONE, interference="ignored"),
    "no-features": partial(pitot, architecture=replace(PUBLISHED, features=False, learned_inputs=8)),
    "no-activation": partial(pitot, architecture=replace(PUBLISHED, slope=1.0)),
    "no-residual": partial(pitot, architecture=replace(PUBLISHED, residual=False)),
    "proportional": partial(pitot, loss="proportional"),
    "factorisation": factorisation,
    "monolithic": partial(monolith, attention=False),
    "attention": partial(monolith, attention=True),
}
