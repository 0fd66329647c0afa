"""p-values are valid, false discoveries are what was asked for."""

from __future__ import annotations

import numpy as np
import pytest

from genai_core.calibration import Calibration, benjamini_hochberg


def test_p_values_by_their_definition() -> None:
    calibration = Calibration(np.array([1.0, 2.0, 2.0, 5.0]))
    found = calibration.p_values(np.array([0.0, 1.0, 2.0, 2.1, 5.0, 5.1, np.nan, np.inf]))
    assert found.tolist() == [1.0, 1.0, 0.8, 0.4, 0.4, 0.2, 0.2, 0.2]


def test_p_values_of_normal_rows_are_not_too_small() -> None:
    random = np.random.default_rng(0)
    shares = [
        (Calibration(random.normal(size=500)).p_values(random.normal(size=500)) <= 0.05).mean()
        for _ in range(200)
    ]
    assert np.mean(shares) <= 0.05 + 3 * np.std(shares) / len(shares) ** 0.5


def by_definition(p: np.ndarray, level: float) -> np.ndarray:
    order = np.sort(p)
    passing = np.flatnonzero(order <= level * np.arange(1, len(p) + 1) / len(p) * (1 + 1e-12))
    return p <= (order[passing[-1]] if len(passing) else -1)


@pytest.mark.parametrize("seed", range(30))
def test_benjamini_hochberg_from_counts_is_the_procedure(seed: int) -> None:
    random = np.random.default_rng(seed)
    n = 200
    ranks = np.concatenate([random.integers(1, n + 2, 300), random.integers(1, 4, seed)])
    p = ranks / (n + 1)
    counts = np.bincount(ranks - 1, minlength=n + 1)
    for level in (0.01, 0.1, 0.3):
        threshold = benjamini_hochberg(counts, level)
        assert np.array_equal((p <= threshold + 1e-12) & (threshold > 0), by_definition(p, level))


def test_large_calibration_sets_are_thinned_without_bias() -> None:
    scores = np.random.default_rng(0).normal(size=100_000)
    kept = Calibration.fit(scores)
    assert len(kept) == 20_000
    assert abs(np.quantile(kept.scores, 0.99) - np.quantile(scores, 0.99)) < 0.1
