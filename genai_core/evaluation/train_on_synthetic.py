"""Train on synthetic, test on real (Esteban, Hyland & Raetsch 2017), beside training on as many real rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from genai_core.errors import InvalidData
from genai_core.evaluation.intervals import Estimate, bootstrapped
from genai_core.evaluation.utility import MOST_CLASSES, Features, labels_of
from genai_core.tables.columns import is_categorical, split_axes

RESAMPLES = 100  # of the rows that are tested on


def train_on_synthetic(
    train: pa.Table, synthetic: pa.Table, holdout: pa.Table, target: str, seed: int = 0
) -> tuple[Estimate, Estimate, str]:
    """The measure of gradient boosting from synthetic and from real rows, tested on held-out rows; and its name.

    The measure is the AUROC (one class against the others, the mean) of a class, R2 of a number with many values.
    Raises InvalidData: there is nothing to predict.
    """
    rows = min(train.num_rows, synthetic.num_rows)
    known = [_known(table, target) for table in (train.slice(0, rows), synthetic.slice(0, rows), holdout)]
    if min(table.num_rows for table in known) < 2:
        raise InvalidData(f"target: {target!r} is missing nearly everywhere; name another column")
    number = not is_categorical(train[target].type) and len(train[target].unique()) > MOST_CLASSES
    judge = _numbers if number else _classes
    made, real = (judge(table, known[2], known[0], target, seed) for table in (known[1], known[0]))
    return made, real, "R2" if number else "AUROC"


def _known(table: pa.Table, target: str) -> pa.Table:
    import pyarrow.compute as pc

    return table.filter(pc.is_valid(table[target]))


def _features(table: pa.Table, target: str) -> Features:
    return Features(table.drop_columns([target]), None)


def _options(features: Features, seed: int) -> dict[str, Any]:
    return {"categorical_features": features.categorical, "random_state": seed}


def _numbers(train: pa.Table, test: pa.Table, real: pa.Table, target: str, seed: int) -> Estimate:
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.metrics import r2_score

    features = _features(real, target)
    model = HistGradientBoostingRegressor(**_options(features, seed))
    model.fit(features(train), _values(train, target))
    y, guessed = _values(test, target), model.predict(features(test))
    return bootstrapped(
        float(r2_score(y, guessed)), lambda rows: r2_score(y[rows], guessed[rows]), len(y), seed, RESAMPLES
    )


def _values(table: pa.Table, target: str) -> np.ndarray:
    """One float a row; of a timestamp its days, with the time of day as a fraction."""
    axes, _ = split_axes(table[target].combine_chunks())
    whole = axes[0].astype(float)
    return whole if len(axes) == 1 else whole + axes[1] / max(float(axes[1].max(initial=1)), 1.0)


def _classes(train: pa.Table, test: pa.Table, real: pa.Table, target: str, seed: int) -> Estimate:
    from sklearn.ensemble import HistGradientBoostingClassifier

    features, y, truth = _features(real, target), labels_of(train, target), labels_of(test, target)
    classes = sorted(set(truth.tolist()))
    if len(classes) < 2:
        raise InvalidData(f"target: the held-out rows have one {target!r} alone; there is nothing to predict")
    guessed = np.full((len(truth), len(classes)), 1.0 / len(classes))
    if len(set(y.tolist())) > 1:  # else a synthetic table with one class alone: it teaches nothing
        model = HistGradientBoostingClassifier(**_options(features, seed)).fit(features(train), y)
        known = {name: i for i, name in enumerate(model.classes_)}
        found = model.predict_proba(features(test))
        guessed = np.stack([found[:, known[c]] if c in known else np.zeros(len(truth)) for c in classes], 1)
    positive = np.stack([truth == name for name in classes], 1)
    positive, guessed = (positive[:, 1:], guessed[:, 1:]) if len(classes) == 2 else (positive, guessed)
    everything = np.arange(len(truth))
    return bootstrapped(
        _auroc(positive, guessed, everything),
        lambda rows: _auroc(positive, guessed, rows),
        len(truth),
        seed,
        RESAMPLES,
    )


def _auroc(positive: np.ndarray, guessed: np.ndarray, rows: np.ndarray) -> float:
    """Mean over the classes of which there are rows, and rows of others."""
    from scipy.stats import rankdata

    found = []
    for is_class, score in zip(positive[rows].T, guessed[rows].T, strict=True):
        hits, misses = int(is_class.sum()), int((~is_class).sum())
        if hits and misses:
            found.append((rankdata(score)[is_class].sum() - hits * (hits + 1) / 2) / (hits * misses))
    return float(np.mean(found)) if found else 0.5
