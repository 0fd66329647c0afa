"""How `benchmarks.tabular` judges a synthetic table; one protocol for ours and for peers

shapes, trends    as SDMetrics defines them, missing values dropped: Kolmogorov-Smirnov or total variation of a column;
                  of a pair the difference of correlations, or total variation of the joint table (numbers in ten bins
                  of equal width). quality: the mean of both
c2st_train        AUC of gradient boosting that tells synthetic rows from training rows, five-fold; .5 is alike
c2st_holdout      the same beside the holdout; c2st_real: the holdout beside as many training rows
utility           a classifier or regressor trained on synthetic rows, tested on the holdout: AUC, or R2 of a numeric
                  target; utility_real: trained on real ones
dcr_share         synthetic rows nearer to training rows than to as many holdout rows (mean of five draws); .5 is right
copies            rows that stand in the training table; copies_real: holdout rows that do
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.metrics import r2_score, roc_auc_score

from genai_core.evaluation.coding import code_tables
from genai_core.evaluation.privacy import copied_share
from genai_core.evaluation.two_sample import classifier_two_sample_test

BINS = 10
DCR_DRAWS, DCR_ROWS, DCR_TIE = 5, 10_000, 1e-3
WORST = 4
UNORDERED = 250  # categories of more values enter as numbers


def judge(train: pa.Table, holdout: pa.Table, made: pa.Table, target: str, seed: int = 0) -> dict[str, Any]:
    """Every figure of one synthetic table."""
    made = made.cast(train.schema)
    real, test, fake = (_frame(table) for table in (train, holdout, made))
    shapes = {name: shape(real[name], fake[name]) for name in real}
    trends = [trend(real[[a, b]], fake[[a, b]]) for a, b in combinations(real, 2)]
    found: dict[str, Any] = {
        "shapes": float(np.mean(list(shapes.values()))),
        "trends": float(np.nanmean(trends)),
    }
    found["quality"] = (found["shapes"] + found["trends"]) / 2
    found["worst_shapes"] = dict(sorted(shapes.items(), key=lambda item: item[1])[:WORST])
    found |= _two_sample(train, holdout, made, seed)
    found["utility"] = utility(fake, test, real, target, seed)
    found["utility_real"] = utility(real, test, real, target, seed)
    found["dcr_share"] = nearer_to_train(real, test, fake, seed)
    found["copies"], found["copies_real"] = copied_share(train, made), copied_share(train, holdout)
    return found


def _frame(table: pa.Table) -> pd.DataFrame:
    """Numbers and times as floats, the rest as strings; missing values as NaN or None."""
    frame = {}
    for name in table.column_names:
        column = table[name]
        if pa.types.is_temporal(column.type):
            frame[name] = column.cast(pa.timestamp("ns")).cast(pa.int64()).to_pandas().astype(float)
        elif pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
            frame[name] = column.to_pandas().astype(float)
        else:
            frame[name] = pd.Series(column.cast(pa.string()).to_pylist(), dtype=object)
    return pd.DataFrame(frame)


def _is_number(column: pd.Series) -> bool:
    return column.dtype.kind == "f"


def shape(real: pd.Series, fake: pd.Series) -> float:
    """Likeness of one column, 1 is alike."""
    real, fake = real.dropna(), fake.dropna()
    if not len(real) or not len(fake):
        return 0.0
    if _is_number(real):
        points = np.unique(np.concatenate([real, fake]))
        steps = [np.searchsorted(np.sort(s), points, "right") / len(s) for s in (real, fake)]
        return float(1 - np.abs(steps[0] - steps[1]).max())
    both = pd.concat([s.value_counts(normalize=True) for s in (real, fake)], axis=1).fillna(0)
    return float(1 - (both.iloc[:, 0] - both.iloc[:, 1]).abs().sum() / 2)


def trend(real: pd.DataFrame, fake: pd.DataFrame) -> float:
    """Likeness of the dependence of two columns, 1 is alike; NaN where it cannot be told."""
    numbers = [_is_number(real[name]) for name in real]
    if all(numbers):
        with np.errstate(invalid="ignore", divide="ignore"):
            a, b = (frame.dropna().corr().iloc[0, 1] for frame in (real, fake))
        return float(1 - abs(a - b) / 2)
    shares = []
    for frame in (real, fake):
        cut = {
            name: _binned(real[name], frame[name]) if number else frame[name].fillna("")
            for name, number in zip(real, numbers, strict=True)
        }
        shares.append(pd.DataFrame(cut).value_counts(normalize=True))
    both = pd.concat(shares, axis=1).fillna(0)
    return float(1 - (both.iloc[:, 0] - both.iloc[:, 1]).abs().sum() / 2)


def _binned(real: pd.Series, column: pd.Series) -> np.ndarray:
    return np.digitize(column, np.histogram_bin_edges(real.dropna(), BINS))


def _two_sample(train: pa.Table, holdout: pa.Table, made: pa.Table, seed: int) -> dict[str, Any]:
    random = np.random.default_rng(seed)

    def auc(first: pa.Table, second: pa.Table, explain: int = 0) -> tuple[float, dict[str, float]]:
        rows = min(first.num_rows, second.num_rows)
        cut = [table.take(random.permutation(table.num_rows)[:rows]) for table in (first, second)]
        test = classifier_two_sample_test(code_tables(*cut), seed=seed, explain=explain)
        return test.auc, {g.column: round(g.auc_drop, 4) for g in test.giveaways}

    found: dict[str, Any] = {}
    found["c2st_train"], found["giveaways"] = auc(train, made, WORST)
    found["c2st_holdout"], _ = auc(holdout, made)
    found["c2st_real"], _ = auc(train, holdout)
    return found


def _codes(frame: pd.DataFrame, by: pd.DataFrame) -> tuple[pd.DataFrame, list[bool]]:
    """Numbers as they are, categories by their frequency rank in `by`; which of them are unordered."""
    codes, unordered = {}, []
    for name in frame:
        if _is_number(by[name]):
            codes[name] = frame[name]
        else:
            ranks = {value: rank for rank, value in enumerate(by[name].value_counts().index)}
            codes[name] = frame[name].map(ranks).astype(float)
        unordered.append(not _is_number(by[name]) and by[name].nunique() <= UNORDERED)
    return pd.DataFrame(codes), unordered


def utility(train: pd.DataFrame, test: pd.DataFrame, by: pd.DataFrame, target: str, seed: int) -> float:
    """AUC (R2 of a number) of gradient boosting on the rows of `test`."""
    train, test = train[train[target].notna()], test[test[target].notna()]
    (x, unordered), (x_test, _) = (
        _codes(frame.drop(columns=target), by.drop(columns=target)) for frame in (train, test)
    )
    options: dict[str, Any] = {"categorical_features": unordered, "random_state": seed}
    if _is_number(by[target]):
        values = HistGradientBoostingRegressor(**options).fit(x, train[target]).predict(x_test)
        return float(r2_score(test[target], values))
    if train[target].nunique() < 2:
        return 0.5
    model = HistGradientBoostingClassifier(**options).fit(x, train[target])
    classes = sorted(set(test[target]))
    shares = pd.DataFrame(model.predict_proba(x_test), columns=model.classes_).reindex(
        columns=classes, fill_value=0.0
    )
    if len(classes) == 2:
        return float(roc_auc_score(test[target] == classes[1], shares[classes[1]]))
    shares = shares.div(shares.sum(axis=1).replace(0, 1), axis=0)
    return float(roc_auc_score(test[target], shares, multi_class="ovr", labels=classes))


def nearer_to_train(real: pd.DataFrame, test: pd.DataFrame, fake: pd.DataFrame, seed: int) -> float:
    """Distance to the closest record: numbers over their range, categories as one-hot codes; ties count half."""
    random = np.random.default_rng(seed)
    fake = fake.iloc[random.permutation(len(fake))[:DCR_ROWS]]
    made, train, holdout = _vectors(real, fake, real, test)
    rows = min(len(train), len(holdout))
    to_holdout = _nearest(made, holdout[random.permutation(len(holdout))[:rows]])
    shares = []
    for _ in range(DCR_DRAWS):
        to_train = _nearest(made, train[random.permutation(len(train))[:rows]])
        tie = np.abs(to_train - to_holdout) <= DCR_TIE
        shares.append(float(np.mean(np.where(tie, 0.5, to_train < to_holdout))))
    return float(np.mean(shares))


def _vectors(real: pd.DataFrame, *frames: pd.DataFrame) -> list[np.ndarray]:
    parts: list[list[np.ndarray]] = [[] for _ in frames]
    for name in real:
        if _is_number(real[name]):
            low, high = real[name].min(), real[name].max()
            for part, frame in zip(parts, frames, strict=True):
                scaled = (frame[name] - low) / (high - low if high > low else 1.0)
                part.append(scaled.fillna(-0.5).to_numpy(np.float32)[:, None])
        else:
            common = real[name].fillna("").value_counts().index[:99]
            for part, frame in zip(parts, frames, strict=True):
                code = (
                    frame[name].fillna("").map({v: i for i, v in enumerate(common)}).fillna(99).to_numpy(int)
                )
                part.append(np.eye(100, dtype=np.float32)[code] * np.float32(0.5**0.5))
    return [np.hstack(part) for part in parts]


def _nearest(points: np.ndarray, among: np.ndarray) -> np.ndarray:
    squares, found = (among**2).sum(1), np.empty(len(points), np.float32)
    for start in range(0, len(points), 1000):
        part = points[start : start + 1000]
        distance = (part**2).sum(1)[:, None] + squares - 2 * part @ among.T
        found[start : start + 1000] = np.sqrt(np.maximum(distance.min(1), 0))
    return found
