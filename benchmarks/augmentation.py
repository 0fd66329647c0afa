"""What synthetic rows of a rare class are worth to a classifier, beside class weights, SMOTE and random oversampling

    python -m benchmarks.augmentation --data DIR [--smote DIR] [--tables mammography ...] [--seeds 0 1 2] [--kept FILE]

DIR holds the folders adult, flights and adbench. Every table is split anew by each seed, with the same shares of the
classes; all methods train the same gradient boosting (`genai_core.evaluation.utility`, three seeds of its own) and are
tested on the same real rows that nothing was learnt from. Resampling methods bring the rare class up to each of SHARES.
SMOTE is imbalanced-learn's (MIT), from the folder that --smote names: it is no dependency.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

import genai_core
from benchmarks.record import save
from genai_core.evaluation.utility import (
    MOST_CATEGORIES,
    Features,
    auroc,
    average_precision,
    classifier,
    gain_interval,
    labels_of,
    probabilities,
)

SHARES = (0.25, 0.5)  # of the rare class after resampling: half of an even share, and even
TEST = 0.3
RARE, COMMON, TARGET = "rare", "common", "class"
ADBENCH = {
    "annthyroid": "2_annthyroid",
    "letter": "20_letter",
    "mammography": "23_mammography",
    "pendigits": "28_pendigits",
    "thyroid": "38_thyroid",
    "wilt": "44_Wilt",
}
SCHEDULED = ["time_hour", "sched_dep_time", "sched_arr_time", "carrier", "origin", "dest", "distance"]
CLASSIFIERS = 3
Rows = tuple[np.ndarray, np.ndarray]


def adult(folder: Path, seed: int) -> tuple[pa.Table, pa.Table]:
    """Census income with 400 of 6,000 rich people left to learn from (2 %), and all of the holdout's to test on."""
    train, test = (pd.read_csv(folder / "adult" / f"{part}.csv") for part in ("train", "test"))
    for frame in (train, test):
        frame[TARGET] = np.where(frame.pop("income").str.startswith(">"), RARE, COMMON)
    rich = np.flatnonzero(train[TARGET] == RARE)
    left_out = np.random.default_rng(seed).permutation(rich)[400:]
    return _table(train.drop(index=train.index[left_out])), _table(test)


def flights(folder: Path, seed: int) -> tuple[pa.Table, pa.Table]:
    """Flights that leave more than an hour late, from what is known the day before."""
    frame = _scheduled(folder)
    frame = frame[frame["dep_delay"].notna()]
    frame[TARGET] = np.where(frame["dep_delay"] > 60, RARE, COMMON)
    return _split(frame.drop(columns="dep_delay"), seed)


def cancelled(folder: Path, seed: int) -> tuple[pa.Table, pa.Table]:
    """Flights that never leave, from the same."""
    frame = _scheduled(folder)
    frame[TARGET] = np.where(frame["dep_delay"].isna(), RARE, COMMON)
    return _split(frame.drop(columns="dep_delay"), seed)


def _scheduled(folder: Path) -> pd.DataFrame:
    frame = pq.read_table(folder / "flights" / "train.parquet").to_pandas().sample(25_000, random_state=0)
    return frame[[*SCHEDULED, "dep_delay"]].copy()


def digits(folder: Path, seed: int) -> tuple[pa.Table, pa.Table]:
    """Handwritten eights among ten digits (as scikit-learn ships them), every second of them left: 5 %."""
    from sklearn.datasets import load_digits

    del folder
    found = load_digits(as_frame=True)
    frame = found.data.astype(int)
    frame[TARGET] = np.where(found.target == 8, RARE, COMMON)
    return _split(frame.drop(index=frame.index[frame[TARGET] == RARE][::2]), seed)


def adbench(name: str) -> Callable[[Path, int], tuple[pa.Table, pa.Table]]:
    """A table of ADBench (Han et al. 2022) with its labels."""

    def read(folder: Path, seed: int) -> tuple[pa.Table, pa.Table]:
        with np.load(folder / "adbench" / f"{ADBENCH[name]}.npz") as arrays:
            frame = pd.DataFrame(arrays["X"], columns=[f"x{i}" for i in range(arrays["X"].shape[1])])
            frame[TARGET] = np.where(arrays["y"] == 1, RARE, COMMON)
        return _split(frame, seed)

    return read


TABLES = {"adult": adult, "cancelled": cancelled, "digits": digits, "flights": flights}
TABLES |= {name: adbench(name) for name in ADBENCH}


def _split(frame: pd.DataFrame, seed: int) -> tuple[pa.Table, pa.Table]:
    from sklearn.model_selection import train_test_split

    train, test = train_test_split(frame, test_size=TEST, random_state=seed, stratify=frame[TARGET])
    return _table(train), _table(test)


def _table(frame: pd.DataFrame) -> pa.Table:
    return pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)


def wanted(y: np.ndarray, share: float) -> int:
    """Rare rows to add."""
    common = int((y == COMMON).sum())
    return max(round(common * share / (1 - share)) - int((y == RARE).sum()), 0)


def oversampled(X: np.ndarray, y: np.ndarray, more: int, seed: int) -> Rows:
    """Rare rows again, at random."""
    rare = np.flatnonzero(y == RARE)
    again = np.random.default_rng(seed).choice(rare, more)
    return np.concatenate([X, X[again]]), np.concatenate([y, y[again]])


def smote(X: np.ndarray, y: np.ndarray, categorical: list[bool], more: int, seed: int) -> Rows:
    """Chawla et al. 2002; it takes no missing values: medians, and a category of their own, stand for them."""
    from imblearn.over_sampling import SMOTE, SMOTENC

    mask = np.array(categorical)
    fill = np.where(mask, MOST_CATEGORIES + 1, np.nanmedian(np.where(np.isnan(X).all(0), 0, X), 0))
    complete = np.where(np.isnan(X), fill, X)
    rare = int((y == RARE).sum())
    how: dict[str, Any] = {"sampling_strategy": {RARE: rare + more}, "random_state": seed}
    how["k_neighbors"] = min(5, rare - 1)
    sampler = SMOTENC(np.flatnonzero(mask).tolist(), **how) if mask.any() else SMOTE(**how)
    made, labels = sampler.fit_resample(complete, y)
    return np.concatenate([X, made[len(X) :]]), np.concatenate([y, labels[len(y) :]])


def run(name: str, folder: Path, seed: int, with_smote: bool, settings: dict[str, Any]) -> dict[str, Any]:
    """All methods on one split: average precision, its gain with an interval, AUROC."""
    train, test = TABLES[name](folder, seed)
    features = Features(train, TARGET)
    y, truth = labels_of(train, TARGET), labels_of(test, TARGET) == RARE
    X, T = features(train), features(test)
    started = time.process_time()
    model = genai_core.fit(train, seed=seed, score_effort=0.05, **settings)
    fit_seconds = time.process_time() - started
    sets: dict[str, Callable[[], tuple[np.ndarray, np.ndarray, dict[str, Any]]]] = {
        "real": lambda: (X, y, {}),
        "class weights": lambda: (X, y, {"class_weight": "balanced"}),
    }
    for share in SHARES:
        more = wanted(y, share)
        sets[f"oversampling {share:.0%}"] = lambda n=more: (*oversampled(X, y, n, seed), {})
        if with_smote:
            sets[f"smote {share:.0%}"] = lambda n=more: (*smote(X, y, features.categorical, n, seed), {})
        sets[f"ours {share:.0%}"] = lambda n=more: (*_with_ours(model, features, X, y, n, seed), {})
    positive, found, base = truth[:, None], {}, None
    for method, make in sets.items():
        rows, labels, how = make()
        predicted = [
            probabilities(classifier(features, 10 * seed + k, **how).fit(rows, labels), T, [RARE])
            for k in range(CLASSIFIERS)
        ]
        base = base or predicted
        gain = gain_interval(positive, base, predicted, seed)
        found[method] = {
            "average_precision": float(np.mean([average_precision(positive, p) for p in predicted])),
            "auroc": float(np.mean([auroc(positive, p) for p in predicted])),
            "gain": gain.mean,
            "gain_low": gain.low,
            "gain_high": gain.high,
        }
    facts = {"train_rows": len(y), "train_rare": int((y == RARE).sum())}
    facts |= {"test_rows": len(truth), "test_rare": int(truth.sum()), "fit_cpu_seconds": fit_seconds}
    return facts | {"methods": found}


def _with_ours(
    model: genai_core.FittedModel, features: Features, X: np.ndarray, y: np.ndarray, more: int, seed: int
) -> Rows:
    made = model.sample(more, seed=seed, where={TARGET: RARE})
    return np.concatenate([X, features(made)]), np.concatenate([y, labels_of(made, TARGET)])


def summary(rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """table -> facts of the first seed, and method -> means over the seeds, with the range of the gain."""
    found: dict[str, Any] = {}
    for table in sorted({key.split("/")[0] for key in rows}):
        seeds = [row for key, row in sorted(rows.items()) if key.split("/")[0] == table]
        facts = {name: value for name, value in seeds[0].items() if name != "methods"}
        methods = {}
        for method in seeds[0]["methods"]:
            each = [row["methods"][method] for row in seeds]
            means = {name: round(float(np.mean([one[name] for one in each])), 4) for name in each[0]}
            methods[method] = means | {"gains": [round(one["gain"], 4) for one in each]}
        found[table] = {"seeds": len(seeds), **facts, "methods": methods}
    return found


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--smote", type=Path, help="folder that holds imblearn and sklearn_compat")
    parser.add_argument("--tables", nargs="*", default=sorted(TABLES), choices=sorted(TABLES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--fit", type=json.loads, default={}, help="settings of genai_core.fit, JSON")
    parser.add_argument("--kept", type=Path, help="JSON lines of what is done: it is not done again")
    options = parser.parse_args()
    if options.smote:
        sys.path.append(str(options.smote))
    lines = options.kept.read_text().splitlines() if options.kept and options.kept.exists() else []
    rows = dict(json.loads(line) for line in lines)
    for name in options.tables:
        for seed in options.seeds:
            if f"{name}/{seed}" in rows:
                continue
            rows[f"{name}/{seed}"] = run(name, options.data, seed, bool(options.smote), options.fit)
            if options.kept:
                with options.kept.open("a") as file:
                    file.write(json.dumps([f"{name}/{seed}", rows[f"{name}/{seed}"]]) + "\n")
    save("augmentation", summary(rows), shares=SHARES, test=TEST, classifiers=CLASSIFIERS, fit=options.fit)


if __name__ == "__main__":
    main()
