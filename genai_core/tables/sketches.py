"""Mergeable summaries of a column, filled in one streaming pass; memory does not grow with the rows.

The sketches are Apache DataSketches': the t-digest (Dunning & Ertl 2019) for quantiles, the frequent-items sketch
(Misra & Gries 1982) for counts of values. The t-digest is used and not KLL because it is deterministic: KLL
draws random bits that cannot be seeded from Python, and the same data would give another encoder each time.
"""

from __future__ import annotations

import math

import datasketches
import numpy as np
import pyarrow as pa

QUANTILE_COMPRESSION = 4000  # rank error about .001 over 1e6 lognormal values, 80 kB
FREQUENT_NUMBERS_LG = 14  # counters: 2**14; count error about .02 % of the rows
FREQUENT_STRINGS_LG = 17  # exact up to 98,000 distinct values
MANY_DISTINCT = 4096  # in one batch; above it values seen once there are not counted as candidates for atoms
MAX_DECIMALS = 9
_ALL = datasketches.frequent_items_error_type.NO_FALSE_NEGATIVES


class NumericSummary:
    """Counts, range, grid, quantiles and frequent values of one numeric axis.

    Integers are summarised exactly as int64; floats as float64, not-a-number and infinities counted apart.
    """

    def __init__(self, integral: bool) -> None:
        self.integral = integral
        self.rows = self.missing = self.nan = self.positive_infinite = self.negative_infinite = 0
        self.minimum: float | int | None = None
        self.maximum: float | int | None = None
        self.decimals: int | None = 0  # None: no grid of ten fits
        self.anchor: int | None = None
        self.divisor = 0  # greatest common divisor of the distances to the anchor
        self.exact = True  # every value was offered to the frequent-values sketch
        self.digest = datasketches.tdigest_double(QUANTILE_COMPRESSION)
        self.frequent = datasketches.frequent_items_sketch(FREQUENT_NUMBERS_LG)

    def update(self, values: np.ndarray, missing: int = 0) -> None:
        """Add the non-null `values` (int64 or float) and a count of nulls."""
        self.rows += len(values) + missing
        self.missing += missing
        if not self.integral:
            values = self._count_specials(values)
        if len(values) == 0:
            return
        self._extend_range(values)
        unique, counts = np.unique(values, return_counts=True)
        self._update_grid(unique)
        if len(unique) > MANY_DISTINCT:
            repeated = counts > 1
            self.exact = self.exact and bool(repeated.all())
            unique, counts = unique[repeated], counts[repeated]
        for value, count in zip(unique.tolist(), counts.tolist(), strict=True):
            self.frequent.update(value, count)
        self.digest.update(np.ascontiguousarray(values, dtype=np.float64))

    def _count_specials(self, values: np.ndarray) -> np.ndarray:
        finite = np.isfinite(values)
        if finite.all():
            return values
        self.nan += int(np.isnan(values).sum())
        self.positive_infinite += int(np.isposinf(values).sum())
        self.negative_infinite += int(np.isneginf(values).sum())
        return values[finite]

    def _extend_range(self, values: np.ndarray) -> None:
        low, high = values.min().item(), values.max().item()
        self.minimum = low if self.minimum is None else min(low, self.minimum)
        self.maximum = high if self.maximum is None else max(high, self.maximum)

    def _update_grid(self, unique: np.ndarray) -> None:
        if not self.integral:
            self.decimals = _decimals(unique, self.decimals)
            if self.decimals != 0:
                return
        if self.anchor is None:
            self.anchor = int(unique[0])
        if max(abs(int(unique[0])), abs(int(unique[-1]))) > 2**61:
            self.divisor = 1  # distances could leave int64
        elif self.divisor != 1:
            distances = unique.astype(np.int64) - self.anchor
            self.divisor = int(np.gcd.reduce(np.append(distances, self.divisor)))

    def merge(self, other: NumericSummary) -> None:
        """Add what another summary of the same axis saw."""
        for name in ("rows", "missing", "nan", "positive_infinite", "negative_infinite"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.exact = self.exact and other.exact
        if self.decimals is not None:
            self.decimals = None if other.decimals is None else max(self.decimals, other.decimals)
        if other.anchor is not None:
            gap = 0 if self.anchor is None else other.anchor - self.anchor
            self.divisor = math.gcd(self.divisor, other.divisor, gap)
            self.anchor = other.anchor if self.anchor is None else self.anchor
        if other.minimum is not None:
            self._extend_range(np.array([other.minimum, other.maximum]))
            self.digest.merge(other.digest)
            self.frequent.merge(other.frequent)

    @property
    def counted(self) -> int:
        """Number of finite values."""
        specials = self.missing + self.nan + self.positive_infinite + self.negative_infinite
        return self.rows - specials

    def frequent_values(self) -> tuple[dict[float | int, int], bool]:
        """Candidate values with lower bounds of their counts, and whether that is every value with its exact count."""
        items = self.frequent.get_frequent_items(_ALL, 0)
        counts = {value: low for value, _, low, _ in items}
        return counts, self.exact and sum(counts.values()) == self.counted

    def quantiles(self, number: int) -> np.ndarray:
        """`number` values at evenly spaced ranks from the minimum to the maximum, float64."""
        return np.array([self.digest.get_quantile(rank) for rank in np.linspace(0.0, 1.0, number)])


def _decimals(unique: np.ndarray, start: int | None) -> int | None:
    """The fewest decimals, from `start` on, with which all values can be written; None if more than MAX_DECIMALS."""
    if start is None:
        return None
    for decimals in range(start, MAX_DECIMALS + 1):
        if np.abs(unique[[0, -1]]).max() * 10.0**decimals > 2**53:
            return None
        # compared in the column's own type: .1 in float32 is one decimal, though not in float64
        if np.array_equal(np.round(unique.astype(np.float64), decimals).astype(unique.dtype), unique):
            return decimals
    return None


class CategoricalSummary:
    """Counts of the values of one categorical column; exact up to about 98,000 distinct values."""

    def __init__(self) -> None:
        self.rows = self.missing = 0
        self.frequent = datasketches.frequent_strings_sketch(FREQUENT_STRINGS_LG)

    def update(self, keys: pa.Array) -> None:
        """Add strings; nulls are missing values."""
        self.rows += len(keys)
        self.missing += keys.null_count
        for entry in keys.value_counts():
            value = entry["values"].as_py()
            if value is not None:
                self.frequent.update(value, entry["counts"].as_py())

    def merge(self, other: CategoricalSummary) -> None:
        """Add what another summary of the same column saw."""
        self.rows += other.rows
        self.missing += other.missing
        self.frequent.merge(other.frequent)

    @property
    def counted(self) -> int:
        """Number of values that are not missing."""
        return self.rows - self.missing

    def counts(self, limit: int) -> dict[str, int]:
        """At most `limit` of the most frequent values with their counts, most frequent first, ties by value."""
        items = self.frequent.get_frequent_items(_ALL, 0)
        ranked = sorted(
            ((value, count) for value, count, _, _ in items), key=lambda item: (-item[1], item[0])
        )
        return dict(ranked[:limit])
