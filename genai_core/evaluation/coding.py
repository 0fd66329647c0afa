"""Two samples of one column as integer codes, whatever its Arrow type, so that every measure reads the same thing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genai_core.errors import InvalidData, SchemaMismatch

MISSING = 0


@dataclass(frozen=True)
class CodedColumn:
    """A column of two tables in one code.

    first, second  int64 codes, one per row; MISSING (0) is null
    size           number of codes, MISSING included
    ordered        True: codes rise with the value, NaN above everything. False: code 1 is the commonest value of
                   both samples together; ties go by value, so that a code says nothing about the sample it is from.
    """

    name: str
    first: np.ndarray
    second: np.ndarray
    size: int
    ordered: bool


def code_tables(first: pa.Table, second: pa.Table) -> list[CodedColumn]:
    """Code every column of `first` together with its namesake in `second`.

    Raises SchemaMismatch where the columns differ, InvalidData on nested columns.
    """
    _check_columns(first, second)
    return [code_column(name, first[name], second[name]) for name in first.column_names]


def code_column(name: str, first: pa.ChunkedArray, second: pa.ChunkedArray) -> CodedColumn:
    """Code one column of two tables; the second is read as the type of the first."""
    left = _plain(name, first)
    right = _as_type(name, _plain(name, second), left.type)
    encoded = pa.concat_arrays([left, right]).dictionary_encode()
    values = encoded.dictionary.drop_null()
    ordered = _is_ordered(values.type)
    indices = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    order = _by_value(values)
    if not ordered:
        counts = np.bincount(indices[indices >= 0], minlength=len(values))
        order = order[np.argsort(-counts[order], kind="stable")]
    rank = np.zeros(len(values) + 1, np.int64)  # the last entry, index -1, is MISSING
    rank[order] = np.arange(1, len(values) + 1)
    codes = rank[indices]
    return CodedColumn(name, codes[: len(left)], codes[len(left) :], len(values) + 1, ordered)


def _check_columns(first: pa.Table, second: pa.Table) -> None:
    missing = [name for name in first.column_names if name not in second.column_names]
    extra = [name for name in second.column_names if name not in first.column_names]
    if missing or extra:
        found = "; ".join(
            f"{what} {names}" for what, names in (("missing", missing), ("extra", extra)) if names
        )
        raise SchemaMismatch(
            f"the tables to compare differ in their columns: {found}; give both the same columns"
        )


def _plain(name: str, column: pa.ChunkedArray) -> pa.Array:
    """One array without dictionary, extension and view types; -0.0 becomes 0.0."""
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], column.type)
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_nested(array.type):
        raise InvalidData(
            f"column {name!r} is nested ({array.type}); flatten it or leave it out before comparing"
        )
    if pa.types.is_floating(array.type):
        return pc.add(array.cast(pa.float64()), 0.0)
    if pa.types.is_string_view(array.type) or pa.types.is_string(array.type):
        return array.cast(pa.large_string())
    if pa.types.is_binary_view(array.type) or pa.types.is_binary(array.type):
        return array.cast(pa.large_binary())
    return array


def _as_type(name: str, array: pa.Array, wanted: pa.DataType) -> pa.Array:
    try:
        return array.cast(wanted)
    except pa.ArrowInvalid as error:
        raise SchemaMismatch(
            f"column {name!r} is {array.type} in one table and {wanted} in the other: {error}"
        ) from None
    except pa.ArrowNotImplementedError:
        raise SchemaMismatch(
            f"column {name!r} is {array.type} in one table and {wanted} in the other"
        ) from None


def _is_ordered(kind: pa.DataType) -> bool:
    return (
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_temporal(kind)
    ) and not pa.types.is_interval(kind)


def _by_value(values: pa.Array) -> np.ndarray:
    """Indices that sort the distinct values; NaN comes last."""
    if pa.types.is_boolean(values.type):
        values = values.cast(pa.uint8())
    if pa.types.is_fixed_size_binary(values.type):
        values = values.cast(pa.binary())
    return pc.array_sort_indices(values).to_numpy().astype(np.int64)
