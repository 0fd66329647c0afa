"""Frechet and kernel distances against closed forms and other formulas."""

from __future__ import annotations

import numpy as np
import pytest

from genai_core.errors import InvalidData
from genai_core.evaluation.frechet import apart, frechet_distance, kernel_distance


def normal(rows: int, seed: int, d: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, d))


def test_a_sample_has_no_distance_from_itself() -> None:
    x = normal(500, 0)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)


def test_equal_distributions_are_close_and_kernel_distance_is_unbiased() -> None:
    pairs = [(normal(200, 2 * i), normal(200, 2 * i + 1)) for i in range(40)]
    kernel = [kernel_distance(a, b) for a, b in pairs]
    assert min(kernel) < 0 < max(kernel)
    assert abs(np.mean(kernel)) < 2 * np.std(kernel) / len(kernel) ** 0.5
    assert frechet_distance(normal(20_000, 0), normal(20_000, 1)) < 0.01


def test_frechet_distance_of_gaussians_is_the_closed_form() -> None:
    random = np.random.default_rng(0)
    a = normal(50_000, 1, 3)
    shift, scale = np.array([1.0, -2.0, 0.5]), np.array([0.5, 1.0, 3.0])
    rotation = np.linalg.qr(random.normal(size=(3, 3)))[0]
    b = (normal(50_000, 2, 3) * scale) @ rotation + shift
    # with A the unit matrix: |shift|^2 + sum of (1 - scale)^2, whatever the rotation
    assert frechet_distance(a, b) == pytest.approx(shift @ shift + np.square(1 - scale).sum(), rel=0.02)


def test_frechet_distance_agrees_with_the_matrix_root() -> None:
    from scipy.linalg import sqrtm

    random = np.random.default_rng(3)
    a, b = (normal(300, seed, 5) @ random.normal(size=(5, 5)) for seed in (0, 1))
    A, B = np.cov(a.T), np.cov(b.T)
    by_root = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(A + B - 2 * sqrtm(A @ B).real)
    assert frechet_distance(a, b) == pytest.approx(by_root, rel=1e-8)


def test_fewer_rows_than_features_give_finite_symmetric_distances() -> None:
    a, b = normal(10, 0, 200), normal(12, 1, 200)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a))
    assert 0 < frechet_distance(a, b) < 1000
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


def test_kernel_distance_is_the_double_sum_and_grows_with_a_shift() -> None:
    a, b = normal(7, 0), normal(5, 1) + 1

    def k(x: np.ndarray, y: np.ndarray) -> float:
        return float((x @ y / 6 + 1) ** 3)

    within_a = np.mean([k(x, y) for i, x in enumerate(a) for j, y in enumerate(a) if i != j])
    within_b = np.mean([k(x, y) for i, x in enumerate(b) for j, y in enumerate(b) if i != j])
    between = np.mean([k(x, y) for x in a for y in b])
    assert kernel_distance(a, b) == pytest.approx(within_a + within_b - 2 * between)
    near, far = (kernel_distance(normal(2000, 0), normal(2000, 1) + shift) for shift in (0.2, 0.5))
    assert 0 < near < far


def test_distances_stand_beside_real_against_real() -> None:
    found = apart(normal(2000, 0) + 1, normal(2000, 1), normal(2000, 2))
    assert found.rows == 2000
    assert found.ratio == pytest.approx(found.frechet / found.frechet_real)
    assert found.ratio > 50
    assert found.kernel > 10 * abs(found.kernel_real)


@pytest.mark.parametrize("bad", [np.zeros((1, 3)), np.zeros(4), np.full((3, 3), np.nan)])
def test_features_that_say_nothing_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(InvalidData, match="at least two rows of finite numbers"):
        frechet_distance(bad, normal(10, 0, 3))


def test_unequal_numbers_of_rows_are_refused() -> None:
    with pytest.raises(InvalidData, match="equally many"):
        apart(normal(20, 0), normal(20, 1), normal(30, 2))
