"""coding.py: any Arrow type becomes codes, and a code says nothing about the sample that it came from."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

from genai_core.errors import InvalidData, SchemaMismatch
from genai_core.evaluation.coding import MISSING, code_column, code_tables

NOW = dt.datetime(2024, 2, 29, 12)
COLUMNS = {
    "int8": pa.array([3, -1, None], pa.int8()),
    "uint64": pa.array([2**64 - 1, 0, None], pa.uint64()),
    "half": pa.array(np.array([1.5, -2, np.nan], np.float16)),
    "float": pa.array([float("nan"), -0.0, float("-inf")]),
    "bool": pa.array([True, False, None]),
    "string": pa.array(["", "ü✈", None]),
    "string_view": pa.array(["a", "b", None], pa.string_view()),
    "large": pa.array(["a", "b", None], pa.large_string()),
    "binary": pa.array([b"\x00", b"", None]),
    "fixed": pa.array([b"ab", b"aa", None], pa.binary(2)),
    "dictionary": pa.array(["x", "y", None]).dictionary_encode(),
    "dictionary_of_numbers": pa.array([7, 5, None]).dictionary_encode(),
    "decimal": pa.array([Decimal("1.10"), Decimal("-2.00"), None]),
    "decimal256": pa.array([Decimal("1.10"), Decimal("-2.00"), None], pa.decimal256(50, 2)),
    "zoned": pa.array([NOW, NOW - dt.timedelta(1), None], pa.timestamp("us", "Europe/Berlin")),
    "naive": pa.array([NOW, NOW - dt.timedelta(1), None], pa.timestamp("ns")),
    "date": pa.array([NOW.date(), None, None], pa.date32()),
    "time": pa.array([NOW.time(), None, None], pa.time64("us")),
    "duration": pa.array([dt.timedelta(1), None, dt.timedelta(-1)]),
    "null": pa.nulls(3),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_every_type_is_coded(name: str) -> None:
    column = pa.chunked_array([COLUMNS[name]])
    coded = code_column(name, column, column.slice(1))
    assert coded.first[1:].tolist() == coded.second.tolist()
    assert ((coded.first == MISSING) == column.is_null().to_numpy()).all()
    assert coded.first.max() < coded.size
    distinct = len({repr(value) for value in column.to_pylist() if value is not None})
    assert coded.size == distinct + 1


def test_ordered_codes_rise_with_the_value_and_nan_is_above_everything() -> None:
    column = pa.chunked_array([[2.5, float("nan"), None, -1.0, float("inf"), -0.0, 0.0]])
    assert code_column("x", column, column).first.tolist() == [3, 5, 0, 1, 4, 2, 2]


def test_unordered_codes_go_by_frequency_then_value_not_by_sample() -> None:
    first, second = pa.chunked_array([["z", "m", "m"]]), pa.chunked_array([["a", "m", "q"]])
    coded = code_column("x", first, second)
    assert dict(zip("zamq", [coded.first[0], coded.second[0], coded.first[1], coded.second[2]], strict=True)) == {
        "m": 1, "a": 2, "q": 3, "z": 4,
    }  # fmt: skip


def test_chunks_and_dictionaries_do_not_matter() -> None:
    plain = pa.chunked_array([["a", "b", None, "a"]])
    pieces = pa.chunked_array(
        [pa.array(["a", "b"]).dictionary_encode(), pa.array([None, "a"]).dictionary_encode()]
    )
    assert code_column("x", plain, pieces).second.tolist() == code_column("x", plain, plain).second.tolist()


def test_the_second_table_is_read_as_the_type_of_the_first() -> None:
    coded = code_column(
        "x", pa.chunked_array([pa.array([1, 2], pa.int64())]), pa.chunked_array([pa.array([2], pa.int16())])
    )
    assert coded.second.tolist() == [2]


def test_types_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(SchemaMismatch, match="'x' is"):
        code_column("x", pa.chunked_array([[1, 2]]), pa.chunked_array([["one", "two"]]))


def test_columns_that_differ_are_all_named() -> None:
    with pytest.raises(SchemaMismatch, match=r"missing \['b'\].*extra \['c'\]"):
        code_tables(pa.table({"a": [1], "b": [1]}), pa.table({"a": [1], "c": [1]}))


def test_nested_columns_are_refused() -> None:
    table = pa.table({"a": [[1, 2]]})
    with pytest.raises(InvalidData, match="nested"):
        code_tables(table, table)
