"""Random streams: numbers as they should be, and each a function of its key alone."""

from statistics import NormalDist

import numpy as np
import pytest

from simulator.engine.streams import SERVICE, inverse_normal, normal, uniform


def draws(function, seed: int, entity: int, count: int = 20_000) -> np.ndarray:
    return np.array([function(seed, SERVICE, entity, k) for k in range(count)])


def test_normal_quantiles_are_those_of_the_standard_library() -> None:
    for p in (1e-300, 1e-16, 1e-9, 0.001, 0.0749, 0.0751, 0.3, 0.5, 0.9, 0.925, 0.99999, 1 - 1e-12):
        assert inverse_normal(p) == pytest.approx(NormalDist().inv_cdf(p), rel=1e-15)


def test_draws_are_uniform_and_independent() -> None:
    """Moments, serial correlation, and correlation between servers and seeds within five standard errors."""
    u, other, seeded = draws(uniform, 1, 0), draws(uniform, 1, 1), draws(uniform, 2, 0)
    n = len(u)
    assert abs(u.mean() - 0.5) < 5 / np.sqrt(12 * n)
    assert abs(u.var() * 12 - 1) < 5 * np.sqrt(0.8 / n)
    counts = np.bincount((u * 100).astype(int), minlength=100)
    assert abs(((counts - n / 100) ** 2 / (n / 100)).sum() - 99) < 5 * np.sqrt(2 * 99)
    for a, b in ((u[1:], u[:-1]), (u, other), (u, seeded)):
        assert abs(np.corrcoef(a, b)[0, 1]) < 5 / np.sqrt(n)
    assert draws(normal, 1, 0).std() == pytest.approx(1, abs=5 / np.sqrt(2 * n))
