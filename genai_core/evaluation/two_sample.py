"""The classifier two-sample test (C2ST): can a classifier tell two samples apart? (Lopez-Paz & Oquab, ICLR 2017.)"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from genai_core.errors import InvalidData
from genai_core.evaluation.coding import MISSING, CodedColumn
from genai_core.evaluation.intervals import Estimate, auc, normal

FOLDS = 5
MAX_CATEGORIES = 255  # what HistGradientBoosting takes as unordered; larger columns enter by frequency rank
IMPORTANCE_ROWS = 4_000


@dataclass(frozen=True)
class Giveaway:
    """A column that tells the samples apart: what the AUC loses when the column is shuffled (Breiman 2001)."""

    column: str
    auc_drop: float


@dataclass(frozen=True)
class TwoSampleTest:
    """AUC of the classifier on rows that it was not fitted on: 0.5 means that it cannot tell, 1 that it always can.

    area  the same with its interval
    """

    auc: float
    giveaways: tuple[Giveaway, ...]
    area: Estimate


def classifier_two_sample_test(
    columns: Sequence[CodedColumn], *, seed: int = 0, explain: int = 0
) -> TwoSampleTest:
    """Cross-fitted gradient boosting (Friedman 2001) on the codes of both samples.

    explain: how many columns to name that give the second sample away. Deterministic by seed.
    """
    varying = [column for column in columns if column.size > 2 or _both_codes(column)]
    labels = np.concatenate([np.zeros(len(columns[0].first)), np.ones(len(columns[0].second))])
    if min(np.bincount(labels.astype(int), minlength=2)) < 2 * FOLDS:
        raise InvalidData(f"too few rows to tell two samples apart; give at least {2 * FOLDS} of each")
    if not varying:
        return TwoSampleTest(0.5, (), normal(0.5, 0.0, len(labels), "DeLong"))
    features = _features(varying)
    area, models = _cross_fit(features, labels, [_is_category(column) for column in varying], seed)
    found = _giveaways(models, features, labels, varying, seed)[:explain] if explain else ()
    return TwoSampleTest(area.value, found, area)


def features_two_sample_test(first: np.ndarray, second: np.ndarray, *, seed: int = 0) -> Estimate:
    """The AUC for two samples of features, (rows, d) each: of records that have no columns to name."""
    X = np.concatenate([first, second]).astype(np.float32)
    labels = np.repeat([0.0, 1.0], [len(first), len(second)])
    return _cross_fit(X, labels, [False] * X.shape[1], seed)[0]


def _both_codes(column: CodedColumn) -> bool:
    return len(np.union1d(column.first, column.second)) > 1


def _is_category(column: CodedColumn) -> bool:
    return not column.ordered and column.size <= MAX_CATEGORIES


def _features(columns: Sequence[CodedColumn]) -> np.ndarray:
    """Codes as float32 (rows, columns); null is NaN, which the classifier takes as a value of its own."""
    X = np.empty((len(columns[0].first) + len(columns[0].second), len(columns)), np.float32)
    for index, column in enumerate(columns):
        codes = np.concatenate([column.first, column.second])
        X[:, index] = np.where(codes == MISSING, np.nan, codes - 1)
    return X


def _cross_fit(
    X: np.ndarray, y: np.ndarray, categorical: list[bool], seed: int
) -> tuple[Estimate, list[Any]]:
    """AUC of out-of-fold predictions, and (model, its held-out rows) of each fold."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.model_selection import StratifiedKFold

    predicted, models = np.empty(len(y)), []
    for train, test in StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(X, y):
        model = HistGradientBoostingClassifier(categorical_features=categorical, random_state=seed)
        model.fit(X[train], y[train])
        predicted[test] = model.predict_proba(X[test])[:, 1]
        models.append((model, test))
    return auc(y, predicted), models


def _giveaways(
    models: list[Any], X: np.ndarray, y: np.ndarray, columns: Sequence[CodedColumn], seed: int
) -> tuple[Giveaway, ...]:
    """Permutation importance on held-out rows of the first fold, greatest first."""
    from sklearn.metrics import roc_auc_score

    model, held_out = models[0]
    generator = np.random.default_rng(seed)
    rows = generator.permutation(held_out)[:IMPORTANCE_ROWS]
    sample, labels = X[rows].copy(), y[rows]
    whole = roc_auc_score(labels, model.predict_proba(sample)[:, 1])
    found = []
    for index, column in enumerate(columns):
        kept = sample[:, index].copy()
        sample[:, index] = generator.permutation(kept)
        drop = whole - roc_auc_score(labels, model.predict_proba(sample)[:, 1])
        sample[:, index] = kept
        found.append(Giveaway(column.name, float(drop)))
    return tuple(sorted(found, key=lambda giveaway: -giveaway.auc_drop))
