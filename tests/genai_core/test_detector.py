"""scikit-learn's conventions."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from genai_core import AnomalyDetector
from genai_core.errors import InvalidInput
from tests.contract.spaces import small_table


def data() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    normal = random.normal(size=(1500, 2)) @ np.array([[1, 0.95], [0, 0.3]])
    odd = random.uniform(4, 6, size=(40, 2)) * random.choice([-1, 1], size=(40, 2))
    return normal, odd


def test_fit_predict_score_samples_decision_function() -> None:
    normal, odd = data()
    detector = AnomalyDetector(alpha=0.02, max_seconds=20).fit(normal[:1000])
    assert detector.predict(odd).tolist().count(-1) >= 36
    assert (detector.predict(normal[1000:]) == -1).mean() < 0.08
    scores = detector.score_samples(odd)
    assert scores.max() < np.median(detector.score_samples(normal[1000:]))
    assert np.array_equal(detector.decision_function(odd) < 0, detector.predict(odd) == -1)
    assert detector.n_features_in_ == 2


def test_clone_parameters_and_pipeline() -> None:
    detector = AnomalyDetector(kind="vae", seed=3, max_seconds=2)
    assert clone(detector).get_params() == detector.get_params()
    found = make_pipeline(StandardScaler(), detector).fit(data()[0][:300]).predict(data()[1])
    assert set(np.unique(found)) <= {-1, 1}


def test_tables_with_categories_and_gaps() -> None:
    detector = AnomalyDetector(max_seconds=5).fit(small_table())
    assert detector.p_values(small_table(20, seed=5)).min() > 0


@pytest.mark.parametrize("alpha", [0, 1, -0.1])
def test_alpha_outside_the_unit_interval(alpha: float) -> None:
    with pytest.raises(InvalidInput, match="alpha"):
        AnomalyDetector(alpha=alpha).fit(small_table())
