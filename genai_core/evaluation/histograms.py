"""The histogram test: which values and which kinds of record are missing, or too rare?

A class that a generator never makes is nearly invisible to a classifier two-sample test and to coverage, which look at
the rows that are there. So the shares of every category, and of clusters of records (k-means in
house features, Lloyd 1982; as in Richardson & Weiss 2018), are compared one by one, with Pearson's test (1900).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from genai_core.evaluation.coding import CodedColumn
from genai_core.tables.columns import keys_of

MOST_VALUES = 200  # of a column whose values are compared one by one
CLUSTERS = 20
EXPECTED = 10  # times a value would have to be seen before its absence is told of
RARE = 0.25  # of its real share, from which down a value is told of
SIGNIFICANT = 1e-4
NAMED = 20
PREVAILING = 0.5  # share of a value in a cluster that is named by it
TEXT = 40  # characters of a value


@dataclass(frozen=True)
class Bin:
    """A value of a column, or a cluster, whose share is far too small; expected and found are counts of rows."""

    column: str
    value: str
    expected: float
    found: int

    @property
    def missing(self) -> bool:
        return self.found == 0


@dataclass(frozen=True)
class HistogramTest:
    """kl: the largest divergence of a column's (or the clusters') shares, in nats; p_value: Pearson's, of the worst.

    lost  what is missing or far too rare, the commonest first
    """

    kl: float
    p_value: float
    lost: tuple[Bin, ...]


def compared(counts: np.ndarray, real: np.ndarray, names: Sequence[str], column: str) -> HistogramTest:
    """Counts of made rows by bin against counts of real ones."""
    from scipy.stats import chi2_contingency

    used = (counts + real) > 0
    if used.sum() < 2 or not counts.sum() or not real.sum():
        return HistogramTest(0.0, 1.0, ())
    a, b = counts[used].astype(float), real[used].astype(float)
    p_value = float(chi2_contingency(np.stack([a, b])).pvalue)
    # half a row more in every bin, or one empty bin would make the divergence infinite
    p, q = (a + 0.5) / (a + 0.5).sum(), (b + 0.5) / (b + 0.5).sum()
    kl = float((q * np.log(q / p)).sum())
    expected = real * counts.sum() / real.sum()
    lost = tuple(
        Bin(column, names[i], round(float(expected[i]), 1), int(counts[i]))
        for i in np.argsort(-expected, kind="stable")
        if expected[i] >= EXPECTED
        and counts[i] < RARE * expected[i]
        and _by_chance(int(counts[i]), float(expected[i])) < SIGNIFICANT
    )
    return HistogramTest(kl, p_value, lost)


def _by_chance(found: int, expected: float) -> float:
    from scipy.stats import poisson

    return float(poisson.cdf(found, expected))


def of_columns(columns: Sequence[CodedColumn], real: pa.Table) -> HistogramTest:
    """Of all columns with at most 200 values; `columns` code real rows first, made rows second."""
    found = [
        compared(
            np.bincount(column.second, minlength=column.size),
            np.bincount(column.first, minlength=column.size),
            names_of(column, real),
            column.name,
        )
        for column in columns
        if column.size <= MOST_VALUES + 1
    ]
    return together(found)


def names_of(column: CodedColumn, real: pa.Table) -> list[str]:
    """The value that each code stands for, as text; those that only made rows have stay without a name."""
    names = ["(missing)"] + ["(not in the real rows)"] * (column.size - 1)
    codes, first = np.unique(column.first, return_index=True)
    values = real[column.name].take(pa.array(first)).combine_chunks()
    try:
        texts = keys_of(values).to_pylist()
    except pa.ArrowException:
        texts = [str(value) for value in values.to_pylist()]
    for code, text in zip(codes, texts, strict=True):
        if code:
            names[code] = str(text)
    return names


def together(found: Sequence[HistogramTest]) -> HistogramTest:
    """The worst divergence, its p-value times the number of tests (Bonferroni), and all that is lost."""
    if not found:
        return HistogramTest(0.0, 1.0, ())
    lost = sorted((one for test in found for one in test.lost), key=lambda one: -one.expected)
    p_value = min(min(test.p_value for test in found) * len(found), 1.0)
    return HistogramTest(max(test.kl for test in found), p_value, tuple(lost[:NAMED]))


class Clusters:
    """Twenty kinds of real record; each is named by what sets it apart."""

    def __init__(self, features: np.ndarray, table: pa.Table | None, seed: int) -> None:
        """features (rows, d) of real records; table: the same rows where they have columns to name clusters by."""
        from sklearn.cluster import MiniBatchKMeans

        number = max(min(CLUSTERS, len(features) // 20), 1)
        self.means = MiniBatchKMeans(number, random_state=seed, n_init=3).fit(features)
        self.counts = np.bincount(self.means.labels_, minlength=number)
        self.names = [
            f"cluster {i + 1}" + (f" ({_typical(table, self.means.labels_ == i)})" if table else "")
            for i in range(number)
        ]

    def test(self, features: np.ndarray) -> HistogramTest:
        """Of made records."""
        counts = np.bincount(self.means.predict(features), minlength=len(self.counts))
        return compared(counts, self.counts, self.names, "clusters of records")


def _typical(table: pa.Table, inside: np.ndarray, most: int = 3) -> str:
    """The values that are commoner in a cluster than elsewhere, as `sex = Female, ...`."""
    found = []
    for name in table.column_names:
        codes = table[name].combine_chunks().dictionary_encode()
        if not len(codes.dictionary):
            continue
        index = codes.indices.fill_null(len(codes.dictionary)).to_numpy(zero_copy_only=False)
        size = len(codes.dictionary) + 1
        here = np.bincount(index[inside], minlength=size)[:-1] / max(int(inside.sum()), 1)
        lift = here - np.bincount(index, minlength=size)[:-1] / len(index)
        best = int(lift.argmax())
        if here[best] > PREVAILING:
            found.append((float(lift[best]), f"{name} = {str(codes.dictionary[best].as_py())[:TEXT]}"))
    return ", ".join(text for _, text in sorted(found, reverse=True)[:most]) or "no value prevails"


def as_dict(test: HistogramTest) -> dict[str, Any]:
    """JSON-able."""
    return {
        "kl": round(test.kl, 6),
        "p_value": float(f"{test.p_value:.3g}"),
        "lost": [dict(vars(one)) for one in test.lost],
    }
