"""Small spaces and tables that every contract test runs over."""

from __future__ import annotations

import datetime
import decimal
import itertools

import numpy as np
import pyarrow as pa
import torch

from genai_core.spaces import Position, Tokens


def tiny_space() -> Tokens:
    """Two fields, three positions: one flat, one nested with combinations that are not possible. 3 x 7 records."""
    allowed = np.array([[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]], bool)
    return Tokens(
        (
            Position(3, 0, np.ones(3, bool), np.array([-1.0, 0.0, np.nan])),
            Position(3, 1, np.ones(3, bool)),
            Position(4, 1, np.ones(4, bool), parent=1, allowed=allowed),
        ),
        ("a", "b"),
    )


def every_record(space: Tokens) -> torch.Tensor:
    """All possible records of a small space, (records, positions)."""
    found = []
    for record in itertools.product(*(range(v) for v in space.vocabularies)):
        nested = [(p.allowed, p.parent, i) for i, p in enumerate(space.positions) if p.allowed is not None]
        if all(allowed[record[parent], record[i]] for allowed, parent, i in nested):
            found.append(record)
    return torch.tensor(found)


def every_type(rows: int = 300, seed: int = 0) -> pa.Table:
    """One column for every kind of column that users have; nulls, NaN, infinities, unicode, empty strings."""
    random = np.random.default_rng(seed)

    def nulls(share: float) -> np.ndarray:
        return random.random(rows) < share

    whole = random.integers(-1000, 1000, rows)
    words = np.array(["", "ü", "日本", "a b", "x" * 50])[random.integers(0, 5, rows)]
    start = datetime.datetime(2020, 1, 1)
    times = [start + datetime.timedelta(minutes=int(m)) for m in random.integers(0, 500_000, rows)]
    real = random.lognormal(size=rows)
    special = np.where(nulls(0.1), np.nan, np.where(nulls(0.1), np.inf, np.where(nulls(0.1), -np.inf, real)))
    letters = pa.array(np.array(["x", "y", "z"])[random.integers(0, 3, rows)], mask=nulls(0.1))
    return pa.table(
        {
            "int8": pa.array(random.integers(-128, 127, rows), pa.int8(), mask=nulls(0.1)),
            "int64": pa.array(random.integers(-(2**63), 2**63 - 1, rows)),
            "uint64": pa.array(random.integers(0, 2**64 - 1, rows, dtype=np.uint64)),
            "steps_of_five": pa.array(whole * 5),
            "float16": pa.array(np.round(random.normal(size=rows), 1).astype(np.float16)),
            "float32": pa.array(random.normal(size=rows).astype(np.float32), mask=nulls(0.1)),
            "float64": pa.array(special),
            "money": pa.array(np.where(nulls(0.3), 0.0, np.round(random.lognormal(5, 2, rows), 2))),
            "bool": pa.array(random.random(rows) < 0.3, mask=nulls(0.1)),
            "string": pa.array(words, mask=nulls(0.1)),
            "large_string": pa.array(words, pa.large_string()),
            "string_view": pa.array(words, pa.string_view()),
            "many": pa.array([f"n{i}" for i in random.integers(0, 5 * rows, rows)]),
            "binary": pa.array([bytes([b, 255]) for b in random.integers(0, 9, rows).tolist()]),
            "fixed_binary": pa.array([b"ab", b"cd"] * (rows // 2), pa.binary(2)),
            "dictionary": letters.dictionary_encode().cast(pa.dictionary(pa.int8(), pa.string())),
            "dictionary_of_int": pa.array(random.integers(0, 4, rows)).dictionary_encode(),
            "timestamp": pa.array(times, pa.timestamp("us")),
            "zoned": pa.array(times, pa.timestamp("ns", "Europe/Berlin"), mask=nulls(0.2)),
            "date32": pa.array([t.date() for t in times], pa.date32(), mask=nulls(0.1)),
            "date64": pa.array([t.date() for t in times], pa.date64()),
            "time32": pa.array(random.integers(0, 86_400, rows).astype(np.int32), pa.time32("s")),
            "time64": pa.array(random.integers(0, 86_400_000, rows), pa.time64("us")),
            "duration": pa.array(random.integers(0, 10**9, rows), pa.duration("ms")),
            "decimal128": pa.array([decimal.Decimal(int(w)) / 100 for w in whole], pa.decimal128(12, 2)),
            "decimal256": pa.array([decimal.Decimal(int(w)) / 100 for w in whole], pa.decimal256(40, 2)),
            "constant": pa.array([7] * rows),
            "null": pa.nulls(rows),
            "all_null_float": pa.nulls(rows, pa.float64()),
            "all_null_string": pa.nulls(rows, pa.string()),
            "all_null_time": pa.nulls(rows, pa.timestamp("us")),
            "all_null_dictionary": pa.nulls(rows, pa.dictionary(pa.int32(), pa.string())),
            "all_nan": pa.array([np.nan] * rows),
        }
    )


def small_table(rows: int = 400, seed: int = 0) -> pa.Table:
    """Mixed and dependent: y follows x, the colour follows y's sign."""
    random = np.random.default_rng(seed)
    x = random.normal(size=rows)
    y = x + 0.1 * random.normal(size=rows)
    colour = np.where(y > 0, "red", "blue")
    return pa.table(
        {
            "x": pa.array(x, mask=random.random(rows) < 0.1),
            "y": np.round(y, 2),
            "n": random.integers(0, 5, rows),
            "colour": pa.array(colour),
        }
    )
