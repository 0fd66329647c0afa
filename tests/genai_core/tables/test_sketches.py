"""Summaries merge, are exact where they say so, and do not grow with the rows."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from genai_core.tables.columns import ColumnSummary
from genai_core.tables.sketches import NumericSummary, _decimals


def summary(*parts: np.ndarray, integral: bool = False) -> NumericSummary:
    found = NumericSummary(integral)
    for part in parts:
        found.update(part)
    return found


def test_merging_is_the_same_as_seeing_everything() -> None:
    values = np.round(np.random.default_rng(0).normal(size=4000), 2)
    values[:50] = np.nan
    whole, left, right = summary(values), summary(values[:1000]), summary(values[1000:])
    left.merge(right)
    for name in ("rows", "nan", "minimum", "maximum", "decimals", "counted"):
        assert getattr(left, name) == getattr(whole, name), name
    assert left.frequent_values() == whole.frequent_values()


def test_merging_keeps_the_grid() -> None:
    left, right = summary(np.array([10, 25, 40]), integral=True), summary(np.array([7, 22]), integral=True)
    assert (left.divisor, right.divisor) == (15, 15)
    left.merge(right)
    assert left.divisor == 3
    empty = NumericSummary(True)
    empty.merge(left)
    assert (empty.divisor, empty.minimum, empty.maximum) == (3, 7, 40)


def test_quantiles_are_within_a_thousandth_or_two() -> None:
    values = np.random.default_rng(0).lognormal(size=300_000)
    found = summary(*np.array_split(values, 10)).quantiles(101)
    ranks = np.searchsorted(np.sort(values), found) / len(values)
    assert np.abs(ranks - np.linspace(0, 1, 101)).max() < 0.003
    assert found[0] == values.min()
    assert found[-1] == values.max()


def test_quantiles_are_deterministic() -> None:
    values = np.random.default_rng(0).normal(size=100_000)
    assert np.array_equal(summary(values).quantiles(500), summary(values).quantiles(500))


def test_memory_does_not_grow_with_the_rows() -> None:
    found, random = NumericSummary(False), np.random.default_rng(0)
    sizes = []
    for _ in range(30):
        found.update(random.normal(size=50_000))
        sizes.append(found.digest.get_serialized_size_bytes() + 32 * found.frequent.num_active_items)
    assert sizes[-1] < 1.5 * sizes[4] + 200_000
    assert sizes[-1] < 2e6


def test_frequent_values_survive_a_million_others() -> None:
    found, random = NumericSummary(False), np.random.default_rng(0)
    for _ in range(15):
        values = random.normal(size=65_536)
        values[random.random(len(values)) < 0.01] = 0.0
        found.update(values)
    counts, complete = found.frequent_values()
    assert not complete
    assert counts[0.0] == pytest.approx(0.01 * found.rows, rel=0.1)


@pytest.mark.parametrize(
    ("values", "decimals"),
    [([1.0, 2.0], 0), ([0.5], 1), ([0.1, 0.25], 2), ([1e18], None), ([np.pi], None), ([1e-9], 9)],
)
def test_decimals(values: list[float], decimals: int | None) -> None:
    assert _decimals(np.array(values), 0) == decimals


def test_decimals_of_single_precision() -> None:
    assert _decimals(np.array([0.1, 0.7], np.float32), 0) == 1


def test_categories_merge_and_keep_their_counts() -> None:
    left, right = ColumnSummary(pa.string()), ColumnSummary(pa.string())
    left.update(pa.array(["a", "b", None, "a"]))
    right.update(pa.array(["b", "c"]))
    left.merge(right)
    assert left.categories.counts(10) == {"a": 2, "b": 2, "c": 1}
    assert (left.categories.rows, left.categories.missing) == (6, 1)
    assert left.column(2).seen == (True, True)  # "c" was left out: it is unseen, and visible as such
