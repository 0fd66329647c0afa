"""privacy.py: exact copies are counted, near ones are not."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from genai_core.evaluation.privacy import copied_share


def test_copies_are_counted_row_by_row() -> None:
    real = pa.table({"a": [1, 2, None, 4], "b": ["x", "y", "z", None]})
    other = pa.table({"a": [1, 2, None, 4, None], "b": ["x", "x", "z", None, None]})
    assert copied_share(real, other) == 3 / 5


def test_the_order_of_columns_matters() -> None:
    real, other = pa.table({"a": [1, 5], "b": [2, 5]}), pa.table({"a": [2, 5], "b": [1, 5]})
    assert copied_share(real, other) == 0.5


def test_no_rows_no_copies() -> None:
    real = pa.table({"a": [1]})
    assert copied_share(real, real.slice(1)) == 0.0


def test_no_false_copies_among_a_million_rows() -> None:
    numbers = np.arange(1_000_000)
    real = pa.table({"a": numbers, "b": numbers[::-1]})
    assert copied_share(real, pa.table({"a": numbers, "b": numbers})) == 0.0
