"""Several networks, each of which has not seen one part of the rows.

Member m leaves out fold m of the rows it is given, so that every row has a prediction by a network that never saw it:
its *out-of-fold* residual, which is what errors on new rows look like. A prediction is the mean of the members' logs,
its ``spread`` their standard deviation (Lakshminarayanan et al. 2017, "Simple and scalable predictive uncertainty
estimation using deep ensembles").
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from planner.completion.monolith import MonolithNetwork
from planner.completion.network import Network
from planner.completion.observations import Floats, Observations
from planner.completion.training import Recipe, train


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Trained members, and the out-of-fold residual (measured less predicted log time) of every row they learned."""

    members: tuple[Network | MonolithNetwork, ...]
    residual: Floats

    def predict(self, observations: Observations, head: int = 0) -> tuple[Floats, Floats]:
        """Return the mean and the standard deviation of the members' predicted log times."""
        predicted = np.stack([member.predict(observations, head) for member in self.members])
        return predicted.mean(axis=0), predicted.std(axis=0)


def train_ensemble(
    recipe: Recipe,
    observations: Observations,
    members: int,
    seed: int,
    progress: Callable[[], None] = lambda: None,
) -> Ensemble:
    """Train members on all folds but their own; a single member learns from all rows, and its residuals are in-sample.

    ``progress`` is called after each member.
    """
    fold = np.random.default_rng([seed, 5]).integers(0, max(members, 2), len(observations))
    networks: list[Network | MonolithNetwork] = []
    residual = np.empty(len(observations))
    for member in range(members):
        left_out = fold == member if members > 1 else np.zeros(len(observations), dtype=bool)
        network = train(recipe, observations.take(~left_out), seed=1000 * seed + member)
        judged = left_out if members > 1 else ~left_out
        rows = observations.take(judged)
        residual[judged] = rows.log_time - network.predict(rows)
        networks.append(network)
        progress()
    return Ensemble(tuple(networks), residual)
