"""Copies: does a synthetic table repeat rows of the table that its model was trained on?"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from genai_core.evaluation.coding import code_tables

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio (Knuth's multiplicative hashing)


def copied_share(real: pa.Table, other: pa.Table) -> float:
    """Share of the rows of `other` that are in `real`, equal in every column (nulls equal nulls).

    A row is compared by a 64-bit hash of its codes: with 10 million rows on each side, about five false copies in
    a million runs are to be expected.
    """
    if not other.num_rows:
        return 0.0
    columns = code_tables(real, other)
    known = _hash_rows([column.first for column in columns])
    return float(np.isin(_hash_rows([column.second for column in columns]), known).mean())


def _hash_rows(codes: list[np.ndarray]) -> np.ndarray:
    """One uint64 per row; the order of columns matters."""
    mixed = np.zeros(len(codes[0]), np.uint64)
    for column in codes:
        mixed = (mixed ^ column.astype(np.uint64)) * _MULTIPLIER
        mixed ^= mixed >> np.uint64(29)
    return mixed
