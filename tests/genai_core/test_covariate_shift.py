"""Weighted calibration: p-values that hold where covariates have moved, and what keeps weights within bounds."""

from __future__ import annotations

import numpy as np
import pytest

from genai_core.calibration import Calibration, benjamini_hochberg, reaching
from genai_core.covariate_shift import MAX_WEIGHT, effective_rows, raked


def groups(random: np.random.Generator, rows: int, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Buckets of two columns, and scores that are high and wide in the second group of the first."""
    second = random.random(rows) < share
    other = random.integers(0, 3, rows)
    return np.stack([second, other], 1).astype(np.uint8), np.where(second, 4, 1) * random.exponential(
        size=rows
    )


def histograms(rows: np.ndarray) -> list[np.ndarray]:
    return [np.bincount(rows[:, i], minlength=size) for i, size in enumerate((2, 3))]


@pytest.mark.parametrize("seed", range(5))
def test_where_a_group_has_grown_plain_p_values_are_too_small_and_weighted_ones_hold(seed: int) -> None:
    random = np.random.default_rng(seed)
    held_out, scores = groups(random, 4000, 0.1)
    rows, found = groups(random, 4000, 0.6)
    calibration = Calibration(scores)
    plain = calibration.p_values(found)
    weighted = calibration.weighted(raked(held_out, histograms(rows)))[reaching(plain, len(calibration))]
    assert (plain <= 0.1).mean() > 0.25
    assert (weighted <= 0.1).mean() == pytest.approx(0.1, abs=0.03)
    assert (weighted <= 0.01).mean() == pytest.approx(0.01, abs=0.01)


def test_weighted_rows_have_the_histograms_asked_for() -> None:
    random = np.random.default_rng(0)
    held_out, wanted = groups(random, 5000, 0.1)[0], groups(random, 100_000, 0.5)[0]
    wanted = wanted[(wanted[:, 1] > 0) | (random.random(len(wanted)) < 0.2)]
    weights = raked(held_out, histograms(wanted))
    for i, counts in enumerate(histograms(wanted)):
        have = np.bincount(held_out[:, i], weights=weights) / weights.sum()
        assert have == pytest.approx(counts / counts.sum(), abs=1e-3)
    assert effective_rows(weights) == pytest.approx(weights.sum() ** 2 / (weights**2).sum())
    assert effective_rows(weights) < len(held_out) / 2


def test_no_weight_is_above_the_limit_and_what_was_never_held_out_gets_none() -> None:
    held_out = np.zeros((2000, 1), np.uint8)
    held_out[:3] = 1
    weights = raked(held_out, [np.array([0, 5000, 5000])])  # the third bucket has no row
    assert weights[:3] == pytest.approx(MAX_WEIGHT) and weights.max() == MAX_WEIGHT
    assert effective_rows(weights) == pytest.approx(3, abs=0.1)  # far too few to be used


def test_few_rows_of_a_part_say_little() -> None:
    held_out = np.arange(4000).astype(np.uint8)[:, None] % 4
    few, many = (raked(held_out, [np.array([n, 0, 0, 0])]) for n in (4, 4000))
    assert few.max() == pytest.approx(4 * (4 + 1) / 8, rel=0.05) and many.max() > 3.9


def test_equal_weights_are_the_plain_calibration() -> None:
    scores = np.random.default_rng(0).normal(size=100)
    calibration = Calibration(scores)
    assert calibration.weighted(np.ones(100)) == pytest.approx(np.arange(1, 102) / 101)
    assert np.array_equal(calibration.given, scores)


def test_the_smallest_p_value_is_that_of_the_effective_rows() -> None:
    random = np.random.default_rng(0)
    calibration, weights = Calibration(random.normal(size=500)), random.exponential(size=500)
    p_values = calibration.weighted(weights)
    assert p_values[0] == pytest.approx(1 / (1 + effective_rows(weights)))
    assert p_values[-1] == 1 and (np.diff(p_values) > 0).all()
    heaviest = int(weights.argmax())  # a row that this one reaches
    higher = int((calibration.given >= calibration.given[heaviest]).sum())
    step = p_values[higher] - p_values[higher - 1]
    assert step == pytest.approx(np.diff(p_values).max())


@pytest.mark.parametrize("seed", range(10))
def test_discoveries_among_p_values_of_several_kinds_are_the_procedure(seed: int) -> None:
    random = np.random.default_rng(seed)
    values = np.unique(np.r_[random.random(50) ** 3, np.arange(1, 41) / 40])
    rows = random.choice(values, 400) * random.choice([1.0, 0.0], 400, p=[0.9, 0.1])
    rows[rows == 0] = values[0]
    counts = np.array([(rows == value).sum() for value in values])
    for level in (0.05, 0.2):
        ordered = np.sort(rows)
        passing = np.flatnonzero(ordered <= level * np.arange(1, 401) / 400 * (1 + 1e-12))
        expected = ordered[passing[-1]] if len(passing) else 0.0
        assert benjamini_hochberg(counts, level, values) == expected
