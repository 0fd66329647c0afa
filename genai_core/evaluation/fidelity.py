"""Fidelity: how alike a synthetic table and a real one are, and how alike two real ones are by the same measures.

Column shapes   1 - Kolmogorov-Smirnov distance (ordered columns), 1 - total variation distance (the others)
Pair trends     1 - total variation distance of the joint distribution of two columns (contingency similarity)
C2ST AUC        a classifier that tries to tell the rows apart (two_sample.py)

Shapes and trends go by SDMetrics' names (Patki, Wedge & Veeramachaneni, DSAA 2016); there, missing values are
dropped, here they count as one more value. All three depend on the number of rows: finite samples of one
distribution differ too. So no number stands alone: `Fidelity.real` is what real rows reach with as many rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa

from genai_core.errors import InvalidData
from genai_core.evaluation.coding import CodedColumn, code_tables
from genai_core.evaluation.two_sample import Giveaway, classifier_two_sample_test

BINS = 10
EXPLAINED = 5


@dataclass(frozen=True)
class Likeness:
    """How alike two samples of `rows` rows each are. Shapes and trends lie in 0..1, 1 is alike; AUC 0.5 is alike.

    pair_trends is None for a table of one column.
    """

    rows: int
    column_shapes: float
    pair_trends: float | None
    c2st_auc: float
    shape_of: dict[str, float]
    giveaways: tuple[Giveaway, ...]


@dataclass(frozen=True)
class Fidelity:
    """real rows against synthetic ones, and real rows against other real ones: what the measures can reach at all."""

    synthetic: Likeness
    real: Likeness

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def compare(
    real: pa.Table, synthetic: pa.Table, holdout: pa.Table, *, seed: int = 0, rows: int = 20_000
) -> Fidelity:
    """Compare `synthetic` with `real`, and `holdout` (real rows that are not in `real`) with `real`.

    All samples have the same size: `rows`, or as many as the smallest table has. Deterministic by seed.
    Raises InvalidData (too few rows, nested columns) and SchemaMismatch (columns that differ).
    """
    size = min(rows, real.num_rows, synthetic.num_rows, holdout.num_rows)
    if size < 1:
        raise InvalidData("nothing to compare: a table has no rows")
    generator = np.random.default_rng(seed)
    sample = [_sample(table, size, generator) for table in (real, synthetic, holdout)]
    return Fidelity(
        synthetic=likeness(sample[0], sample[1], seed=seed, explain=EXPLAINED),
        real=likeness(sample[0], sample[2], seed=seed),
    )


def likeness(first: pa.Table, second: pa.Table, *, seed: int = 0, explain: int = 0) -> Likeness:
    """All measures for two tables with the same columns; explain: how many giveaway columns to look for."""
    columns = code_tables(first, second)
    if not columns:
        raise InvalidData("nothing to compare: the tables have no columns")
    shapes = {column.name: column_shape(column) for column in columns}
    test = classifier_two_sample_test(columns, seed=seed, explain=explain)
    return Likeness(
        rows=min(first.num_rows, second.num_rows),
        column_shapes=float(np.mean(list(shapes.values()))),
        pair_trends=pair_trends(columns),
        c2st_auc=test.auc,
        shape_of=shapes,
        giveaways=test.giveaways,
    )


def column_shape(column: CodedColumn) -> float:
    """1 - Kolmogorov-Smirnov distance of an ordered column, 1 - total variation distance of an unordered one."""
    p, q = _shares(column.first, column.size), _shares(column.second, column.size)
    if column.ordered:
        return float(1 - np.abs(np.cumsum(p) - np.cumsum(q)).max())
    return _alike(p, q)


def pair_trends(columns: Sequence[CodedColumn]) -> float | None:
    """Mean contingency similarity over all pairs of columns, cut into at most BINS + 2 classes each."""
    found = trends_of([binned(column) for column in columns])
    return float(np.mean(found)) if len(found) else None


def trends_of(classes: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Contingency similarity of every pair of binned columns, in the order of `itertools.combinations`."""
    width = BINS + 2
    found = [
        _alike(_shares(a1 * width + b1, width**2), _shares(a2 * width + b2, width**2))
        for (a1, a2), (b1, b2) in combinations(classes, 2)
    ]
    return np.asarray(found)


def binned(column: CodedColumn) -> tuple[np.ndarray, np.ndarray]:
    """Classes 0..BINS + 1: missing, then equally filled bins of the order, or the commonest values and the rest."""
    if not column.ordered:
        return np.minimum(column.first, BINS + 1), np.minimum(column.second, BINS + 1)
    present = np.concatenate([column.first, column.second])
    present = present[present > 0]
    if not len(present):
        return column.first, column.second
    inner = np.quantile(present, np.linspace(0, 1, BINS + 1)[1:-1], method="lower")
    edges = np.unique(np.concatenate([[0], inner]))
    return np.searchsorted(edges, column.first), np.searchsorted(edges, column.second)


def _shares(codes: np.ndarray, size: int) -> np.ndarray:
    return np.bincount(codes, minlength=size) / len(codes)


def _alike(p: np.ndarray, q: np.ndarray) -> float:
    return float(1 - np.abs(p - q).sum() / 2)


def _sample(table: pa.Table, size: int, generator: np.random.Generator) -> pa.Table:
    return (
        table if table.num_rows == size else table.take(np.sort(generator.permutation(table.num_rows)[:size]))
    )
