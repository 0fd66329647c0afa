"""Rows of which some cells are given: the rest is drawn given them, by a model of exact conditionals in any order.

    sample_given  the columns that a table does not have, for every row of it
    impute        the missing cells of a table; several draws tell how sure they are (Rubin 1987)

What a row has already is never touched. A value that the model has never seen tells it nothing, so the rest is drawn
as if it were not there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt
import torch

from genai_core.errors import InvalidInput, MissingCapability
from genai_core.modalities.tabular import TabularCodec
from genai_core.networks.any_order import DRAWN, UNKNOWN
from genai_core.splits import seed_of
from genai_core.tables.columns import take
from genai_core.tables.conditions import Where
from genai_core.tables.given import (
    COUNT,
    MARK,
    Present,
    check_given,
    columns_to_impute,
    given_schema,
    imputed_schema,
    nulls_for_the_rest,
)
from genai_core.watermark import KeyedGenerator, Watermark

if TYPE_CHECKING:
    from genai_core.fitted import FittedModel


def codec_of(fitted: FittedModel, verb: str) -> TabularCodec:
    """The codec of a model of tables that draws given any columns. Raises MissingCapability."""
    codec: Any = fitted.codec
    if fitted.kind != "autoregressive" or not isinstance(codec, TabularCodec):
        raise MissingCapability(
            f"this {fitted.kind} model of {fitted.modality} records cannot {verb}; autoregressive models of tables can"
        )
    return codec


def sample_given(
    fitted: FittedModel,
    table: pa.Table,
    *,
    seed: int = 0,
    per_row: int = 1,
    first: int = 0,
    where: Mapping[str, Any] | None = None,
    balance: Mapping[str, Mapping[Any, float]] | None = None,
    temperature: float | list[float] = 1.0,
    top_p: float | list[float] = 1.0,
) -> pa.Table:
    """For every row of a table, in their order, `per_row` rows that have its values; the other columns are drawn.

    Columns of the table that the model does not know come first and are carried over. Null is a value like others.
    """
    codec = codec_of(fitted, "draw rows given some of their columns")
    check_given(codec, table.schema, where or {}, balance or {})
    rules = Where(codec, where or {}, balance)
    repeated = _repeated(table, np.repeat(np.arange(table.num_rows), per_row))
    known = [name for name in codec.schema.names if name in table.schema.names]
    tokens = _given(codec, repeated, known)
    options = {"temperature": temperature, "top_p": top_p}
    _doubt(codec, tokens)
    drawn, found = _drawn(fitted, tokens, seed, rules, options)
    everywhere = np.ones(len(tokens), bool)
    drawn = _settled(codec, drawn, found, repeated, dict.fromkeys(known, everywhere))
    made = codec.complete(drawn, seed, first)
    columns = {name: repeated[name] for name in table.column_names if name not in made.column_names}
    for field in made.schema:
        own = field.name in table.column_names
        columns[field.name] = _cast(repeated[field.name], field) if own else made[field.name]
    return pa.Table.from_arrays(list(columns.values()), schema=given_schema(table.schema, made.schema))


def impute(
    fitted: FittedModel,
    table: pa.Table,
    *,
    seed: int = 0,
    draws: int = 1,
    columns: Sequence[str] | None = None,
    mark: bool = False,
    watermark: Watermark | None = None,
) -> pa.Table:
    """The rows of a table with their missing cells drawn from p(missing | present).

    columns  whose nulls are filled; default: all that the model knows
    draws    how often each row is completed; with several a column `_draw` counts them
    mark     add a column `_imputed`: the names of the columns that were filled in a row
    watermark  the key by which what was filled can be told, see genai_core.watermark
    """
    codec = codec_of(fitted, "fill missing cells")
    wanted = columns_to_impute(codec, table.schema, columns)
    if draws < 1:
        raise InvalidInput(f"found draws = {draws}; accepted is 1 or more")
    codec.check_schema(table.schema)
    empty = {name: table[name].is_null().to_numpy(zero_copy_only=False) for name in wanted}
    rows = np.repeat(np.arange(table.num_rows), draws)
    repeated = _repeated(table, rows)
    tokens = _given(codec, repeated, codec.schema.names)
    rules = Where(codec, {})
    for name in wanted:
        if empty[name].any():
            rules.rules.append(Present(codec, name))
            tokens[np.ix_(empty[name][rows], codec.space.positions_of(codec.schema.names.index(name)))] = (
                DRAWN
            )
    _doubt(codec, tokens)
    made, found = _drawn(fitted, tokens, seed, rules, {}, watermark)
    given = {
        name: ~empty[name][rows] if name in empty else np.ones(len(rows), bool) for name in codec.schema.names
    }
    made = _settled(codec, made, found, repeated, given)
    out = [
        _filled(column, made[name], empty[name][rows]) if name in wanted and empty[name].any() else column
        for name, column in zip(table.column_names, repeated.columns, strict=True)
    ]
    full = pa.Table.from_arrays(out, schema=imputed_schema(table.schema, codec.schema))
    if draws > 1:
        full = full.append_column(COUNT, pa.array(np.arange(len(rows)) % draws, pa.int32()))
    return full.append_column(MARK, _marks(empty, rows)) if mark else full


def _marks(empty: Mapping[str, np.ndarray], rows: np.ndarray) -> pa.Array:
    names = np.array(list(empty))
    if not len(names):
        return pa.array([[]] * len(rows), MARK.type)
    marks = np.stack(list(empty.values()), 1)[rows]
    ends = np.concatenate([[0], marks.sum(1).cumsum()]).astype(np.int32)
    return pa.ListArray.from_arrays(ends, pa.array(names[np.nonzero(marks)[1]], pa.string()))


def _filled(column: pa.ChunkedArray, made: pa.ChunkedArray, empty: np.ndarray) -> pa.ChunkedArray:
    """The column with drawn values in its empty cells; dictionaries and views by their plain values."""
    type_ = made.type if pt.is_null(column.type) else column.type
    plain = type_.value_type if pt.is_dictionary(type_) else type_
    plain = {"string_view": pa.string(), "binary_view": pa.binary()}.get(str(plain), plain)
    try:
        new = _plain(made).cast(plain)
        found = pc.if_else(pa.array(empty), new, _plain(column).cast(plain))
    except pa.ArrowInvalid as error:
        raise InvalidInput(f"what the model draws does not fit {type_}: {error}") from None
    if pt.is_dictionary(type_):
        encoded = found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found
        return pa.chunked_array([encoded.dictionary_encode().cast(type_)])
    return found.cast(type_)


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(column.type.value_type) if pt.is_dictionary(column.type) else column


def _cast(column: pa.ChunkedArray, field: pa.Field) -> pa.ChunkedArray:
    if column.type == field.type:
        return column
    try:
        if pt.is_dictionary(field.type):
            return _plain(column).cast(field.type.value_type).dictionary_encode().cast(field.type)
        return _plain(column).cast(field.type)
    except pa.ArrowInvalid as error:
        raise InvalidInput(f"given: column {field.name!r} does not fit {field.type}: {error}") from None


def _repeated(table: pa.Table, rows: np.ndarray) -> pa.Table:
    columns = [take(column.combine_chunks(), pa.array(rows)) for column in table.columns]
    return pa.Table.from_arrays(columns, schema=table.schema)


def _settled(
    codec: TabularCodec, made: pa.Table, tokens: np.ndarray, real: pa.Table, given: Mapping[str, np.ndarray]
) -> pa.Table:
    """Drawn rows in which relations and constraints hold with the real values of the cells that were given."""
    names = codec.schema.names
    bound = {names.index(name) for one in codec.constraints for name in one.columns if name in names}
    for i in sorted({i for one in codec.related for i in (one.field, *one.operands)} | bound):
        if names[i] in given:
            field = codec.schema.field(i)
            own = _plain(_cast(real[names[i]], field))
            new = pc.if_else(pa.array(given[names[i]]), own, _plain(made[names[i]]))
            made = made.set_column(i, field, _cast(new, field))
    return codec.settle(made, tokens, {names.index(name): rows for name, rows in given.items()})


def _given(codec: TabularCodec, table: pa.Table, known: Sequence[str]) -> np.ndarray:
    """int64 tokens (rows, positions) of the known columns, DRAWN of the others, UNKNOWN of what was never seen."""
    tokens = codec.encode(nulls_for_the_rest(codec, table, known)).tokens.astype(np.int64)
    for field, name in enumerate(codec.schema.names):
        positions = codec.space.positions_of(field)
        if name not in known:
            tokens[:, positions] = DRAWN
        else:
            seen = codec.space.positions[positions[0]].drawable[tokens[:, positions[0]]]
            tokens[np.ix_(~seen, np.array(positions))] = UNKNOWN
    return tokens


def _doubt(codec: TabularCodec, tokens: np.ndarray) -> None:
    """Whether a relation holds is not known, but drawn, where one of its columns is not known."""
    for one in codec.related:
        there = tokens[:, [codec.space.values_of(i)[0] for i in (one.field, *one.operands)]] >= 0
        tokens[~there.all(1), one.position] = DRAWN


def _drawn(
    fitted: FittedModel,
    tokens: np.ndarray,
    seed: int,
    rules: Where,
    options: Mapping[str, Any],
    watermark: Watermark | None = None,
) -> tuple[pa.Table, np.ndarray]:
    """A row for each of the given ones, and its tokens; cells that were given are for the caller to put back."""
    parts, kept = [], [tokens[:0]]
    for number, (x, rows) in enumerate(_blocks(tokens, fitted.codec.space.batches.draw)):
        generator = KeyedGenerator.of(watermark, fitted.codec.space) if watermark else torch.Generator()
        generator.manual_seed(seed_of(seed, "draw", number))
        with torch.inference_mode():
            drawn = fitted.model.sample(len(x), generator, rules.conditions, given=x, **options)  # type: ignore[operator]
        random = np.random.default_rng(seed_of(seed, "place", number))
        found = drawn.numpy()
        parts.append(rules.write(fitted.codec.decode(found, random), found, random).slice(0, rows))
        kept.append(found[:rows])
    table = pa.concat_tables(parts).combine_chunks() if parts else fitted.schema.empty_table()
    return table, np.concatenate(kept)


def _blocks(tokens: np.ndarray, together: int) -> Iterator[tuple[torch.Tensor, int]]:
    """Blocks of one size, the last filled up with copies of its first row: results depend on no neighbours."""
    for start in range(0, len(tokens), together):
        own = tokens[start : start + together]
        filled = np.concatenate([own, np.repeat(own[:1], together - len(own), 0)])
        yield torch.from_numpy(filled), len(own)
