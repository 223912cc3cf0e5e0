"""The roofline's coefficients, fitted to latencies that were measured.

Given samples (a model's workload, where its blocks begin, measured tables of one device), find the coefficients c
that minimise

    sum over tables and batches of [ 4 H(log whole) + 1/4 · sum over blocks of H(log block) ] / batches of the table
    + sum over coefficients of ((log c - log prior) / deviation)² / 8

where whole and block are estimated over measured latencies and H is Huber's loss with its corner at 0.5, so that no
single block decides. The priors keep what the samples do not show (no sample has a depthwise convolution, say) where
it usually is; a product is expected to be as efficient as a convolution of 1 × 1, which is one. Levenberg and
Marquardt's method, on logarithms, with a Jacobian by differences.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher

import numpy as np
from numpy.typing import NDArray

from planner.model import LatencyTable
from planner.profiling.catalogue import CatalogueDevice, Coefficients
from planner.profiling.onnx_graph import ModelGraph
from planner.profiling.roofline import Workload, estimate_workload

Floats = NDArray[np.float64]

# coefficient: (prior, deviation of its logarithm)
PRIORS = {
    "conv3x3_efficiency": (0.6, 1.0),
    "conv1x1_efficiency": (0.4, 1.0),
    "conv_efficiency": (0.4, 1.0),
    "grouped_efficiency": (0.2, 1.0),
    "depthwise_efficiency": (0.1, 1.0),
    "matmul_efficiency": (0.4, 1.0),
    "vector_efficiency": (0.1, 1.0),
    "memory_efficiency": (0.7, 0.5),
    "launch_us": (5.0, 0.7),
    "saturation_elements": (20_000.0, 1.0),
    "share_exponent": (1.0, 0.1),
}
PRODUCT_DEVIATION = 0.6  # of log(product's efficiency / that of a convolution of 1 × 1)
WHOLE_WEIGHT, BLOCK_WEIGHT, PRIOR_WEIGHT = 2.0, 0.5, 0.5
HUBER_CORNER = 0.5


@dataclass(frozen=True, eq=False)
class Sample:
    """A model whose blocks, beginning at layers ``starts``, were measured on one device."""

    name: str
    workload: Workload
    starts: tuple[int, ...]
    tables: tuple[LatencyTable, ...]


@dataclass(frozen=True, eq=False)
class Errors:
    """Estimated over measured latency, less 1: of whole models, and of blocks, over all shares and batches."""

    whole: Floats
    block: Floats

    @property
    def median_whole(self) -> float:
        """Median absolute error of whole-model latency."""
        return float(np.median(np.abs(self.whole)))

    @property
    def median_block(self) -> float:
        """Median absolute error of block latency."""
        return float(np.median(np.abs(self.block)))


def fit_coefficients(device: CatalogueDevice, samples: Sequence[Sample], source: str) -> Coefficients:
    """Return the coefficients of a device that fit the samples best."""
    logs = np.log([prior for prior, _ in PRIORS.values()])
    damping, loss = 1.0, _loss(_residuals(logs, device, samples))
    while damping < 1e8:
        residuals = _residuals(logs, device, samples)
        jacobian = np.stack(
            [(_residuals(logs + 1e-4 * unit, device, samples) - residuals) / 1e-4 for unit in np.eye(len(logs))], axis=1
        )
        weights = np.minimum(1.0, HUBER_CORNER / np.maximum(np.abs(residuals), 1e-12))
        normal = jacobian.T @ (weights[:, None] * jacobian)
        step = -np.linalg.solve(normal + damping * np.diag(np.diag(normal)), jacobian.T @ (weights * residuals))
        moved = logs + np.clip(step, -1.0, 1.0)
        moved_loss = _loss(_residuals(moved, device, samples))
        if moved_loss >= loss:
            damping *= 4
            continue
        converged = loss - moved_loss < 1e-7 * loss
        logs, loss, damping = moved, moved_loss, max(damping / 3, 1e-6)
        if converged:
            break
    return _coefficients(logs, source)


def estimation_errors(device: CatalogueDevice, samples: Sequence[Sample]) -> Errors:
    """Return how far a device's estimates are from the samples."""
    whole: list[float] = []
    block: list[float] = []
    for sample in samples:
        for table in sample.tables:
            for estimated, measured in _blocks(device, sample, table):
                whole.append(estimated.sum() / measured.sum() - 1)
                block.extend(estimated / measured - 1)
    return Errors(np.array(whole), np.array(block))


def leave_one_out(device: CatalogueDevice, samples: Sequence[Sample]) -> dict[str, Errors]:
    """Return the errors on each sample of coefficients that were fitted to the others."""
    found = {}
    for left_out in samples:
        others = [sample for sample in samples if sample is not left_out]
        fitted = replace(device, coefficients=fit_coefficients(device, others, "leave one out"))
        found[left_out.name] = estimation_errors(fitted, [left_out])
    return found


def align_layers(operators: Sequence[str], graph: ModelGraph) -> tuple[dict[int, int], list[str]]:
    """Match a list of operators, in order, with a model's layers.

    Returns
    -------
    tuple
        Positions in the list to layers, and a text for every run that does not match.
    """
    ours = [layer.operator for layer in graph.layers]
    matched: dict[int, int] = {}
    differing = []
    for kind, first, last, our_first, our_last in SequenceMatcher(None, operators, ours, autojunk=False).get_opcodes():
        if kind == "equal":
            matched.update(zip(range(first, last), range(our_first, our_last), strict=True))
        else:
            differing.append(f"{list(operators[first:last])} against {ours[our_first:our_last]}")
    return matched, differing


def _coefficients(logs: Floats, source: str) -> Coefficients:
    values = dict(zip(PRIORS, np.exp(logs).tolist(), strict=True))
    return Coefficients(**{name: float(f"{value:.4g}") for name, value in values.items()}, source=source)


def _blocks(device: CatalogueDevice, sample: Sample, table: LatencyTable) -> list[tuple[Floats, Floats]]:
    """Return estimated and measured block latencies for every batch of a table."""
    return [
        (
            np.add.reduceat(estimate_workload(sample.workload, device, batch, int(table.share)), list(sample.starts)),
            np.maximum(1.0, np.array(measured, float)),
        )
        for batch, measured in zip(table.batches, table.latency_us, strict=True)
    ]


def _residuals(logs: Floats, device: CatalogueDevice, samples: Sequence[Sample]) -> Floats:
    values = dict(zip(PRIORS, np.exp(logs).tolist(), strict=True))
    trial = replace(device, coefficients=Coefficients(**values))
    residuals = []
    for sample in samples:
        for table in sample.tables:
            weight = 1 / np.sqrt(len(table.batches))
            for estimated, measured in _blocks(trial, sample, table):
                residuals.append(np.log(estimated.sum() / measured.sum())[None] * weight * WHOLE_WEIGHT)
                residuals.append(np.log(np.maximum(estimated, 1.0) / measured) * weight * BLOCK_WEIGHT)
    names = list(PRIORS)
    centres, deviations = np.array(list(PRIORS.values())).T
    residuals.append((logs - np.log(centres)) / deviations * PRIOR_WEIGHT)
    tie = logs[names.index("matmul_efficiency")] - logs[names.index("conv1x1_efficiency")]
    residuals.append(np.array([tie / PRODUCT_DEVIATION * PRIOR_WEIGHT]))
    return np.concatenate(residuals)


def _loss(residuals: Floats) -> float:
    size = np.abs(residuals)
    return float(np.where(size < HUBER_CORNER, size**2 / 2, HUBER_CORNER * (size - HUBER_CORNER / 2)).sum())
