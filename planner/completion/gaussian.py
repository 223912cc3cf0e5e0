"""Few measurements of many structured cells: a Gaussian model whose covariance is a sum of effects.

A cell's log time is mean + a sum of effects + noise. Every *component* c is a family of effects: cells of the same key
share one, linear in their features x,

    covariance of cells r and r' = sum over c of v_c · [key_cr = key_cr'] · (x_cr · x_cr') + [r = r'] · v_noise

so that a device, a model, a block, what batches do to a block, what a block is to a device, ... each have a variance v,
which says how much measurements of one cell tell of another. With v given, everything is in closed form: the posterior
of all cells, predictions with a group of measurements left out, and which cell to measure next.

v maximises the likelihood of the measurements, by the steps of Zhou, Hu, Zhou and Lange (2019, "MM algorithms for
variance components models"): v_c <- v_c · sqrt( (αᵀ K_c α) / tr(K⁻¹ K_c) ), α = K⁻¹ (y - mean); each raises it.

Towers (`planner.completion.network`) learn what platforms have in common, which takes dozens of them; with a handful of
devices this model says more.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from planner.completion.observations import Floats, Ints

MM_PASSES = 40
START_VARIANCE, LEAST_VARIANCE = 0.05, 1e-7
LEAST_NOISE = 1e-4  # (1 %)² of the latency: no measurement repeats better
CELLS_AT_ONCE = 1000


@dataclass(frozen=True, eq=False)
class Component:
    """A family of effects: ``key`` ``[cells]`` and ``features`` ``[cells, d]``."""

    name: str
    key: Ints
    features: Floats

    def covariance(self, rows: Ints, others: Ints) -> Floats:
        """Return the covariance, at variance 1, of cells with cells: ``[rows, others]``."""
        same = self.key[rows][:, None] == self.key[others]
        found: Floats = same * (self.features[rows] @ self.features[others].T)
        return found


@dataclass(frozen=True, eq=False)
class Effects:
    """Components with their variances, and the mean that all cells share."""

    components: tuple[Component, ...]
    variance: Floats
    noise: float
    mean: float

    def covariance(self, rows: Ints, others: Ints) -> Floats:
        """Return the covariance, without noise, of cells with cells."""
        found = np.zeros((len(rows), len(others)))
        for component in self._by_key:
            found += component.covariance(rows, others)
        return found

    @cached_property
    def _by_key(self) -> tuple[Component, ...]:
        """Components, those of one key as one whose features carry their standard deviations."""
        scaled: dict[int, list[tuple[Component, Floats]]] = {}
        for component, variance in zip(self.components, self.variance, strict=True):
            if variance > LEAST_VARIANCE:
                features = np.sqrt(variance) * component.features
                scaled.setdefault(id(component.key), []).append((component, features))
        return tuple(
            Component(own[0][0].name, own[0][0].key, np.hstack([features for _, features in own]))
            for own in scaled.values()
        )


def fit_effects(components: Sequence[Component], rows: Ints, log_time: Floats, passes: int = MM_PASSES) -> Effects:
    """Return the components with the variances that make measurements of cells ``rows`` likeliest.

    Time grows with the cube of the rows; some hundreds are enough.
    """
    parts = [component.covariance(rows, rows) for component in components]
    scale = np.array([max(np.trace(part) / len(rows), 1e-9) for part in parts])
    variance = START_VARIANCE / scale
    noise, mean = START_VARIANCE / 5, 0.0
    for _ in range(passes):
        total = sum(v * part for v, part in zip(variance, parts, strict=True)) + noise * np.eye(len(rows))
        inverse = np.linalg.inv(total)
        weight = inverse.sum(axis=0)
        mean = float(weight @ log_time / weight.sum())
        alpha = inverse @ (log_time - mean)
        gain = np.array([(alpha @ part @ alpha) / max((inverse * part).sum(), 1e-12) for part in parts])
        variance = np.maximum(variance * np.sqrt(np.maximum(gain, 0)), LEAST_VARIANCE / scale)
        noise = max(noise * float(np.sqrt((alpha @ alpha) / np.trace(inverse))), LEAST_NOISE)
    return Effects(tuple(components), variance, noise, mean)


@dataclass(frozen=True, eq=False)
class Posterior:
    """What measurements ``log_time`` of cells ``rows`` say of all cells."""

    effects: Effects
    rows: Ints
    log_time: Floats

    @cached_property
    def _inverse(self) -> Floats:
        covariance = self.effects.covariance(self.rows, self.rows) + self.effects.noise * np.eye(len(self.rows))
        return np.asarray(np.linalg.inv(covariance))

    @cached_property
    def _alpha(self) -> Floats:
        found: Floats = self._inverse @ (self.log_time - self.effects.mean)
        return found

    def mean(self, cells: Ints) -> Floats:
        """Return the expected log time of cells."""
        found: Floats = self.effects.mean + self.effects.covariance(cells, self.rows) @ self._alpha
        return found

    def covariance(self, cells: Ints) -> Floats:
        """Return the covariance of cells' log times about their mean, noise left out: ``[cells, cells]``."""
        known = self.effects.covariance(cells, self.rows)
        found: Floats = self.effects.covariance(cells, cells) - known @ self._inverse @ known.T
        return found

    def of_groups(self, groups: Sequence[Ints]) -> Iterator[tuple[Floats, Floats]]:
        """Yield `mean` and `covariance` of one group of cells after the other; many groups take less time together."""
        sizes = np.cumsum([len(group) for group in groups])
        parts = np.split(np.arange(len(groups)), np.flatnonzero(np.diff(sizes // CELLS_AT_ONCE)) + 1)
        for part in parts:
            together = [groups[number] for number in part]
            known = self.effects.covariance(np.concatenate(together), self.rows)
            mean, explained = self.effects.mean + known @ self._alpha, known @ self._inverse
            end = 0
            for cells in together:
                at = slice(end, end := end + len(cells))
                yield mean[at], self.effects.covariance(cells, cells) - explained[at] @ known[at].T

    def without(self, measured: Ints) -> tuple[Floats, Floats]:
        """Return mean and covariance (noise included) of some measurements as if they had not been made.

        ``measured`` are positions in ``rows``; with B for these, mean = y_B - (K⁻¹_BB)⁻¹ α_B, covariance = (K⁻¹_BB)⁻¹
        (Rasmussen and Williams 2006, "Gaussian processes for machine learning", Section 5.4.2).
        """
        covariance: Floats = np.asarray(np.linalg.inv(self._inverse[np.ix_(measured, measured)]), dtype=float)
        return self.log_time[measured] - covariance @ self._alpha[measured], covariance


def next_measurements(covariance: Floats, candidates: Sequence[Ints], noise: float, budget: int) -> list[int]:
    """Choose which of the candidates to measure, one after the other (greedy A-optimal design).

    Each time that one which takes most off the summed variance of all cells. No measurement is needed to choose: in a
    Gaussian model the variance left over does not depend on what is measured.

    Parameters
    ----------
    covariance
        ``[n, n]`` of the cells that matter.
    candidates
        For each, the cells (positions in ``covariance``) that it measures at once.
    noise
        Variance of one measurement.
    budget
        How many to choose.

    Returns
    -------
    list
        Positions in ``candidates``, the best first.
    """
    left = covariance.copy()
    chosen: list[int] = []
    for _ in range(min(budget, len(candidates))):
        gains = np.full(len(candidates), -np.inf)
        for number, cells in enumerate(candidates):
            if number not in chosen:
                seen = left[np.ix_(cells, cells)] + noise * np.eye(len(cells))
                gains[number] = np.sum(np.linalg.solve(seen, left[cells]) * left[cells])
        best = int(np.argmax(gains))
        chosen.append(best)
        left = reduced(left, candidates[best], noise)
    return chosen


def reduced(covariance: Floats, cells: Ints, noise: float) -> Floats:
    """Return the covariance that is left once some cells are measured."""
    seen = covariance[np.ix_(cells, cells)] + noise * np.eye(len(cells))
    found: Floats = covariance - covariance[:, cells] @ np.linalg.solve(seen, covariance[cells])
    return found
