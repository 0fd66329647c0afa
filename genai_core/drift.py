"""Drift told apart from anomalies: did a part of the data move as a whole, in its scores or in a column?

Single odd rows make a few p-values small and leave the rest uniform. Rows that come from another world move the bulk.
So the test looks at the p-values above TAIL, which row anomalies do not change (Kolmogorov-Smirnov, two samples: the
rows, and those held out at training), and at the share below it: more than half is no matter of single rows. Columns
are compared with the held-out rows by a chi-squared test over at most MAX_BUCKETS buckets.

With a million rows everything differs significantly. What counts as moved must also be large: SHIFT of the
probability mass.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from genai_core.spaces import Position, Space, Tokens

BINS = 100  # of p-values
TAIL = 0.1  # p-values up to here may be row anomalies
SHIFT = 0.1  # of the mass, the least that counts as moved
WITHHELD = 0.2  # of the scores' mass, upwards: from here on p-values say little about single rows
ALPHA = 0.01  # of all tests of a job together (Bonferroni)
MIN_ROWS = 50  # fewer cannot be told from chance
MAX_BUCKETS = (
    20  # of the values of a column; those that are off its axis (missing, unseen, ...) have their own
)


@dataclass(frozen=True)
class Shift:
    """How far something moved.

    size    share of the probability mass that lies elsewhere
    p       of so large a shift by chance
    upwards of scores: rows became more anomalous; of columns: always False
    """

    size: float
    p: float
    upwards: bool = False

    def moved(self, tests: int) -> bool:
        """Large, and significant among so many tests."""
        return self.size >= SHIFT and self.p <= ALPHA / max(tests, 1)


def p_histogram(p_values: np.ndarray) -> np.ndarray:
    """How many p-values lie in each of BINS equal parts of (0, 1], int64; NaN is left out."""
    known = p_values[~np.isnan(p_values)]
    return np.bincount(np.clip(np.ceil(known * BINS).astype(int) - 1, 0, BINS - 1), minlength=BINS)


def score_shift(counts: np.ndarray, held_out: int) -> Shift | None:
    """Of the bulk of the scores, from their p-values' histogram; None for too few rows.

    held_out: number of calibration rows behind the p-values.
    """
    from scipy.stats import binom

    rows, edge = int(counts.sum()), round(TAIL * BINS)
    if rows < MIN_ROWS or not held_out:
        return None
    small = int(counts[:edge].sum())
    if 2 * small > rows:
        return Shift(small / rows - TAIL, float(binom.sf(small - 1, rows, TAIL)), True)
    bulk = counts[edge:]
    expected = np.arange(1, len(bulk) + 1) / len(bulk)
    difference = np.cumsum(bulk) / bulk.sum() - expected
    at = int(np.abs(difference).argmax())
    size = float(abs(difference[at]))
    p = _kolmogorov(size, int(bulk.sum()), round(held_out * (1 - TAIL)))
    return Shift(size, p, bool(difference[at] > 0))


def _kolmogorov(distance: float, one: int, other: int) -> float:
    """p-value of the two-sample statistic (asymptotic: Smirnov 1948); too large for binned values, never too small."""
    from scipy.special import kolmogorov

    return float(kolmogorov(distance * np.sqrt(one * other / (one + other))))


class Profile:
    """How the values of each column are distributed in the held-out rows: counts by bucket.

    rows    the bucket of each column in each row that calibrates, (rows, columns); None: not kept
    """

    def __init__(self, space: Tokens, tokens: np.ndarray, rows: np.ndarray | None = None) -> None:
        """tokens: how often each first token of each column occurs, one column after the other, int64."""
        self.names = space.fields
        self.tokens = tokens
        self.first = [space.positions_of(number)[0] for number in range(len(space.fields))]
        ends = np.cumsum([space.positions[i].vocabulary for i in self.first])
        if len(tokens) != ends[-1]:
            raise ValueError(f"{len(tokens)} counts for {ends[-1]} tokens")
        counts = np.split(tokens, ends[:-1])
        self.buckets = [_buckets(space.positions[i], c) for i, c in zip(self.first, counts, strict=True)]
        self.counts = [_grouped(c, b) for c, b in zip(counts, self.buckets, strict=True)]
        self.rows = rows
        if rows is not None and not self._fits(rows):
            raise ValueError(
                f"rows of shape {rows.shape} are not in the buckets of {len(self.names)} columns"
            )

    @classmethod
    def fit(cls, space: Tokens, records: np.ndarray, calibrating: np.ndarray) -> Profile:
        """From encoded records (rows, positions): those held out, and those whose scores calibrate."""
        first = [space.positions_of(number)[0] for number in range(len(space.fields))]
        counts = [np.bincount(records[:, i], minlength=space.positions[i].vocabulary) for i in first]
        profile = cls(space, np.concatenate(counts).astype(np.int64))
        found = [b[calibrating[:, i]] for i, b in zip(profile.first, profile.buckets, strict=True)]
        profile.rows = np.stack(found, 1).astype(
            np.uint8 if max(map(len, profile.counts)) < 256 else np.uint16
        )
        return profile

    @classmethod
    def of(cls, space: Space, tokens: np.ndarray | None, rows: np.ndarray | None) -> Profile | None:
        """From what was kept; None without it, or when the records are no rows of tables."""
        return None if tokens is None or not isinstance(space, Tokens) else cls(space, tokens, rows)

    def _fits(self, rows: np.ndarray) -> bool:
        sizes = np.array([len(counts) for counts in self.counts])
        return rows.ndim == 2 and rows.shape[1] == len(sizes) and bool((rows < sizes).all())

    def count(self, tokens: np.ndarray) -> dict[str, np.ndarray]:
        """Column -> rows by bucket, of encoded records."""
        return {
            name: np.bincount(bucket[tokens[:, i]], minlength=bucket.max() + 1)
            for name, i, bucket in zip(self.names, self.first, self.buckets, strict=True)
        }

    def shifts(self, counts: dict[str, np.ndarray]) -> dict[str, Shift]:
        """Of the columns that were counted: how far each moved; none for too few rows."""
        found = zip(self.names, self.counts, strict=True)
        return {
            name: shift
            for name, reference in found
            if name in counts and (shift := column_shift(np.asarray(counts[name]), reference)) is not None
        }


def column_shift(counts: np.ndarray, reference: np.ndarray) -> Shift | None:
    """Total variation between two histograms, beyond what chance makes of so many rows; chi-squared p-value."""
    from scipy.stats import chi2

    rows, held_out = counts.sum(), reference.sum()
    if min(rows, held_out) < MIN_ROWS:
        return None
    used = counts + reference > 0
    a, b = counts[used] / rows, reference[used] / held_out
    together = (counts[used] + reference[used]) / (rows + held_out)
    statistic = ((a - b) ** 2 / together).sum() * rows * held_out / (rows + held_out)
    noise = np.sqrt(2 / np.pi * together * (1 - together) * (1 / rows + 1 / held_out)).sum() / 2
    size = max(float(np.abs(a - b).sum() / 2 - noise), 0.0)
    return Shift(size, float(chi2.sf(statistic, max(used.sum() - 1, 1))))


def _buckets(position: Position, counts: np.ndarray) -> np.ndarray:
    """(vocabulary,) the bucket of each token: neighbours together along an axis, rare categories together."""
    values = position.values
    ordered = values is not None and values.ndim == 1
    on_axis = ~np.isnan(values) if ordered and values is not None else np.zeros(len(counts), bool)
    bucket = np.zeros(len(counts), np.int64)
    if ordered and values is not None and on_axis.any():
        order = np.flatnonzero(on_axis)[np.argsort(values[on_axis], kind="stable")]
        before = np.cumsum(counts[order]) - counts[order]
        bucket[order] = np.minimum(before * MAX_BUCKETS // max(counts[order].sum(), 1), MAX_BUCKETS - 1)
        off = np.flatnonzero(~on_axis)
        bucket[off] = MAX_BUCKETS + np.arange(len(off))
    else:
        common = np.argsort(-counts, kind="stable")[: MAX_BUCKETS - 1]
        bucket[:] = MAX_BUCKETS - 1
        bucket[common] = np.arange(len(common))
        bucket[-2:] = MAX_BUCKETS + np.arange(2)  # unseen, missing
    return np.unique(bucket, return_inverse=True)[1]


def _grouped(counts: np.ndarray, bucket: np.ndarray) -> np.ndarray:
    return np.bincount(bucket, weights=counts, minlength=bucket.max() + 1).astype(np.int64)
