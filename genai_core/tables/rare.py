"""Rare categories: values in so few rows that drawing them could tell on someone. Codecs know them by digest alone."""

from __future__ import annotations

import hashlib
from collections.abc import Collection

import numpy as np
import pyarrow as pa

from genai_core.tables.axis_fit import at_most


def digest(value: str) -> str:
    """What is kept of a rare value: enough to know it again."""
    return hashlib.blake2b(value.encode(), digest_size=8).hexdigest()


def without_rare(counts: dict[str, int], rows: int, rare_below: int) -> dict[str, int]:
    """The values that are kept by name: those in fewer rows than about `rare_below` are not, unless all are so rare.

    The threshold is one more or one less for two values in three, so that being kept does not tell a count; the noise
    comes from the counts, hence the same data give the same codec.
    """
    rare_below = at_most(rare_below, rows)
    if rare_below < 2:
        return counts
    seed = hashlib.blake2b(repr(sorted(counts.items())).encode(), digest_size=8).digest()
    noise = np.random.default_rng(int.from_bytes(seed, "big")).integers(-1, 2, len(counts))
    least = np.maximum(rare_below + noise, 2).tolist()
    kept = {value: n for (value, n), bound in zip(sorted(counts.items()), least, strict=True) if n >= bound}
    return kept or counts


def is_rare(keys: pa.Array, unknown: np.ndarray, digests: Collection[str]) -> np.ndarray:
    """Boolean (rows,): which of the keys, where they are `unknown` by name, have one of the digests."""
    if not digests or not unknown.any():
        return np.zeros(len(keys), bool)
    codes, known = keys.dictionary_encode(), set(digests)
    marks = [key is not None and digest(key) in known for key in codes.dictionary.to_pylist()]
    index = codes.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    return unknown & np.array([*marks, False])[index]
