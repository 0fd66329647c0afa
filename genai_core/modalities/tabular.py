"""Tables: every column becomes one to four tokens; the order of the columns is kept."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from genai_core.codec import MIN_ROWS, digest_of
from genai_core.errors import InvalidData, InvalidInput, SchemaMismatch, nearest
from genai_core.hyperparameters import TabularSettings
from genai_core.spaces import Position, Records, Tokens
from genai_core.tables.columns import COLUMN_KINDS, Column, ColumnSummary, is_categorical, is_numeric
from genai_core.tables.combinations import Combinations
from genai_core.tables.conditions import Where
from genai_core.tables.constraint_fit import (
    ConstraintFit,
    check_constraints,
    formulae_of,
    kept_of,
    new_orders,
    of_plain,
    relations_of,
    require_unique,
    to_plain,
)
from genai_core.tables.constraints import Kept, keep
from genai_core.tables.declarations import Constraint, Made
from genai_core.tables.identifiers import MADE, WATCHED_ROWS, Found, Watch, check_made, make, settle
from genai_core.tables.relation_search import Sample
from genai_core.tables.relations import Middle, Related, Relation, numbers_of
from genai_core.tables.settling import settled


class TabularCodec:
    """Codec of flat tables: integers, floats, decimals, times, booleans, strings, bytes, dictionaries, nulls."""

    kind = "tabular"
    rows_together: ClassVar[int] = 65_536
    details: ClassVar[pa.Schema | None] = None

    def __init__(
        self,
        schema: pa.Schema,
        columns: list[Column],
        rows: int,
        made: Mapping[str, Made] | None = None,
        written: pa.Schema | None = None,
        notes: tuple[str, ...] = (),
        relations: tuple[Relation, ...] = (),
        declared: Sequence[Constraint] = (),
        combinations: Mapping[int, Combinations] | None = None,
    ) -> None:
        self.schema = schema
        self.columns = columns
        self.rows = rows  # of the training data
        self.made = dict(made or {})  # columns outside the model, see `genai_core.tables.identifiers`
        self.written = written or schema  # of drawn rows: with the columns that are made
        self.notes = notes
        self.relations = relations  # those to compute first come first
        self.declared = list(declared)  # by the job, and times in order
        self.combinations = dict(combinations or {})  # of declarations, by their number
        own = kept_of(self.declared, schema, columns, self.combinations)
        self.constraints: tuple[Kept, ...] = (*own, *formulae_of(relations, schema.names))

    @staticmethod
    def learnt_columns(schema: pa.Schema, settings: TabularSettings) -> pa.Schema:
        """See `readable_schema`; without the columns that are made."""
        return _split_schema(schema, settings)[0]

    @classmethod
    def fit(
        cls, batches: Iterable[pa.RecordBatch], schema: pa.Schema, settings: TabularSettings | None = None
    ) -> TabularCodec:
        """Fit on a stream of record batches. Raises InvalidData for nested columns and for fewer than 10 rows."""
        settings = settings or TabularSettings()
        kept, written = _split_schema(schema, settings)
        watch = Watch(kept if settings.identifiers != "learn" else pa.schema([]))
        summaries = {field.name: ColumnSummary(field.type) for field in kept}
        formulae = relations_of(settings.constraints, kept)
        search = settings.relations == "find"
        sample = Sample(kept if search or formulae else pa.schema([]))
        constraints = ConstraintFit(settings.constraints, kept)
        rows, found, judged = 0, list[Found](), False
        for batch in batches:
            rows += batch.num_rows
            watch.update(batch)
            if not judged and watch.rows >= WATCHED_ROWS:  # a summary of an endless category is slow
                found, judged = watch.found(), True
                for one in found:
                    del summaries[one.name]
            for name, summary in summaries.items():
                _update(summary, batch.column(name), name)
            sample.update(batch)
            constraints.update(batch)
        if rows < MIN_ROWS:
            raise InvalidData(
                f"found {rows} row(s) to learn from; at least {MIN_ROWS} are needed. "
                "Check the path and the filter of the source."
            )
        found = found if judged else watch.found()
        masked, notes = settle(found, settings.identifiers)
        learnt = readable_schema(kept, masked)
        keep = (settings.max_categories, settings.rare_below, settings.clip_extremes)
        columns = [summaries[name].column(*keep) for name in learnt.names]
        made = {**settings.made, **masked}
        check_constraints(settings.constraints, learnt, made)
        require_unique(settings.constraints, made)
        relations = sample.found(learnt, relations_of(settings.constraints, learnt), search)
        notes += [f"kept: {one.text(learnt.names)} (in {one.share:.0%} of the rows)" for one in relations]
        orders = new_orders(settings.constraints, sample.orders(learnt)) if search else []
        notes += [f"kept: {' <= '.join(one.columns)} (in all rows)" for one in orders] + constraints.notes()
        combinations = constraints.combinations(learnt, columns, settings.rare_below)
        declared = [*settings.constraints, *orders]
        return cls(learnt, columns, rows, made, written, tuple(notes), relations, declared, combinations)

    @cached_property
    def space(self) -> Tokens:
        """The space of the encoded records."""
        positions: list = []
        of: dict[int, list[Relation]] = {}
        for one in self.relations:
            of.setdefault(one.target, []).append(one)
        for number, column in enumerate(self.columns):
            positions += column.positions(number, len(positions))
            if number in of:
                tokens = 1 + len(of[number])
                positions.append(Position(tokens, number, np.ones(tokens, bool)))
        return Tokens(tuple(positions), tuple(self.schema.names), self._related(of, positions))

    def _related(self, of: Mapping[int, list[Relation]], positions: list[Position]) -> tuple[Related, ...]:
        at = {i: [k for k, p in enumerate(positions) if p.field == i] for i in range(len(self.columns))}
        own = {i: places[:-1] if i in of else places for i, places in at.items()}
        return tuple(
            Related(
                field=number,
                position=at[number][-1],
                own=tuple(own[number]),
                operands=tuple(sorted({i for one in relations for i in one.operands})),
                relations=tuple(relations),
                decimals=relations[0].decimals,
                columns=self.columns,
                positions=own,
            )
            for number, relations in of.items()
        )

    @staticmethod
    def schema_faults(learnt: pa.Schema, schema: pa.Schema) -> list[str]:
        """See the function of this name."""
        return schema_faults(learnt, schema)

    def given(self, where: Mapping[str, Any], prompt: str | None = None) -> Where:
        """Conditions on columns. Raises InvalidInput."""
        if prompt is not None:
            raise InvalidInput("a table has no beginning to be prompted with; use where: {column: value}")
        return Where(self, where)

    def check_schema(self, schema: pa.Schema) -> None:
        """Raise SchemaMismatch unless the model's columns are there with types that fit; extra ones are ignored."""
        faults = schema_faults(self.schema, schema)
        if faults:
            raise SchemaMismatch("the table does not fit the model: " + "; ".join(faults))

    def encode(self, table: pa.Table) -> Records:
        """Tokens int16 (rows, positions) and log measures float32 (rows, columns)."""
        self.check_schema(table.schema)
        tokens: list[np.ndarray] = []
        measures = []
        related = {one.field: one for one in self.related}
        for i, column in enumerate(self.columns):
            parts, measure = column.encode(_column(table, self.schema, i))
            tokens += parts
            measures.append(measure)
            if (number := len(measures) - 1) in related:
                one = related[number]
                numbers = {i: numbers_of(_column(table, self.schema, i)) for i in (number, *one.operands)}
                keeps = one.kept(numbers)
                tokens.append(keeps)
                # what follows from others has no density; beyond the axis the measure tells where a value lies
                on_axis = self.space.positions[one.own[0]].drawable[parts[0]]
                measures[-1] = np.where((keeps > 0) & on_axis, 0, measure)
        return Records(np.stack(tokens, 1), np.stack(measures, 1))

    @property
    def related(self) -> tuple[Related, ...]:
        """The columns with relations, those to compute first first."""
        return self.space.implied  # type: ignore[return-value]

    def settle(
        self, table: pa.Table, tokens: np.ndarray, given: Mapping[int, np.ndarray] | None = None
    ) -> pa.Table:
        """The table with what its rows' tokens say of relations true in it, and every constraint kept.

        given  columns -> bool (rows,), cells that must stay
        """
        given = dict(given or {})
        names = self.schema.names

        def related(mended: pa.Table, fixed: Mapping[str, np.ndarray]) -> pa.Table:
            own = {names.index(name): rows for name, rows in fixed.items()}
            return settled(self.related, mended, tokens, own)

        fixed = {names[i]: rows for i, rows in given.items()}
        table = related(table, fixed)
        return keep(self.constraints, table, fixed, tokens, related) if self.constraints else table

    def decode(self, tokens: np.ndarray, random: np.random.Generator) -> pa.Table:
        """A table of exactly `schema`."""
        arrays, at = [], 0
        for number, column in enumerate(self.columns):
            width = len(self.space.positions_of(number))
            arrays.append(column.decode(tokens[:, at : at + width], random))
            at += width
        return self.settle(pa.Table.from_arrays(arrays, schema=self.schema), tokens)

    def complete(self, table: pa.Table, seed: int, first: int = 0) -> pa.Table:
        """Drawn rows of `schema` as rows of `written`; first: number of their first row in the whole output."""
        if not self.made:
            return table
        columns = {name: table.column(name) for name in self.schema.names}
        for name, how in self.made.items():
            random = np.random.default_rng([seed, zlib.crc32(name.encode())])
            columns[name] = make(how, self.written.field(name), table.num_rows, first, random, seed)
        return pa.Table.from_arrays([columns[name] for name in self.written.names], schema=self.written)

    def decode_columns(self, tokens: np.ndarray, fields: Iterable[int]) -> dict[str, pa.Array]:
        """Some columns alone; of the values that a token stands for, the middle one."""
        middle: Any = Middle()
        return {
            self.schema.names[i]: self.columns[i].decode(tokens[:, self.space.positions_of(i)], middle)
            for i in fields
        }

    def explain(self, table: pa.Table, entries: np.ndarray | None) -> dict[str, list[Any]]:
        """Rows of a table are explained by the shares of their columns."""
        raise NotImplementedError

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """A JSON-able dictionary and named arrays."""
        states = [column.state() for column in self.columns]
        arrays = {f"{i}.{name}": value for i, (_, own) in enumerate(states) for name, value in own.items()}
        found = {"schema": _text(self.schema), "rows": self.rows, "columns": [own for own, _ in states]}
        if self.relations:
            found["relations"] = [one.state() for one in self.relations]
        if self.declared:
            found["constraints"] = to_plain(self.declared)
        if self.combinations:
            found["combinations"] = {str(i): one.state()[0] for i, one in self.combinations.items()}
        for i, one in self.combinations.items():
            arrays |= {f"combination{i}.{name}": value for name, value in one.state()[1].items()}
        if self.made:
            made = {name: how.model_dump(mode="json") for name, how in self.made.items()}
            found |= {"made": made, "written": _text(self.written)}
        return found, arrays

    @classmethod
    def from_state(cls, settings: dict[str, Any], arrays: dict[str, np.ndarray]) -> TabularCodec:
        """The inverse of `state`."""
        schema = _schema(settings["schema"])
        columns = []
        for i, (field, plain) in enumerate(zip(schema, settings["columns"], strict=True)):
            own = {name.split(".", 1)[1]: v for name, v in arrays.items() if name.startswith(f"{i}.")}
            columns.append(COLUMN_KINDS[plain["kind"]].from_state(field.type, plain, own))
        made = {name: MADE.validate_python(how) for name, how in settings.get("made", {}).items()}
        written = _schema(settings["written"]) if made else schema
        if made and set(written.names) != {*schema.names, *made}:
            raise ValueError("columns that are made and learnt are not those that are written")
        relations = tuple(Relation.from_state(one, columns) for one in settings.get("relations", ()))
        declared = of_plain(settings.get("constraints", ()))
        check_constraints(declared, schema, made)
        combinations = {
            int(i): Combinations.from_state(
                own, {name: arrays[f"combination{int(i)}.{name}"] for name in ("codes", "counts")}
            )
            for i, own in settings.get("combinations", {}).items()
        }
        return cls(schema, columns, settings["rows"], made, written, (), relations, declared, combinations)

    @property
    def fingerprint(self) -> str:
        """sha256 of everything fitted."""
        return digest_of(*self.state())


def _text(schema: pa.Schema) -> str:
    return base64.b64encode(schema.serialize().to_pybytes()).decode()


def _schema(text: str) -> pa.Schema:
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text)))


def _split_schema(schema: pa.Schema, settings: TabularSettings) -> tuple[pa.Schema, pa.Schema]:
    """The columns to learn, and those that drawn rows have. Raises InvalidData and InvalidInput."""
    both = [name for name in settings.made if name in settings.exclude]
    gone = [name for name in settings.made if name not in schema.names]
    if both:
        raise InvalidData(f"modality.made and modality.exclude both name {both[0]!r}; keep one")
    if gone:
        raise InvalidData(
            f"modality.made names {gone[0]!r}, which is no column{nearest(gone[0], schema.names)}"
        )
    check_made(settings.made, schema)
    learnt = readable_schema(schema, [*settings.exclude, *settings.made])
    check_constraints(settings.constraints, learnt, settings.made)
    return learnt, pa.schema([f for f in schema if f.name not in settings.exclude], schema.metadata)


def readable_schema(schema: pa.Schema, exclude: Iterable[str] = ()) -> pa.Schema:
    """The columns to learn. Raises InvalidData: unknown excluded names, columns no codec reads, nothing left."""
    exclude = list(exclude)
    for name in exclude:
        if name not in schema.names:
            raise InvalidData(
                f"modality.exclude names {name!r}, which is no column{nearest(name, schema.names)}"
            )
    repeated = sorted({n for n in schema.names if schema.names.count(n) > 1})
    if repeated:
        raise InvalidData(f"column name(s) {repeated} occur more than once; rename them in the source")
    kept = [field for field in schema if field.name not in exclude]
    nested = [f"{f.name!r} ({f.type})" for f in kept if not (is_numeric(f.type) or is_categorical(f.type))]
    if nested:
        raise InvalidData(
            f"column(s) {', '.join(nested)} are of a type that tables are not learnt from; "
            "flatten them in the source or list them under modality.exclude"
        )
    if not kept:
        raise InvalidData("no column is left to learn from; shorten modality.exclude")
    return pa.schema(kept, metadata=schema.metadata)


def schema_faults(learnt: pa.Schema, schema: pa.Schema) -> list[str]:
    """Why tables of `schema` do not fit a model that learnt `learnt`; empty when they do. Extra columns are ignored."""
    faults = []
    for expected in learnt:
        if expected.name not in schema.names:
            hint = nearest(expected.name, [n for n in schema.names if n not in learnt.names])
            faults.append(f"column {expected.name!r} ({expected.type}) is missing{hint}")
        elif not compatible(found := schema.field(expected.name).type, expected.type):
            faults.append(f"column {expected.name!r} is {found}, the model learnt {expected.type}")
    return faults


def compatible(found: pa.DataType, expected: pa.DataType) -> bool:
    """Whether values of type `found` can stand in a column that was learnt as `expected`."""
    if found == expected or pt.is_null(found):
        return True
    plain = found.value_type if pt.is_dictionary(found) else found
    wanted = expected.value_type if pt.is_dictionary(expected) else expected
    if plain == wanted:
        return True
    families = (
        lambda t: pt.is_integer(t),
        lambda t: pt.is_floating(t),
        lambda t: pt.is_decimal(t),
        lambda t: pt.is_string(t) or pt.is_large_string(t) or pt.is_string_view(t),
        lambda t: pt.is_binary(t) or pt.is_large_binary(t),
        lambda t: pt.is_date(t),
        lambda t: pt.is_timestamp(t),
    )
    same = any(family(plain) and family(wanted) for family in families)
    if pt.is_timestamp(plain) and pt.is_timestamp(wanted):
        return (plain.tz is None) == (wanted.tz is None)
    return same or (pt.is_integer(plain) and pt.is_floating(wanted))


def _column(table: pa.Table, schema: pa.Schema, i: int) -> pa.Array:
    return _one_array(table.column(schema.names[i]), schema.field(i).type)


def _one_array(column: pa.ChunkedArray, type_: pa.DataType) -> pa.Array:
    plain = type_.value_type if pt.is_dictionary(type_) else type_
    if pt.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if column.type != plain:
        column = column.cast(plain)
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)


def _update(summary: ColumnSummary, column: pa.Array | pa.ChunkedArray, name: str) -> None:
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    try:
        for chunk in chunks:
            summary.update(chunk)
    except InvalidData as error:
        raise InvalidData(f"column {name!r}: {error}") from None


CODEC = TabularCodec
