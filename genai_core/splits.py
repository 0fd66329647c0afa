"""Seeds from names, which records a fit holds out, and at which it looks: by number and seed alone, on any machine."""

from __future__ import annotations

import hashlib

import numpy as np

VALIDATION_ROWS = 20_000  # no more are evaluated at a time
VALIDATION_ENTRIES = 2_000_000  # fewer rows where a record is a picture of hundreds of entries


def seed_of(*parts: int | str) -> int:
    """A 63-bit seed from its parts."""
    text = "/".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def validation_rows(records: np.ndarray) -> int:
    """How many records are looked at in a validation."""
    return min(VALIDATION_ROWS, max(VALIDATION_ENTRIES // max(records.shape[1], 1), 64))


def spread(rows: int, at_most: int) -> np.ndarray:
    """Row numbers, evenly spaced, at most so many."""
    return np.linspace(0, rows - 1, min(rows, at_most)).astype(np.int64)


def held_out(numbers: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Boolean (rows,): which of the numbered rows are held out. Depends on nothing but number and seed."""
    return uniform_of(numbers, seed_of(seed, "split")) < fraction


def uniform_of(numbers: np.ndarray, seed: int) -> np.ndarray:
    """float64 (rows,) in [0, 1]: a random number for each of the numbered rows (splitmix64: Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        z = numbers.astype(np.uint64) + np.uint64(seed)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
        z ^= z >> np.uint64(31)
    return z / 2.0**64
