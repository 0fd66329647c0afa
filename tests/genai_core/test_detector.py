"""scikit-learn's conventions, and PyOD's attributes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_checks

from genai_core import AnomalyDetector
from genai_core.errors import InvalidInput, SchemaMismatch
from tests.contract.spaces import small_table


@pytest.fixture(autouse=True, scope="module")
def few_steps() -> Iterator[None]:
    """The conventions do not depend on how long the network learns."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("genai_core.scores.pseudo_likelihood.STEPS", 100)
        yield


def data() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    normal = random.normal(size=(1500, 2)) @ np.array([[1, 0.95], [0, 0.3]])
    odd = random.uniform(4, 6, size=(40, 2)) * random.choice([-1, 1], size=(40, 2))
    return normal, odd


@pytest.fixture(scope="module")
def fitted() -> AnomalyDetector:
    return AnomalyDetector(alpha=0.02).fit(data()[0][:1000])


def test_fit_predict_score_samples_decision_function(fitted: AnomalyDetector) -> None:
    normal, odd = data()
    assert fitted.predict(odd).tolist().count(-1) >= 36
    assert (fitted.predict(normal[1000:]) == -1).mean() < 0.08
    scores = fitted.score_samples(odd)
    assert scores.max() < np.median(fitted.score_samples(normal[1000:]))
    assert np.array_equal(fitted.decision_function(odd) < 0, fitted.predict(odd) == -1)
    assert fitted.n_features_in_ == 2


def test_the_attributes_that_pyod_s_users_look_for(fitted: AnomalyDetector) -> None:
    normal, odd = data()
    assert np.array_equal(fitted.decision_scores_, -fitted.score_samples(normal[:1000]))
    assert set(fitted.labels_) == {0, 1} and fitted.labels_.mean() < 0.05
    assert (fitted.decision_scores_[fitted.labels_ == 1] >= fitted.threshold_).all()
    proba = fitted.predict_proba(np.concatenate([normal[1000:], odd]))
    assert proba.shape == (540, 2) and np.allclose(proba.sum(1), 1)
    assert abs(np.median(proba[:500, 1]) - 0.5) < 0.15, "of normal rows it is uniform"
    assert (proba[500:, 1] > 0.95).mean() > 0.9


def test_a_contaminated_reference() -> None:
    normal, odd = data()
    both = np.concatenate([normal[:400], odd])
    detector = AnomalyDetector(reference="contaminated").fit(both)
    assert detector.decision_scores_[400:].min() > np.median(detector.decision_scores_[:400])


def test_clone_parameters_and_pipeline() -> None:
    detector = AnomalyDetector(kind="vae", score="reconstruction", seed=3, max_seconds=2)
    assert clone(detector).get_params() == detector.get_params()
    found = make_pipeline(StandardScaler(), detector).fit(data()[0][:300]).predict(data()[1])
    assert set(np.unique(found)) <= {-1, 1}


def test_tables_with_categories_and_gaps() -> None:
    detector = AnomalyDetector().fit(small_table())
    assert detector.p_values(small_table(20, seed=5)).min() > 0
    frame = pd.DataFrame({"x": [0.1, None], "y": [0.1, 2.0], "n": [2, 3], "colour": ["red", None]})
    assert np.isfinite(detector.score_samples(frame)).all()


def test_a_matrix_of_another_width_is_refused(fitted: AnomalyDetector) -> None:
    with pytest.raises(SchemaMismatch, match="X has 3 features, but AnomalyDetector is expecting 2"):
        fitted.predict(np.zeros((2, 3)))


WRONG = {"alpha": (0, 1, -0.1), "reference": ("dirty",), "held_out": (0,)}


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, values in WRONG.items() for v in values])
def test_parameters_that_cannot_work(name: str, value) -> None:
    with pytest.raises(InvalidInput, match=f"found {name}"):
        AnomalyDetector(**{name: value}).fit(small_table())


# the others pass too (`check_estimator`), but cost half a minute; one cannot: the parameter `score` hides a method
CHECKS = (
    "check_complex_data",
    "check_estimator_sparse_matrix",
    "check_estimators_empty_data_messages",
    "check_estimators_unfitted",
    "check_fit1d",
    "check_fit2d_1sample",
    "check_outliers_fit_predict",
)


@pytest.mark.parametrize("name", CHECKS)
def test_scikit_learn_s_own_checks_pass(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genai_core.scores.pseudo_likelihood.STEPS", 4)
    getattr(estimator_checks, name)("AnomalyDetector", AnomalyDetector())
