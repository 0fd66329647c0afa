"""Anomaly detection with scikit-learn's conventions, and PyOD's attributes, by a generative model underneath."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import pyarrow as pa
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils.validation import check_array, check_is_fitted

from genai_core.codec import MIN_ROWS
from genai_core.errors import InvalidInput, SchemaMismatch
from genai_core.train import HELD_OUT, as_table, fit, settings_to_score


class WrongWidth(SchemaMismatch, ValueError):
    """A matrix with another number of columns; scikit-learn expects a ValueError."""


class AnomalyDetector(OutlierMixin, BaseEstimator):
    """Outlier detector on tables with missing values, categories and times, or on matrices.

    kind         family of the model: autoregressive (exact likelihood), vae (bound) or gan (weak)
    score        name of the score; None: the family's default, which is an ensemble that needs no model to be trained
    reference    "clean": the rows to fit on are normal; "contaminated": they hold anomalies too, and only a trusted
                 core of them is learnt
    alpha        rows with a conformal p-value up to alpha are outliers: at most this share of normal rows is flagged
    max_seconds  limit of the fit; None: until it has converged
    held_out     rows that p-values compare with, as far as they lie between a tenth and a quarter of all; the smallest
                 p-value is 1 / (rows held out + 1)
    seed         same seed, same model

    After `fit`: model_ (the FittedModel), score_name_, n_features_in_, offset_ (scores below it are outliers); as in
    PyOD decision_scores_ (of the rows fitted on, higher = more anomalous), labels_ (1: outlier) and threshold_.
    """

    def __init__(
        self,
        kind: str = "autoregressive",
        score: str | None = None,
        reference: str = "clean",
        alpha: float = 0.01,
        max_seconds: float | None = None,
        held_out: int = HELD_OUT,
        seed: int = 0,
    ) -> None:
        self.kind = kind
        self.score = score
        self.reference = reference
        self.alpha = alpha
        self.max_seconds = max_seconds
        self.held_out = held_out
        self.seed = seed

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn what rows look like; y is ignored."""
        self._refuse()
        table = _readable(X, MIN_ROWS)
        self.n_features_in_ = table.num_columns
        learnt = table.take(self._core(table)) if self.reference == "contaminated" else table
        how = settings_to_score(self.kind, learnt, self.score, self.seed, self.max_seconds, self.held_out)
        self.model_ = fit(learnt, self.kind, **how)
        self.score_name_ = self.score or self.model_.score_names[0]
        self.model_.check_scores([self.score_name_])
        held_out = self.model_.calibrations[self.score_name_].scores
        rank = int(np.floor(self.alpha * (len(held_out) + 1)))
        # p <= alpha needs fewer than `rank` held-out scores at least as high
        self.offset_ = -held_out[-rank] if rank >= 1 else -np.inf
        self.threshold_ = -self.offset_
        self.decision_scores_ = -self.score_samples(table)
        self.labels_ = (self._p_values(self.decision_scores_) <= self.alpha).astype(int)
        return self

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = tags.input_tags.categorical = True
        return tags

    def _refuse(self) -> None:
        if not 0 < self.alpha < 1:
            raise InvalidInput(f"found alpha = {self.alpha}; accepted is above 0 and below 1")
        if self.reference not in ("clean", "contaminated"):
            raise InvalidInput(f"found reference {self.reference!r}; accepted are 'clean' and 'contaminated'")
        if self.held_out < 1:
            raise InvalidInput(f"found held_out = {self.held_out}; accepted is 1 or more")

    def _core(self, table: pa.Table) -> np.ndarray:
        from genai_core.tables.trusted_core import trusted_core

        return trusted_core(table, self.seed)

    def _table(self, X: Any) -> pa.Table:
        check_is_fitted(self)
        table = _readable(X)
        if not self._named(X) and table.num_columns != self.n_features_in_:
            raise WrongWidth(
                f"X has {table.num_columns} features, but AnomalyDetector is expecting {self.n_features_in_} features "
                "as input"
            )
        return table

    @staticmethod
    def _named(X: Any) -> bool:
        return isinstance(X, pa.Table) or hasattr(X, "columns")

    def score_samples(self, X: Any) -> np.ndarray:
        """Higher = more normal, as scikit-learn has it."""
        table = self._table(X)
        return -self.model_.score(table, [self.score_name_]).totals[self.score_name_]

    def decision_function(self, X: Any) -> np.ndarray:
        """Below 0: outlier, as scikit-learn has it. (PyOD's points the other way: `decision_scores_`.)"""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> np.ndarray:
        """-1 for outliers (p-value <= alpha), 1 for the rest."""
        return np.where(self.p_values(X) <= self.alpha, -1, 1)

    def predict_proba(self, X: Any) -> np.ndarray:
        """(rows, 2): the conformal p-value, and 1 minus it: the share of held-out normal rows that are less odd.

        It is calibrated against normal rows; how many anomalies there are to be expected, nobody has to guess.
        """
        p = self.p_values(X)
        return np.stack([p, 1 - p], 1)

    def p_values(self, X: Any) -> np.ndarray:
        """Split-conformal p-values, float64 in [1 / (held-out rows + 1), 1]."""
        return self._p_values(-self.score_samples(X))

    def _p_values(self, scores: np.ndarray) -> np.ndarray:
        return self.model_.p_values(self.score_name_, scores)


def _readable(X: Any, least: int = 1) -> pa.Table:
    """A table as it is; all else as the matrix of numbers that scikit-learn makes of it, gaps and infinities too."""
    if isinstance(X, pa.Table) or hasattr(X, "columns"):
        return as_table(X)
    numbers = check_array(X, dtype="numeric", ensure_all_finite=False, ensure_min_samples=least)
    return as_table(numbers)
