"""Anomaly detection with scikit-learn's conventions, by a generative model underneath."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, OutlierMixin

from genai_core.errors import InvalidInput
from genai_core.train import as_table, fit


class AnomalyDetector(OutlierMixin, BaseEstimator):
    """Outlier detector on tables with missing values, categories and times, or on matrices.

    kind         family of the model: autoregressive (exact likelihood), vae (bound) or gan (weak)
    score        name of the score; None: the family's default
    alpha        rows with a conformal p-value up to alpha are outliers: at most this share of normal rows is flagged
    max_seconds  limit of the fit; None: until it has converged
    seed         same seed, same model

    After `fit`: model_ (the FittedModel), n_features_in_, offset_ (scores below it are outliers).
    """

    def __init__(
        self,
        kind: str = "autoregressive",
        score: str | None = None,
        alpha: float = 0.01,
        max_seconds: float | None = None,
        seed: int = 0,
    ) -> None:
        self.kind = kind
        self.score = score
        self.alpha = alpha
        self.max_seconds = max_seconds
        self.seed = seed

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn what rows look like; y is ignored."""
        if not 0 < self.alpha < 1:
            raise InvalidInput(f"found alpha = {self.alpha}; accepted is above 0 and below 1")
        table = as_table(X)
        self.model_ = fit(table, self.kind, seed=self.seed, max_seconds=self.max_seconds)
        self._name = self.score or self.model_.score_names[0]
        self.model_.check_scores([self._name])
        self.n_features_in_ = table.num_columns
        held_out = self.model_.calibrations[self._name].scores
        rank = int(np.floor(self.alpha * (len(held_out) + 1)))
        # p <= alpha needs fewer than `rank` held-out scores at least as high
        self.offset_ = -held_out[-rank] if rank >= 1 else -np.inf
        return self

    def score_samples(self, X: Any) -> np.ndarray:
        """Higher = more normal, as scikit-learn has it: the log-likelihood in nats for models that have one."""
        return -self.model_.score(as_table(X), [self._name]).totals[self._name]

    def decision_function(self, X: Any) -> np.ndarray:
        """Below 0: outlier."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> np.ndarray:
        """-1 for outliers (p-value <= alpha), 1 for the rest."""
        return np.where(self.p_values(X) <= self.alpha, -1, 1)

    def p_values(self, X: Any) -> np.ndarray:
        """Split-conformal p-values, float64 in [1 / (held-out rows + 1), 1]."""
        return self.model_.p_values(self._name, -self.score_samples(X))
