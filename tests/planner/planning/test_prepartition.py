"""Blocks against all ways to cut, a linear programme, and the published prepartitions."""

import os
from itertools import combinations, pairwise
from math import nan
from pathlib import Path

import numpy as np
import pytest

from planner.files.ppipe import list_dnns, read_layers, read_prepartition
from planner.model import InputError
from planner.planning.prepartition import RELAXATIONS, Blocks, even_runtime, leftmost_minima, prepartition
from planner.planning.programme.backends import solve
from planner.planning.programme.linear import LinearModel

REFERENCE = os.environ.get("POOLPIPE_REFERENCE")


def every_cutting(layers: int, blocks: int) -> list[tuple[int, ...]]:
    return [(0, *inner) for inner in combinations(range(1, layers), blocks - 1)]


def shares(latency_us: np.ndarray, starts: tuple[int, ...]) -> np.ndarray:
    """Return each block's share of the latency [device, block], as a multiple of 1/N."""
    ends = [*starts[1:], latency_us.shape[1]]
    sums = [latency_us[:, begin:end].sum(axis=1) for begin, end in zip(starts, ends, strict=True)]
    return np.array(sums).T / latency_us.sum(axis=1, keepdims=True) * len(starts)


def random_layers(seed: int, layers: int) -> tuple[np.ndarray, list[int]]:
    rng = np.random.default_rng(seed)
    return rng.integers(1, 20, (2, layers)).astype(float), rng.integers(1, 100, layers - 1).tolist()


@pytest.mark.parametrize("seed", range(20))
def test_fewest_bytes_within_the_tightest_bounds(seed: int) -> None:
    latency_us, cut_bytes = random_layers(seed, layers=9)
    found = prepartition(latency_us.tolist(), cut_bytes, blocks=3)
    for lower, upper in (*RELAXATIONS, (0.0, 3.0)):
        allowed = [
            starts
            for starts in every_cutting(9, 3)
            if (shares(latency_us, starts) >= lower - 1e-9).all() and (shares(latency_us, starts) <= upper + 1e-9).all()
        ]
        if allowed:
            break
    best = min(sum(cut_bytes[start - 1] for start in starts[1:]) for starts in allowed)
    assert (found.lower, found.upper, found.cut_bytes) == (lower, upper, best)
    assert found.starts in allowed


@pytest.mark.parametrize("seed", range(5))
def test_fewest_bytes_as_a_linear_programme(seed: int) -> None:
    # A shortest path over (block, layer): a column per arc, a row per node; its optimum is integral.
    latency_us, cut_bytes = random_layers(seed + 50, layers=12)
    found = prepartition(latency_us.tolist(), cut_bytes, blocks=4)
    before = np.concatenate([np.zeros((2, 1)), (latency_us / latency_us.sum(axis=1, keepdims=True)).cumsum(axis=1)], 1)
    model = LinearModel()
    nodes: dict[tuple[int, int], list[tuple[int, float]]] = {}
    for block in range(4):
        for begin, end in combinations(range(13), 2):
            share = (before[:, end] - before[:, begin]) * 4
            if (share >= found.lower - 1e-9).all() and (share <= found.upper + 1e-9).all():
                cost = cut_bytes[begin - 1] if begin else 0
                arc = model.add_column(f"block[{block},{begin},{end}]", objective=float(cost))
                nodes.setdefault((block, begin), []).append((arc, 1.0))
                nodes.setdefault((block + 1, end), []).append((arc, -1.0))
    for node, terms in nodes.items():
        flow = {(0, 0): 1.0, (4, 12): -1.0}.get(node, 0.0)
        model.add_row(f"node{node}", terms, lower=flow, upper=flow)
    assert solve(model)[0].objective == pytest.approx(found.cut_bytes)


@pytest.mark.parametrize("seed", range(10))
def test_the_most_even_blocks(seed: int) -> None:
    latency_us, cut_bytes = random_layers(seed, layers=9)
    found = even_runtime(latency_us.tolist(), cut_bytes, blocks=3)
    spread = min(abs(shares(latency_us, starts) - 1).max() for starts in every_cutting(9, 3))
    assert abs(shares(latency_us, found.starts) - 1).max() == pytest.approx(spread, abs=1e-5)
    assert (found.lower, found.upper) == pytest.approx(
        (shares(latency_us, found.starts).min(), shares(latency_us, found.starts).max())
    )


def test_a_model_of_few_layers_has_one_block_per_layer() -> None:
    assert prepartition([[1.0, 2.0, 3.0]], [5, 6], blocks=10).starts == (0, 1, 2)
    assert even_runtime([[1.0, 2.0, 3.0]], [5, 6], blocks=3).starts == (0, 1, 2)
    assert prepartition([[4.0]], [], blocks=10) == Blocks((0,), 1.0, 1.0, 0)


def test_one_layer_that_is_most_of_a_model() -> None:
    found = prepartition([[1.0] * 5 + [95.0] + [1.0] * 6], [9] * 11, blocks=10)
    assert (found.lower, found.upper) == (0.0, 10.0)
    assert len(found.starts) == 10


@pytest.mark.parametrize(
    ("latency_us", "cut_bytes", "blocks", "message"),
    [
        ([[1.0, 2.0]], [5], 0, "blocks: expected at least 1, got 0"),
        ([], [5], 2, "at least one device"),
        ([[1.0, 2.0], [1.0]], [5], 2, r"different numbers of layers: \[1, 2\]"),
        ([[1.0, 2.0]], [5, 5], 2, r"different numbers of layers: \[2, 3\]"),
        ([[1.0, -2.0]], [5], 2, "expected numbers >= 0"),
        ([[1.0, nan]], [5], 2, "expected numbers >= 0"),
        ([[0.0, 0.0]], [5], 2, "a sum above 0"),
    ],
)
def test_bad_input(latency_us: list[list[float]], cut_bytes: list[int], blocks: int, message: str) -> None:
    for way in (prepartition, even_runtime):
        with pytest.raises(InputError, match=message):
            way(latency_us, cut_bytes, blocks)


@pytest.mark.skipif(REFERENCE is None, reason="POOLPIPE_REFERENCE is unset")
def test_published_prepartitions() -> None:
    data = Path(REFERENCE or "") / "ppipe"
    names, equal = list_dnns(data), 0
    assert len(names) == 18
    for name in names:
        layers, published = read_layers(data, name), read_prepartition(data, name)
        found = prepartition(list(layers.latency_us.values()), layers.cut_bytes, 10)
        assert (found.lower, found.upper) == (published.lower, published.upper)
        assert all(begin < end for begin, end in pairwise(found.starts))
        if len(published.blocks) == 10:
            assert found.cut_bytes == sum(published.cut_bytes)
            equal += 1
        else:  # nine blocks instead of ten, with a cut less to pay for
            assert found.cut_bytes > sum(published.cut_bytes)
    assert equal == 14


@pytest.mark.parametrize("seed", range(10))
def test_minima_over_ranges_are_the_leftmost_ones(seed: int) -> None:
    rng = np.random.default_rng(seed)
    cost = rng.integers(0, 5, 40).astype(float)  # many are equal
    first = rng.integers(0, 40, 60)
    last = rng.integers(first + 1, 41)
    expected = [begin + int(cost[begin:end].argmin()) for begin, end in zip(first, last, strict=True)]
    assert leftmost_minima(cost, first, last).tolist() == expected
