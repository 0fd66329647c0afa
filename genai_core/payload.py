"""What the codecs of pictures, texts and sounds share: a column that holds the record, perhaps one with its label."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genai_core.codec import digest_of
from genai_core.errors import InvalidData, InvalidInput, MissingCapability, SchemaMismatch, nearest
from genai_core.tables.columns import is_categorical, is_numeric

if TYPE_CHECKING:  # checking a job file must not import torch
    from genai_core.model import Condition

MAX_LABELS = 1000


def find_columns(
    schema: pa.Schema, settings: Any, holds: Callable[[pa.DataType], bool], what: str
) -> pa.Schema:
    """The payload's column, then the label's. Raises InvalidData: none or several could be meant, or not there.

    holds: whether a column of a type can hold a record; what: its name in messages, such as "pictures".
    """
    able = [f.name for f in schema if holds(f.type) and f.name != settings.label]
    name = settings.column
    if name is None:
        if len(able) != 1:
            found = f"columns {', '.join(able)} can" if able else "no column can"
            raise InvalidData(f"{found} hold {what}; name the one with modality.column")
        name = able[0]
    for key, column in (("column", name), ("label", settings.label)):
        if column is not None and column not in schema.names:
            raise InvalidData(
                f"modality.{key} names {column!r}, which is no column{nearest(column, schema.names)}"
            )
    if not holds(schema.field(name).type):
        raise InvalidData(f"column {name!r} is {schema.field(name).type}, which holds no {what}")
    kept = [schema.field(name)] + ([] if settings.label is None else [schema.field(settings.label)])
    if settings.label is not None and not _can_be_label(kept[1].type):
        raise InvalidData(
            f"modality.label {settings.label!r} is {kept[1].type}; labels are text, whole numbers or booleans"
        )
    return pa.schema(kept)


def _can_be_label(kind: pa.DataType) -> bool:
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    return is_categorical(plain) or (is_numeric(plain) and pa.types.is_integer(plain))


class Classes:
    """The values of a label column, in the order of their codes 0, 1, ..."""

    def __init__(self, field: pa.Field, values: pa.Array) -> None:
        self.field, self.values = field, values

    @classmethod
    def fit(cls, field: pa.Field, columns: Iterable[pa.Array | pa.ChunkedArray]) -> Classes:
        """Collect the values of all columns, sorted. Raises InvalidData for more than MAX_LABELS of them."""
        seen = pa.nulls(0, _plain_type(field.type))
        for column in columns:
            seen = pc.unique(pa.concat_arrays([seen, pc.drop_null(whole_array(column))]))
            if len(seen) > MAX_LABELS:
                raise InvalidData(f"label {field.name!r} has more than {MAX_LABELS} values; it is no class")
        if not len(seen):
            raise InvalidData(f"label {field.name!r} is missing in every row")
        order = pc.array_sort_indices(seen.cast(pa.uint8()) if pa.types.is_boolean(seen.type) else seen)
        return cls(field, seen.take(order))

    def __len__(self) -> int:
        return len(self.values)

    def codes(self, column: pa.Array | pa.ChunkedArray) -> np.ndarray:
        """int64 (rows,); -1 for missing and unknown values."""
        found = pc.index_in(whole_array(column).cast(self.values.type), value_set=self.values)
        return pc.fill_null(found, -1).to_numpy(zero_copy_only=False).astype(np.int64)

    def decode(self, codes: np.ndarray) -> pa.Array:
        """An array of the column's type."""
        array = self.values.take(pa.array(codes))
        return (
            array.dictionary_encode().cast(self.field.type)
            if pa.types.is_dictionary(self.field.type)
            else array
        )

    def code_of(self, value: Any) -> int:
        """Of one value as a job file gives it. Raises InvalidInput for a value that is no class."""
        known = self.values.to_pylist()
        if value in known and not (isinstance(value, bool) and not pa.types.is_boolean(self.values.type)):
            return known.index(value)
        if str(value) in (texts := [str(v) for v in known]):
            return texts.index(str(value))
        raise InvalidInput(
            f"{self.field.name}: {value!r} is no class of the model{nearest(str(value), texts)}; "
            f"it knows: {', '.join(texts[:20])}{', ...' if len(texts) > 20 else ''}"
        )


def look_through(
    batches: Iterable[pa.RecordBatch], learnt: pa.Schema, look: Callable[[pa.RecordBatch], None]
) -> Classes | None:
    """Show every batch to `look`, in order; the classes of the label, where one is learnt.

    learnt: the payload's column and perhaps the label's. Raises InvalidData as `Classes.fit` does.
    """

    def seen() -> Iterator[pa.RecordBatch]:
        for batch in batches:
            look(batch)
            yield batch

    if len(learnt) > 1:
        return Classes.fit(learnt.field(1), (batch.column(learnt.names[1]) for batch in seen()))
    for _ in seen():
        pass
    return None


def _plain_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def whole_array(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """A column as one array, of plain values where they were in a dictionary."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.nulls(0, array.type)
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


class GivenLabel:
    """Conditions on a label, and perhaps a prompt: tokens that every sequence starts with."""

    def __init__(self, classes: int, allowed: list[int] | None, prefix: np.ndarray | None = None) -> None:
        self.classes, self.allowed, self.prefix = classes, allowed, prefix

    @property
    def conditions(self) -> list[Condition]:
        """What the model must keep to while drawing."""
        import torch

        from genai_core.model import Condition

        found = []
        if self.allowed is not None:
            mask = torch.zeros(self.classes, dtype=torch.bool)
            mask[self.allowed] = True
            found.append(Condition(0, [mask]))
        if self.prefix is not None:
            found.append(
                Condition(int(self.classes > 0), prefix=torch.from_numpy(self.prefix.astype(np.int64)))
            )
        return found

    def write(self, table: pa.Table, tokens: np.ndarray, random: np.random.Generator) -> pa.Table:
        """A label is drawn as it was asked for: nothing to put in its place."""
        return table


class PayloadCodec:
    """Common part of a codec with one payload column; a subclass reads and writes the payload itself."""

    kind: ClassVar[str]
    schema: pa.Schema
    classes: Classes | None

    @classmethod
    def holds(cls, kind: pa.DataType) -> bool:
        """Whether a column of a type can hold a record."""
        raise NotImplementedError

    rows_together: ClassVar[int] = 512  # a photograph may have 10 MB
    what: ClassVar[str]  # of a record, in messages: "pictures"

    @classmethod
    def learnt_columns(cls, schema: pa.Schema, settings: Any) -> pa.Schema:
        """See `find_columns`."""
        return find_columns(schema, settings, cls.holds, cls.what)

    @classmethod
    def schema_faults(cls, learnt: pa.Schema, schema: pa.Schema) -> list[str]:
        """Why tables of `schema` do not fit a model that learnt `learnt`; empty when they do."""
        faults = []
        for number, expected in enumerate(learnt):
            if expected.name not in schema.names:
                faults.append(
                    f"column {expected.name!r} ({expected.type}) is missing{nearest(expected.name, schema.names)}"
                )
            elif not (_can_be_label if number else cls.holds)(schema.field(expected.name).type):
                faults.append(
                    f"column {expected.name!r} is {schema.field(expected.name).type}, the model learnt {expected.type}"
                )
        return faults

    @property
    def notes(self) -> tuple[str, ...]:
        """What whoever trains the model should know of the data."""
        return ()

    @property
    def label(self) -> dict[str, Any]:
        """What a space has to know of the label; nothing where there is none."""
        if self.classes is None:
            return {}
        names = tuple(map(str, self.classes.values.to_pylist()))
        return {"classes": len(names), "label_name": self.classes.field.name, "class_names": names}

    def check_schema(self, schema: pa.Schema) -> None:
        """Raise SchemaMismatch, naming every fault, unless tables of `schema` can be encoded."""
        if faults := self.schema_faults(self.schema, schema):
            raise SchemaMismatch("the table does not fit the model: " + "; ".join(faults))

    def given(self, where: Mapping[str, Any], prompt: str | None = None) -> GivenLabel:
        """Conditions on the label, and a prompt where a record is a sequence. Raises InvalidInput."""
        label = None if self.classes is None else self.classes.field.name
        for name in where:
            if name != label:
                able = f"only the label {label!r} can be asked for" if label else "this model has no label"
                raise InvalidInput(f"where names {name!r}; {able}")
        allowed = None
        if where and self.classes is not None:
            value = where[self.classes.field.name]
            values = list(value) if isinstance(value, list | tuple) else [value]
            if not values:
                raise InvalidInput(f"where.{label} is an empty list; give at least one value")
            allowed = [self.classes.code_of(v) for v in values]
        prefix = None if prompt is None else self.prefix_of(prompt)
        return GivenLabel(0 if self.classes is None else len(self.classes), allowed, prefix)

    def prefix_of(self, prompt: str) -> np.ndarray:
        """Tokens (n,) of a prompt. Raises MissingCapability where a record is no text."""
        raise MissingCapability(f"a prompt starts a text; this model writes {self.what}")

    def label_codes(self, table: pa.Table, faults: dict[int, str]) -> np.ndarray | None:
        """Codes (rows, 1) of the labels, None without a label; adds a fault for what is missing or unknown."""
        if self.classes is None:
            return None
        codes = self.classes.codes(table.column(self.classes.field.name))
        for row in np.flatnonzero(codes < 0).tolist():
            faults.setdefault(row, "label missing or unknown to the model")
        return np.maximum(codes, 0)[:, None]

    def schema_state(self) -> dict[str, Any]:
        """What every subclass keeps, as JSON: the schema and the classes."""
        classes = None if self.classes is None else _ipc(pa.record_batch([self.classes.values], ["values"]))
        return {"schema": base64.b64encode(self.schema.serialize().to_pybytes()).decode(), "classes": classes}

    @staticmethod
    def schema_from_state(state: dict[str, Any]) -> tuple[pa.Schema, Classes | None]:
        """The inverse of `schema_state`."""
        schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(state["schema"])))
        if state["classes"] is None:
            return schema, None
        with pa.ipc.open_stream(base64.b64decode(state["classes"])) as reader:
            return schema, Classes(schema.field(1), reader.read_all().column(0).combine_chunks())

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Everything fitted: a JSON-able dictionary and named arrays."""
        raise NotImplementedError

    @property
    def fingerprint(self) -> str:
        """sha256 of everything fitted."""
        return digest_of(*self.state())


def _ipc(batch: pa.RecordBatch) -> str:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return base64.b64encode(sink.getvalue().to_pybytes()).decode()
