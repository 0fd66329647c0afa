"""What can be said of rows with given cells before anything is drawn: which columns are drawn, and what comes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.types as pt

from genai_core.errors import InvalidInput, nearest
from genai_core.tables.rules import Between

if TYPE_CHECKING:  # checking a job file must not import torch
    from genai_core.modalities.tabular import TabularCodec

DRAW, IMPUTED = "_draw", "_imputed"
COUNT = pa.field(DRAW, pa.int32())
MARK = pa.field(IMPUTED, pa.list_(pa.string()))


class Present(Between):
    """A column whose missing cells are drawn: never null."""

    keyword = "impute"
    fixes = False

    def __init__(self, codec: TabularCodec, name: str) -> None:
        super().__init__(codec, name, {"missing": False})

    @property
    def condition(self) -> Any:
        found = super().condition
        found.first = False  # what a row has already comes first
        return found


def given_schema(given: pa.Schema, written: pa.Schema) -> pa.Schema:
    """Of `sample_given`: columns that are only carried over, then the model's."""
    return pa.schema([*(f for f in given if f.name not in written.names), *written], written.metadata)


def check_given(
    codec: TabularCodec, given: pa.Schema, where: Mapping[str, Any], balance: Mapping[str, Any]
) -> None:
    """Raise InvalidInput: the table gives no column of the model, all of them, or one that is asked for as well."""
    known = [name for name in codec.schema.names if name in given.names]
    if not known:
        raise InvalidInput(
            f"given: the table has none of the model's columns ({', '.join(codec.schema.names)}); found "
            f"{', '.join(given.names)}{nearest(given.names[0], codec.schema.names) if given.names else ''}"
        )
    if len(known) == len(codec.schema.names):
        raise InvalidInput(
            "given: the table has every column of the model, so nothing is left to draw; select some of them with "
            "given.columns, or fill missing cells with a job `impute`"
        )
    for keyword, asked in (("where", where), ("balance", balance)):
        both = [name for name in asked if name in known]
        if both:
            raise InvalidInput(
                f"given and {keyword}.{both[0]} both say what {both[0]!r} shall be; keep one of them"
            )
    nulls_for_the_rest(codec, given.empty_table(), known)


def imputed_schema(schema: pa.Schema, learnt: pa.Schema, draws: int = 1, mark: bool = False) -> pa.Schema:
    """Of what `impute` returns. Raises InvalidInput when the source has such a column already."""
    more = [COUNT] if draws > 1 else []
    more += [MARK] if mark else []
    taken = [field.name for field in more if field.name in schema.names]
    if taken:
        raise InvalidInput(f"the source has a column {taken[0]!r} already; leave it out with source.columns")
    # a column of nulls may have no type yet
    own = [
        f.with_type(learnt.field(f.name).type) if pt.is_null(f.type) and f.name in learnt.names else f
        for f in schema
    ]
    return pa.schema([*own, *more], schema.metadata)


def columns_to_impute(codec: TabularCodec, schema: pa.Schema, columns: Sequence[str] | None) -> list[str]:
    """Names; InvalidInput for one that the model does not know, and when the table has none of them."""
    for name in columns or ():
        if name not in codec.schema.names:
            raise InvalidInput(
                f"columns names {name!r}, which is no column of the model{nearest(name, codec.schema.names)}"
            )
    return [name for name in columns or codec.schema.names if name in schema.names]


def nulls_for_the_rest(codec: TabularCodec, table: pa.Table, known: Sequence[str]) -> pa.Table:
    """A table of the model's columns: those that are known, and nulls. Raises SchemaMismatch."""
    fields = [table.schema.field(f.name) if f.name in known else f.with_nullable(True) for f in codec.schema]
    columns = [table[f.name] if f.name in known else pa.nulls(table.num_rows, f.type) for f in fields]
    found = pa.table(columns, schema=pa.schema(fields))
    codec.check_schema(found.schema)
    return found
