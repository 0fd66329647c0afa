"""Tables with known anomalies: ADBench's files by two protocols, and a shop's orders with five kinds of fault"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

LEAST = 100  # anomalies that are kept of a large table, if it has as many


class Split(NamedTuple):
    """Rows to learn from, rows to score, and which of these are anomalies."""

    train: np.ndarray
    test: np.ndarray
    odd: np.ndarray


def names(data: Path) -> list[str]:
    """Of the .npz files in a folder, by their number."""
    return sorted((path.stem for path in data.glob("*.npz")), key=lambda name: int(name.split("_")[0]))


def load(data: Path, name: str, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and labels; large tables are cut class by class, in proportion."""
    with np.load(data / f"{name}.npz", allow_pickle=False) as arrays:
        x, y = arrays["X"].astype(np.float64), arrays["y"].astype(int)
    if len(y) <= rows:
        return x, y
    random = np.random.default_rng(1000 + seed)
    odd, normal = np.flatnonzero(y == 1), np.flatnonzero(y == 0)
    kept = max(round(rows * y.mean()), min(len(odd), LEAST))
    index = np.concatenate(
        [random.choice(odd, kept, replace=False), random.choice(normal, rows - kept, replace=False)]
    )
    random.shuffle(index)
    return x[index], y[index]


def split(x: np.ndarray, y: np.ndarray, protocol: str, seed: int) -> Split:
    """semi: a random half of the normal rows is learnt, the others and all anomalies scored; unsup: all rows, both."""
    if protocol == "unsup":
        return Split(x, x, y)
    normal = np.random.default_rng(seed).permutation(np.flatnonzero(y == 0))
    half = len(normal) // 2
    test = np.concatenate([normal[half:], np.flatnonzero(y == 1)])
    return Split(x[normal[:half]], x[test], y[test])


CITIES = {"CH": ["Bern", "Basel"], "DE": ["Berlin", "Ulm", "Bonn"], "FR": ["Paris", "Lyon"], "IT": ["Roma"]}
CURRENCY = {"CH": "CHF", "DE": "EUR", "FR": "EUR", "IT": "EUR"}
PRICES = {"book": 18.0, "phone": 600.0, "chair": 120.0, "tea": 6.0, "lamp": 45.0}
FAULTS = (
    "wrong currency",
    "city elsewhere",
    "price of another article",
    "missing where it is never",
    "new article",
)


def orders(rows: int, seed: int) -> pa.Table:
    """Orders: the city decides country and currency, the article its price; members alone have a discount."""
    random = np.random.default_rng(seed)
    country = random.choice(list(CITIES), rows, p=[0.2, 0.4, 0.3, 0.1])
    article = random.choice(list(PRICES), rows, p=[0.35, 0.1, 0.1, 0.3, 0.15])
    member = random.random(rows) < 0.4
    price = np.array([PRICES[a] for a in article]) * random.lognormal(0, 0.15, rows)
    pieces = 1 + random.poisson(0.6, rows)
    return pa.table({
        "country": country,
        "city": [random.choice(CITIES[c]) for c in country],
        "currency": [CURRENCY[c] for c in country],
        "article": article,
        "price": np.round(price, 2),
        "pieces": pieces,
        "total": np.round(price * pieces, 2),
        "member": member,
        "discount": pa.array(np.round(random.uniform(1, 5, rows), 1), mask=~member),
    })  # fmt: skip


def faulty(table: pa.Table, fault: str, seed: int) -> pa.Table:
    """The same orders, each with one fault; every single value but the last fault's is an ordinary one."""
    random = np.random.default_rng(seed)
    rows = table.to_pylist()
    for row in rows:
        if fault == "wrong currency":
            row["currency"] = "EUR" if row["currency"] == "CHF" else "CHF"
        elif fault == "city elsewhere":
            row["city"] = random.choice(
                [c for land, own in CITIES.items() if land != row["country"] for c in own]
            )
        elif fault == "price of another article":
            row["article"] = random.choice(
                [a for a in PRICES if abs(np.log(PRICES[a] / PRICES[row["article"]])) > 1]
            )
        elif fault == "missing where it is never":
            row["discount"] = None if row["member"] else 2.5
        else:
            row["article"] = "sofa"
    return pa.Table.from_pylist(rows, schema=table.schema)


def numbers(train: pa.Table, test: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """What detectors of numbers are given: categories one-hot (unseen: none), missing numbers 0 and a flag."""
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    for name in train.column_names:
        a, b = (table[name].to_pandas() for table in (train, test))
        if a.dtype.kind in "if":
            parts += [(a.fillna(0).to_numpy(), b.fillna(0).to_numpy())]
            parts += [(a.isna().to_numpy(), b.isna().to_numpy())]
        else:
            parts += [((a == v).to_numpy(), (b == v).to_numpy()) for v in sorted(a.unique())]
    one, other = (np.stack(column, 1).astype(np.float64) for column in zip(*parts, strict=True))
    return one, other
