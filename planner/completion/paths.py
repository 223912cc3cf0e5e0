"""Bounds of sums, as stages and pipelines form them, and after a planner has chosen.

A stage is a sum of blocks. Bounding each block and adding up asks for much more than is needed, for errors of blocks
average out; so bounds are made of sums: every latency of a run r is multiplied by exp(q · σ_r), where σ_r is how much
the run's whole latency may be off (by the model's own covariance of its blocks, and a tenth more that it does not know
of), and q is calibrated on sums of runs that the prediction has not seen: the score of a pipeline is the q with which
its latency, over one stage or two, just keeps its bound.

*After selection.* A planner takes what looks cheap, that is, what was underestimated. Bounds that hold for 95 % of all
runs hold for fewer of those chosen. Scores of stages that plans chose, and that were then measured, know that: q
calibrated on these (one score per plan, the worst) holds for the next plan, as far as its problem is like theirs
(exchangeable with them) and the plan is made in the same way.

What is guaranteed: with scores of runs that took no part in the fit, the order statistic of
`planner.completion.conformal`. With scores of runs left out one by one of the fit that is then used (as here, which
wastes none) coverage is at least 1 - 2 miss for stable fits and usually near 1 - miss (Barber et al. 2021, "Predictive
inference with the jackknife+", Theorem 1 and Section 2.3).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from planner.completion.observations import Floats
from planner.model.segments import Share

UNKNOWN_SIGMA = 0.1  # of the log of a latency: models of covariance are too sure of what lies near measurements
STEEPEST = 60.0  # margins beyond it, in sigmas, are not told apart


@dataclass(frozen=True, eq=False)
class Predicted:
    """A run predicted without its measurement: ``latency_us`` per block, ``sigma`` of the log of their sum.

    ``block_sigma`` are those of the blocks, ``measured_us`` what was measured (NaN for blocks that were not).
    """

    model: str
    device: str
    latency_us: Floats
    sigma: float
    block_sigma: Floats
    measured_us: Floats

    def score(self, first: int, last: int) -> float:
        """Return the score of the stage of blocks [first, last)."""
        part = slice(first, last)
        return float(np.log(self.measured_us[part].sum() / self.latency_us[part].sum())) / self.sigma


def sum_sigma(latency_us: Floats, covariance: Floats) -> float:
    """Return the standard deviation of the log of a sum, given the covariance of its parts' logs (the delta method).

    >>> round(sum_sigma(np.array([1.0, 1.0]), np.diag([0.02, 0.02])), 6)
    0.1
    """
    weight = latency_us / latency_us.sum()
    return float(np.sqrt(max(weight @ covariance @ weight, 0.0)))


def sigmas(latency_us: Floats, covariance: Floats) -> tuple[float, Floats]:
    """Return what errors of a run's whole latency, and of its blocks', are measured in: logs, the unknown included.

    >>> whole, block = sigmas(np.array([1.0, 1.0]), np.zeros((2, 2)))
    >>> round(whole, 6), block.round(6).tolist()
    (0.1, [0.1, 0.1])
    """
    whole = float(np.hypot(sum_sigma(latency_us, covariance), UNKNOWN_SIGMA))
    blocks: Floats = np.hypot(np.sqrt(np.maximum(np.diag(covariance), 0.0)), UNKNOWN_SIGMA)
    return whole, blocks


def path_scores(runs: Sequence[Predicted]) -> Floats:
    """Return the scores of pipelines: each run whole, and any two of a model with any cut between, all blocks measured.

    With predicted sums S, S' of the two stages and a true sum T of both, a pipeline's score is the q that solves
    exp(q σ) S + exp(q σ') S' = T: the least with which its latency keeps its bound.
    """
    by_model: dict[str, list[Predicted]] = {}
    for run in runs:
        by_model.setdefault(run.model, []).append(run)
    rows = []
    for own in by_model.values():
        heads = [(np.cumsum(run.latency_us), np.cumsum(run.measured_us)) for run in own]
        for first, (head, true_head) in zip(own, heads, strict=True):
            rows.append(np.array([[head[-1], 0.0, first.sigma, 1.0, true_head[-1]]]))
            for second, (tail, true_tail) in zip(own, heads, strict=True):
                if second is first or len(head) == 1:
                    continue
                sums = head[:-1], tail[-1] - tail[:-1], true_head[:-1] + true_tail[-1] - true_tail[:-1]
                sigmas = np.full((2, len(head) - 1), [[first.sigma], [second.sigma]])
                rows.append(np.stack([sums[0], sums[1], *sigmas, sums[2]], axis=1))
    if not rows:
        return np.zeros(0)
    return _least_margin(*np.concatenate(rows).T)


def _least_margin(first: Floats, second: Floats, sigma: Floats, sigma_second: Floats, true: Floats) -> Floats:
    """Solve exp(q σ) S + exp(q σ') S' = T for q, by bisection."""
    low, high = np.full(len(true), -STEEPEST), np.full(len(true), STEEPEST)
    for _ in range(50):
        q = (low + high) / 2
        short = np.exp(q * sigma) * first + np.exp(q * sigma_second) * second < true
        low, high = np.where(short, q, low), np.where(short, high, q)
    return high


def block_scores(runs: Sequence[Predicted]) -> Floats:
    """Return the scores of single blocks: log(measured / predicted) over the block's own sigma."""
    scores = [np.log(run.measured_us / run.latency_us) / run.block_sigma for run in runs]
    every = np.concatenate(scores) if scores else np.zeros(0)
    found: Floats = every[np.isfinite(every)]
    return found


def plan_scores(
    stages: Sequence[tuple[str, str, Share, int, int, int]],
    predicted: Mapping[tuple[str, str, Share, int], Predicted],
) -> float:
    """Return the worst score of what a plan chose and was then measured; minus infinity where nothing was.

    Stages are (model, device, share, batch, first block, last block).
    """
    scores = [
        run.score(first, last)
        for model, device, share, batch, first, last in stages
        if (run := predicted.get((model, device, share, batch))) is not None
        and np.isfinite(run.measured_us[first:last]).all()
    ]
    return max(scores, default=-np.inf)
