"""What a report draws of a table: every column's shares in real and synthetic rows, and how well each pair agrees."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa

from genai_core.evaluation.coding import CodedColumn
from genai_core.evaluation.fidelity import binned, column_shape, trends_of
from genai_core.evaluation.histograms import names_of

BARS = 24
TOP = 12  # values of a column that are drawn one by one
TEXT = 40  # characters of a value


def drawn_columns(columns: Sequence[CodedColumn], real: pa.Table) -> list[dict[str, Any]]:
    """Of every column: name, shape, labels of bars, and the shares in real and synthetic rows."""
    return [_drawn(column, real) for column in columns]


def _drawn(column: CodedColumn, real: pa.Table) -> dict[str, Any]:
    names = [name if len(name) <= TEXT else name[: TEXT - 3] + "..." for name in names_of(column, real)]
    if column.ordered and column.size > BARS:
        place, labels = _equal_bars(column, names)
    else:
        place, labels = _common_values(column, names)
    shares = [
        np.bincount(place[codes], minlength=len(labels)) / max(len(codes), 1)
        for codes in (column.first, column.second)
    ]
    return {
        "name": column.name,
        "shape": round(column_shape(column), 5),
        "ordered": column.ordered,
        "labels": labels,
        "real": [round(float(share), 5) for share in shares[0]],
        "synthetic": [round(float(share), 5) for share in shares[1]],
    }


def _equal_bars(column: CodedColumn, names: list[str]) -> tuple[np.ndarray, list[str]]:
    """Bars that hold equally many real rows, as far as ties allow; missing values have one of their own."""
    present = column.first[column.first > 0]
    present = present if len(present) else np.ones(1, np.int64)
    starts = np.unique(np.quantile(present, np.linspace(0, 1, BARS + 1)[:-1], method="lower"))
    place = np.searchsorted(starts, np.arange(column.size), side="right").clip(1)
    place[0] = 0
    return place, ["missing", *(f"from {names[int(start)]}" for start in starts)]


def _common_values(column: CodedColumn, names: list[str]) -> tuple[np.ndarray, list[str]]:
    """The commonest real values, in their own order; all others together in the last bar."""
    counts = np.bincount(column.first, minlength=column.size)
    most = BARS if column.ordered else TOP
    chosen = np.sort(np.argsort(-counts, kind="stable")[:most])
    chosen = chosen[counts[chosen] > 0]
    place = np.full(column.size, len(chosen))
    place[chosen] = np.arange(len(chosen))
    return place, [*(names[int(code)] for code in chosen), "all others"]


def drawn_pairs(
    columns: Sequence[CodedColumn], others: Sequence[CodedColumn], most: int = 40
) -> dict[str, Any]:
    """Agreement of every pair in synthetic rows (`columns`) and in other real ones (`others`), as matrices of losses.

    Of tables with more columns than `most`, those whose shapes agree least are drawn.
    """
    order = np.argsort([column_shape(column) for column in columns], kind="stable")
    chosen = sorted(order[:most].tolist())
    found = trends_of([binned(columns[i]) for i in chosen])
    real = trends_of([binned(others[i]) for i in chosen])
    pairs = [
        [a, b, round(float(1 - x), 4), round(float(1 - y), 4)]
        for (a, b), x, y in zip(combinations(range(len(chosen)), 2), found, real, strict=True)
    ]
    return {"columns": [columns[i].name for i in chosen], "losses": pairs}
