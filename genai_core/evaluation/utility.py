"""Do synthetic rows help? A classifier trained on real rows against the same one trained on real and synthetic rows.

Both are tested on the same held-out real rows. The measure is the average precision of the classes that were asked
for, each against all others: of rare classes the AUROC says little (Saito & Rehmsmeier 2015).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genai_core.errors import InvalidData
from genai_core.tables.columns import is_categorical, keys_of, split_axes

MOST_CATEGORIES = 254  # that gradient boosting takes as unordered; rarer values share a code
MOST_CLASSES = 50
LEAST_ROWS = 5  # of every class asked for, to learn from and to test on: fewer say nothing
RESAMPLES = 200  # of the held-out rows, for the interval


@dataclass(frozen=True)
class Interval:
    """A mean over seeds, and the ends of its 95 % bootstrap interval over held-out rows and seeds."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Uplift:
    """What synthetic rows change.

    real, augmented  average precision and AUROC, means over seeds
    gain             difference of the average precisions, augmented - real
    """

    classes: tuple[str, ...]
    train_rows: int
    synthetic_rows: int
    test_rows: int
    test_positives: dict[str, int]
    seeds: tuple[int, ...]
    average_precision_real: float
    average_precision_augmented: float
    auroc_real: float
    auroc_augmented: float
    gain: Interval

    @property
    def helps(self) -> bool:
        """Whether the whole interval of the gain lies above zero."""
        return self.gain.low > 0

    @property
    def verdict(self) -> str:
        """helps, harms, or no gain shown."""
        return "helps" if self.helps else "harms" if self.gain.high < 0 else "no gain shown"

    def facts(self) -> dict[str, Any]:
        """JSON-able, rounded to five digits."""
        found = asdict(self) | {"verdict": self.verdict}
        return {name: _rounded(value) for name, value in found.items()}


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, tuple):
        return list(value)
    return round(value, 5) if isinstance(value, float) else value


class Features:
    """A table as a matrix for gradient boosting: numbers as they are, categories by rank of their frequency.

    Fitted on the real training rows: what a column holds elsewhere and not there is the code of rare values.
    """

    def __init__(self, table: pa.Table, target: str | None) -> None:
        """target: the class to predict, which is no feature; None: all columns are features."""
        self.target = target
        self.names = [name for name in table.column_names if name != target]
        self.values = {
            name: _frequent(table[name]) for name in self.names if is_categorical(table[name].type)
        }
        self.classes = sorted(set(labels_of(table, target).tolist())) if target is not None else []
        self.categorical = [name in self.values for name in self.names for _ in self._parts(table, name)]
        if target is not None and not 2 <= len(self.classes) <= MOST_CLASSES:
            raise InvalidData(
                f"column {target!r} has {len(self.classes)} value(s) in the rows to train on; a class to predict has "
                f"2 to {MOST_CLASSES}"
            )

    def __call__(self, table: pa.Table) -> np.ndarray:
        """Float64 (rows, features); missing is NaN."""
        parts = [part for name in self.names for part in self._parts(table, name)]
        return np.stack(parts, 1) if parts else np.zeros((table.num_rows, 0))

    def _parts(self, table: pa.Table, name: str) -> list[np.ndarray]:
        array = table[name].combine_chunks()
        if name not in self.values:
            axes, missing = split_axes(array)
            return [np.where(missing, np.nan, axis.astype(np.float64)) for axis in axes]
        keys = keys_of(array)
        codes = pc.index_in(keys, value_set=self.values[name]).fill_null(len(self.values[name]))
        missing = keys.is_null().to_numpy(zero_copy_only=False)
        return [np.where(missing, np.nan, codes.to_numpy(zero_copy_only=False).astype(np.float64))]


def _frequent(column: pa.ChunkedArray) -> pa.Array:
    """The most frequent values as strings, ties by value."""
    counts = keys_of(column.combine_chunks()).drop_null().value_counts()
    ranked = sorted(counts.to_pylist(), key=lambda entry: (-entry["counts"], entry["values"]))
    return pa.array([entry["values"] for entry in ranked[:MOST_CATEGORIES]], pa.string())


def labels_of(table: pa.Table, target: str) -> np.ndarray:
    """The classes of the rows as strings (rows,). InvalidData: there is no such column, or a label is missing."""
    if target not in table.column_names:
        raise InvalidData(f"the table has no column {target!r}; it has: {', '.join(table.column_names)}")
    keys = keys_of(table[target].combine_chunks())
    if keys.null_count:
        raise InvalidData(f"{keys.null_count} row(s) have no {target!r}; leave them out")
    return keys.to_numpy(zero_copy_only=False).astype(str)


def classifier(features: Features, seed: int, **settings: Any) -> Any:
    """Gradient boosting on histograms (Ke et al. 2017) with a seed that matters: a random half of the features at
    every split. No early stopping: synthetic rows would decide when to stop."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(
        categorical_features=features.categorical,
        early_stopping=False,
        max_features=0.5,
        random_state=seed,
        **settings,
    )


def probabilities(model: Any, X: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """(rows, classes) of a fitted classifier; zeros for a class that it has not seen."""
    known = list(model.classes_)
    found = model.predict_proba(X)
    return np.stack([found[:, known.index(c)] if c in known else np.zeros(len(X)) for c in classes], 1)


def uplift(
    train: pa.Table,
    synthetic: pa.Table,
    holdout: pa.Table,
    target: str,
    classes: Sequence[str] | None = None,
    *,
    seeds: Sequence[int] = (0, 1, 2),
) -> Uplift:
    """Compare training on `train` with training on `train` and `synthetic`, tested on `holdout`.

    train, holdout  real rows; whoever made the synthetic ones must not have learnt from `holdout`
    classes         of the target, as strings; default: those of which there are synthetic rows
    seeds           of the classifier

    Raises InvalidData: a class has fewer than 5 rows to learn from or to test on.
    """
    columns = train.column_names
    synthetic, holdout = synthetic.select(columns), holdout.select(columns)
    features = Features(train, target)
    asked = tuple(classes or sorted(set(labels_of(synthetic, target).tolist())))
    y, more, truth = (labels_of(table, target) for table in (train, synthetic, holdout))
    _refuse_few(asked, y, truth)
    X, Z, T = features(train), features(synthetic), features(holdout)
    XZ, both = np.concatenate([X, Z]), np.concatenate([y, more])
    real = [probabilities(classifier(features, s).fit(X, y), T, asked) for s in seeds]
    augmented = [probabilities(classifier(features, s).fit(XZ, both), T, asked) for s in seeds]
    positive = np.stack([truth == name for name in asked], 1)
    means = {
        f"{name}_{of}": float(np.mean([measure(positive, p) for p in predicted]))
        for name, measure in (("average_precision", average_precision), ("auroc", auroc))
        for of, predicted in (("real", real), ("augmented", augmented))
    }
    return Uplift(
        asked,
        len(X),
        len(Z),
        len(T),
        {name: int(column.sum()) for name, column in zip(asked, positive.T, strict=True)},
        tuple(seeds),
        **means,
        gain=gain_interval(positive, real, augmented, seeds[0]),
    )


def _refuse_few(asked: Sequence[str], y: np.ndarray, truth: np.ndarray) -> None:
    for name in asked:
        for rows, what in ((y, "train on"), (truth, "test on")):
            if (found := int((rows == name).sum())) < LEAST_ROWS:
                raise InvalidData(
                    f"class {name!r} has {found} real row(s) to {what}; at least {LEAST_ROWS} are needed to tell "
                    "whether synthetic rows help. Hold out a larger share, or leave the check out"
                )
        if (truth == name).all():
            raise InvalidData(f"all rows to test on are of class {name!r}; there is nothing to tell apart")


def average_precision(positive: np.ndarray, predicted: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Mean over the classes, (rows, classes) both."""
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(positive, predicted, average="macro", sample_weight=weight))


def auroc(positive: np.ndarray, predicted: np.ndarray) -> float:
    """Mean over the classes, (rows, classes) both."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(positive, predicted, average="macro"))


def gain_interval(
    positive: np.ndarray, before: Sequence[np.ndarray], after: Sequence[np.ndarray], seed: int
) -> Interval:
    """Of the average precision's gain: paired bootstrap (Efron 1979) over held-out rows and classifiers' seeds.

    A class's positives are drawn among themselves, so that no resample is without one.
    """
    random = np.random.default_rng(seed)
    pairs = list(zip(before, after, strict=True))
    whole = [average_precision(positive, b) for b in before], [average_precision(positive, a) for a in after]
    strata = np.unique(positive, axis=0, return_inverse=True)[1].reshape(-1)
    groups = [np.flatnonzero(strata == s) for s in np.unique(strata)]
    found = []
    for _ in range(RESAMPLES):
        weight = np.zeros(len(positive))
        for group in groups:
            weight[group] = np.bincount(random.integers(0, len(group), len(group)), minlength=len(group))
        b, a = pairs[random.integers(len(pairs))]
        kept = weight > 0
        found.append(
            average_precision(positive[kept], a[kept], weight[kept])
            - average_precision(positive[kept], b[kept], weight[kept])
        )
    low, high = np.percentile(found, [2.5, 97.5])
    return Interval(float(np.mean(whole[1]) - np.mean(whole[0])), float(low), float(high))


UPLIFT_WORDS = {
    "helps": "synthetic rows help",
    "harms": "SYNTHETIC ROWS HARM",
    "no gain shown": "NO GAIN SHOWN BY SYNTHETIC ROWS",
}


def sentence(found: Uplift) -> str:
    """One line for people."""
    return (
        f"{UPLIFT_WORDS[found.verdict]}: average precision of {', '.join(found.classes)} on {found.test_rows:,} "
        f"held-out real rows is {found.average_precision_real:.3f} from {found.train_rows:,} real rows and "
        f"{found.average_precision_augmented:.3f} with {found.synthetic_rows:,} synthetic ones "
        f"({found.gain.mean:+.3f}, 95 % interval {found.gain.low:+.3f} to {found.gain.high:+.3f})"
    )
