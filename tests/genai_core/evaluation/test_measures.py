"""The parts of an evaluation against their definitions: intervals, neighbours, precision and recall, histograms."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from genai_core.errors import InvalidData
from genai_core.evaluation import intervals
from genai_core.evaluation.attacks import likelihood_attack
from genai_core.evaluation.histograms import compared
from genai_core.evaluation.manifold import manifold
from genai_core.evaluation.neighbours import nearest, radii


def test_the_area_is_that_of_the_curve_and_its_interval_holds_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    labels = np.repeat([True, False], [80, 120])
    truth, inside = 0.7602, 0  # of two normal distributions one deviation apart
    for _ in range(400):
        scores = random.normal(0, 1, 200) + labels
        found = intervals.auc(labels, scores)
        inside += found.low <= truth <= found.high
    assert found.value == pytest.approx(roc_auc_score(labels, scores))
    assert 0.92 < inside / 400 < 0.98


def test_the_bootstrap_finds_the_spread_of_a_mean() -> None:
    x = np.random.default_rng(0).normal(0, 2, 400)
    found = intervals.bootstrapped(float(x.mean()), lambda rows: float(x[rows].mean()), 400, 1, 200)
    assert found.high - found.low == pytest.approx(2 * 1.96 * 2 / 20, rel=0.2)


def test_precision_recall_density_and_coverage_are_what_their_papers_say() -> None:
    random = np.random.default_rng(3)
    real, made = random.normal(0, 1, (60, 3)), random.normal(0.4, 0.7, (60, 3))
    k = 5

    def balls(x: np.ndarray) -> np.ndarray:
        apart = np.linalg.norm(x[:, None] - x[None], axis=2)
        return np.sort(apart, axis=1)[:, k]

    across = np.linalg.norm(made[:, None] - real[None], axis=2)
    inside = across <= balls(real)
    found = manifold(made, real)
    assert found["precision"].value == inside.any(1).mean()
    assert found["density"].value == pytest.approx(inside.sum(1).mean() / k)
    assert found["coverage"].value == inside.any(0).mean()
    assert found["recall"].value == (across <= balls(made)[:, None]).any(0).mean()
    assert np.allclose(radii(real, k), balls(real), atol=1e-5)
    assert np.allclose(nearest(made, real), across.min(1), atol=1e-5)
    with pytest.raises(InvalidData, match="equally many"):
        manifold(made[:10], real)


def test_a_value_that_is_too_rare_is_told_of_and_chance_is_not() -> None:
    names = ["a", "b", "c", "d"]
    fine = compared(np.array([480, 300, 190, 3]), np.array([500, 300, 180, 8]), names, "x")
    assert not fine.lost and fine.p_value > 0.01
    found = compared(np.array([700, 300, 2, 0]), np.array([500, 300, 180, 20]), names, "x")
    assert [(one.value, one.missing) for one in found.lost] == [("c", False), ("d", True)]
    assert found.kl > 0.1 and found.p_value < 1e-6


def test_a_model_that_knows_its_rows_by_heart_is_found_out() -> None:
    random = np.random.default_rng(1)
    unseen = random.normal(-20, 3, 500)
    assert likelihood_attack(random.normal(-18, 3, 500), unseen).low > 0.6
    fine = likelihood_attack(random.normal(-20, 3, 500), np.append(unseen, np.nan))
    assert fine.low < 0.5 < fine.high
