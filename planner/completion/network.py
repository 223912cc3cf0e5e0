"""Two towers and interference: log times of all pairs from what is known of workloads and platforms.

Sets and symbols: workloads i, platforms j, the workloads k beside, interference terms t, heads h (a quantile each).

    log C_ijK = m + a_j + b_ih + w_ih · p_j + sum over t of (w_ih · s_jt) · act(sum over k in K of w_kh · g_jt)

m, a, b are the additive baseline's at first and then learned on. The workload's tower gives w_i (r numbers a head),
the platform's p_j, s_jt (how much platform j lets workloads suffer in term t) and g_jt (how much it lets them press);
act is a leaky ReLU. This is the model of Pitot (MLSys 2025, Section 3), with the pressure of the workloads k beside.

Why numpy is enough: only the axes' entities go through the towers, not the observations. One product of all w with all
(p, s, g) gives a table of inner products, of which each observation gathers a few; gradients are scattered into a table
of the same shape by one bincount, and one product each takes them back to w and to (p, s, g).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike

from planner.completion.additive import Additive, fit_additive
from planner.completion.losses import Loss, loss_slopes, loss_values
from planner.completion.observations import Floats, Ints, Observations, standardised
from planner.completion.parameters import Array, Parameters, Schedule
from planner.completion.towers import Tower


@dataclass(frozen=True)
class Architecture:
    """What a network consists of.

    Attributes
    ----------
    rank
        Length r of the embeddings.
    hidden
        Width of the towers' layers; 0 for embeddings that are only learned (matrix factorisation).
    learned_inputs
        Inputs φ per entity, beside its features.
    free_embedding
        Whether each entity adds an embedding of its own to its tower's output.
    terms
        Interference terms; 0 leaves out interference.
    slope
        Of act below 0; 1 makes it the identity.
    features
        Whether the towers read features.
    factor_scale
        How much the factors of platforms weigh among their features, each as a column per level; 0 leaves them out.
    residual
        Whether the additive baseline is part of the model.
    quantiles
        A head for each.
    """

    rank: int = 64
    hidden: int = 128
    learned_inputs: int = 4
    free_embedding: bool = True
    terms: int = 2
    slope: float = 0.1
    features: bool = True
    factor_scale: float = 2.0
    residual: bool = True
    quantiles: tuple[float, ...] = (0.5,)

    def build(self, observations: Observations, seed: int) -> "Network":
        """Return an untrained network for the axes of observations."""
        return Network(self, observations, seed)


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows of one level, as positions in a part of the table of inner products.

    ``own`` (``[n]``) points at the workload on its platform, ``others`` (``[n, c]``) at those beside on the same.
    ``weight`` is what the batch's mean loss counts.
    """

    target: Array
    own: Ints
    others: Ints
    weight: float


class Network:
    """A model of one architecture for the axes of some observations; deterministic, given the seed."""

    def __init__(
        self,
        architecture: Architecture,
        observations: Observations,
        seed: int,
        dtype: type[np.floating] = np.float32,
    ) -> None:
        self.architecture = architecture
        self.workloads, self.platforms = len(observations.workloads), len(observations.platforms)
        by = architecture
        workload_features = standardised(observations.workloads.features).astype(dtype)
        platform_features = platform_inputs(observations, by.factor_scale).astype(dtype)
        if not by.features:
            workload_features, platform_features = workload_features[:, :0], platform_features[:, :0]
        shape = by.hidden, by.learned_inputs, by.free_embedding
        heads, parts = len(by.quantiles), 1 + 2 * by.terms
        self._workload_tower = Tower("workload", workload_features, shape[0], by.rank * heads, *shape[1:])
        self._platform_tower = Tower("platform", platform_features, shape[0], by.rank * parts, *shape[1:])
        self.parameters = Parameters(
            {
                **self._workload_tower.shapes(),
                **self._platform_tower.shapes(),
                "a": (self.platforms,),
                "b": (self.workloads, heads),
            },
            dtype,
        )
        rng = np.random.default_rng(seed)
        self._workload_tower.initialise(self.parameters.values, rng)
        self._platform_tower.initialise(self.parameters.values, rng)
        if heads > 1 and by.hidden:  # heads begin alike, so that they cross little
            last = self.parameters.values["workload.weight2"].reshape(by.hidden, heads, by.rank)
            last[:] = last[:, :1].copy()
        self._base = fit_additive(observations) if by.residual else _plain_mean(observations)
        self.parameters.values["a"][:] = self._base.platform
        self.parameters.values["b"][:] = self._base.workload[:, None]

    def decay(self, schedule: Schedule) -> Array:
        """Return the decay of each parameter: weights, inputs and free embeddings; biases, a and b have none."""
        decay = np.zeros_like(self.parameters.vector)
        for name, part in self.parameters.views(decay).items():
            if "weight" in name:
                part[...] = schedule.weight_decay
            elif name.endswith("free"):
                part[...] = schedule.embedding_decay
            elif name.endswith("input"):
                part[...] = schedule.input_decay
        return decay

    def batch(self, observations: Observations, weight: float = 1.0) -> Batch:
        """Return rows of one level in the form that `add_loss` takes."""
        rows = observations if self.architecture.terms else observations.alone()
        return batch_of(rows, self._base.mean, self.parameters.vector.dtype, weight)

    def loss(self, batches: Sequence[Batch], loss: Loss) -> float:
        """Return the weighted mean loss over batches and heads."""
        heads = len(self.architecture.quantiles)
        total = 0.0
        for head, quantile in enumerate(self.architecture.quantiles):
            table = self.tables(head)
            for batch in batches:
                error = self._gather(table, batch)[0] - batch.target
                total += batch.weight / heads * float(loss_values(loss, error, quantile).mean())
        return total

    def descend(self, batches: Sequence[Batch], loss: Loss) -> None:
        """Leave the gradient of `loss` in ``parameters.gradient``."""
        values, gradients = self.parameters.values, self.parameters.gradients
        workload, workload_way = self._workload_tower.forward(values)
        platform, platform_way = self._platform_tower.forward(values)
        heads = len(self.architecture.quantiles)
        workload_slope = np.zeros_like(workload)
        platform_slope = np.zeros_like(platform)
        gradients["a"][:] = 0
        for head, quantile in enumerate(self.architecture.quantiles):
            own, own_slope = self._head(workload, head), self._head(workload_slope, head)
            slope = self._scatter(self._table(own, platform, head), batches, loss, quantile)
            if heads > 1:
                slope /= heads
            for part, of_part in enumerate(slope):
                own_slope += of_part.T @ self._part(platform, part)
                self._part(platform_slope, part)[:] += of_part @ own
            gradients["a"] += slope[0].sum(axis=1)
            gradients["b"][:, head] = slope[0].sum(axis=0)
        self._workload_tower.backward(values, gradients, workload_way, workload_slope)
        self._platform_tower.backward(values, gradients, platform_way, platform_slope)

    def tables(self, head: int = 0) -> Array:
        """Return the inner products ``[1 + 2 terms, j, i]`` of p, every s and every g with w; a and b added to p's."""
        workload, _ = self._workload_tower.forward(self.parameters.values)
        platform, _ = self._platform_tower.forward(self.parameters.values)
        return self._table(self._head(workload, head), platform, head)

    def predict(self, observations: Observations, head: int = 0) -> Floats:
        """Return the predicted log time of each row (its measured one is not looked at)."""
        table = self.tables(head)
        found = np.empty(len(observations))
        level = observations.level
        for one in np.unique(level):
            rows = np.flatnonzero(level == one)
            found[rows] = self._gather(table, self.batch(observations.take(rows)))[0]
        return found + self._base.mean

    def completed(self, head: int = 0) -> Floats:
        """Return the predicted log time of every workload alone on every platform, ``[i, j]``."""
        found: Floats = self.tables(head)[0].T.astype(float) + self._base.mean
        return found

    def embeddings(self) -> tuple[Array, Array]:
        """Return w and p, ``[i, r · heads]`` and ``[j, r]``."""
        workload, _ = self._workload_tower.forward(self.parameters.values)
        platform, _ = self._platform_tower.forward(self.parameters.values)
        return workload, platform[:, : self.architecture.rank]

    def _part(self, platform: Array, part: int) -> Array:
        """Return p (part 0), s_1, ..., g_1, ... of all platforms."""
        rank = self.architecture.rank
        return platform[:, part * rank : (part + 1) * rank]

    def _head(self, workload: Array, head: int) -> Array:
        """Return w of a head of all workloads."""
        rank = self.architecture.rank
        return workload[:, head * rank : (head + 1) * rank]

    def _table(self, workload: Array, platform: Array, head: int) -> Array:
        parts = 1 + 2 * self.architecture.terms
        table = np.empty((parts, self.platforms, self.workloads), workload.dtype)
        for part in range(parts):
            np.matmul(self._part(platform, part), workload.T, out=table[part])
        table[0] += self.parameters.values["a"][:, None]
        table[0] += self.parameters.values["b"][:, head]
        return table

    def _gather(self, table: Array, batch: Batch) -> tuple[Array, list[tuple[Array, Array, Array]]]:
        """Return predictions, and per interference term: what is suffered, act of the pressure, and its slope."""
        parts = table.reshape(len(table), -1)
        predicted = parts[0].take(batch.own)
        ways = []
        if batch.others.shape[1]:
            terms = self.architecture.terms
            for suffers, presses in zip(parts[1 : 1 + terms], parts[1 + terms :], strict=True):
                suffered = suffers.take(batch.own)
                pressure = presses.take(batch.others[:, 0])
                for other in batch.others.T[1:]:
                    pressure += presses.take(other)
                slope = np.where(pressure > 0, pressure.dtype.type(1), pressure.dtype.type(self.architecture.slope))
                pressure *= slope
                predicted += suffered * pressure
                ways.append((suffered, pressure, slope))
        return predicted, ways

    def _scatter(self, table: Array, batches: Sequence[Batch], loss: Loss, quantile: float) -> Array:
        """Return the derivative of one head's loss by the table of inner products."""
        terms = self.architecture.terms
        derivative = np.zeros_like(table)
        parts = derivative.reshape(len(table), -1)
        for batch in batches:
            predicted, ways = self._gather(table, batch)
            predicted -= batch.target
            slope = loss_slopes(loss, predicted, quantile)
            slope *= batch.weight / len(slope)
            np.add.at(parts[0], batch.own, slope)
            for term, (suffered, active, bend) in enumerate(ways):
                np.add.at(parts[1 + term], batch.own, slope * active)
                suffered *= slope
                suffered *= bend
                for other in batch.others.T:
                    np.add.at(parts[1 + terms + term], other, suffered)
        return derivative


def batch_of(observations: Observations, mean: float, dtype: DTypeLike, weight: float) -> Batch:
    """Return rows of one level as a batch; log times are told from ``mean`` on."""
    others = np.sort(observations.beside, axis=1)  # -1, where nobody is, comes first
    beside = others[:, others.shape[1] - observations.level.max(initial=0) :]
    row = observations.platform * len(observations.workloads)
    target = (observations.log_time - mean).astype(dtype)
    return Batch(target, row + observations.workload, row[:, None] + beside, weight)


def platform_inputs(observations: Observations, factor_scale: float) -> Floats:
    """Return the platforms' standardised features, then a column per level of each factor."""
    columns = [standardised(observations.platforms.features)]
    if factor_scale:
        for level in observations.platforms.factors.values():
            columns.append(factor_scale * np.eye(int(level.max(initial=0)) + 1)[level])
    return np.concatenate(columns, axis=1)


def _plain_mean(observations: Observations) -> Additive:
    zeros = np.zeros(len(observations.workloads)), np.zeros(len(observations.platforms))
    return Additive(float(observations.log_time.mean()), *zeros)
