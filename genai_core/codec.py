"""What a codec is: Arrow records -> tensors of a space -> Arrow records."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

import numpy as np
import pyarrow as pa

from genai_core.spaces import Records, Space

MIN_ROWS = 10  # fewer say nothing about a distribution

if TYPE_CHECKING:  # checking a job file must not import torch
    from genai_core.model import Condition


class Given(Protocol):
    """Conditions on sampled records, in the codec's terms."""

    @property
    def conditions(self) -> list[Condition]:
        """What the model must keep to while drawing."""
        ...

    def write(self, table: pa.Table, tokens: np.ndarray, random: np.random.Generator) -> pa.Table:
        """Put the exact values asked for in place of what was decoded."""
        ...


class Codec(Protocol):
    """Fitted in one pass over the data; afterwards immutable and without randomness of its own."""

    kind: str
    rows_together: ClassVar[int]  # rows that are read and encoded at a time: a bound of memory
    details: ClassVar[
        pa.Schema | None
    ]  # columns that scored rows get beside `why`; None: its columns explain a row
    schema: pa.Schema  # of decoded tables: the columns that were learnt
    rows: int  # of the training data

    @property
    def space(self) -> Space:
        """The space of the encoded records."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What whoever trains the model should know of the data, such as how many texts were cut."""
        ...

    @staticmethod
    def learnt_columns(schema: pa.Schema, settings: Any) -> pa.Schema:
        """The columns that are learnt of a source. Raises InvalidData when none can be, or several might be meant."""
        ...

    @staticmethod
    def schema_faults(learnt: pa.Schema, schema: pa.Schema) -> list[str]:
        """Why tables of `schema` do not fit a model that learnt `learnt`; empty when they do."""
        ...

    @classmethod
    def fit(cls, batches: Iterable[pa.RecordBatch], schema: pa.Schema, settings: Any) -> Self:
        """Fit in one streaming pass; memory does not grow with the number of rows."""
        ...

    def encode(self, table: pa.Table) -> Records:
        """Records of the space, row by row. What is odd gets tokens of its own; what is unreadable is a fault."""
        ...

    def given(self, where: Mapping[str, Any], prompt: str | None = None) -> Given:
        """Conditions of a generate job. Raises InvalidInput for unknown columns, values never seen, a prompt amiss."""
        ...

    def decode(self, tokens: np.ndarray, random: np.random.Generator) -> pa.Table:
        """A table of `schema`, exactly, from int64 records; `random` places values inside the cells of tokens."""
        ...

    def check_schema(self, schema: pa.Schema) -> None:
        """Raise SchemaMismatch, naming every fault, unless tables of `schema` can be encoded."""
        ...

    def explain(self, table: pa.Table, entries: np.ndarray | None) -> dict[str, list[Any]]:
        """For codecs with `details`: for each row the values of `why` and of the detail columns.

        entries  float32 (rows, entries): what each entry of the encoded row adds to the score; None: cannot be told.
        `why` is a list of {"column", "nats", "value"}, the greatest first.
        """
        ...

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Everything fitted: a JSON-able dictionary and named arrays."""
        ...

    @classmethod
    def from_state(cls, settings: dict[str, Any], arrays: dict[str, np.ndarray]) -> Self:
        """The inverse of `state`."""
        ...


def encode_all(codec: Codec, batches: Iterable[pa.RecordBatch | pa.Table]) -> Iterator[Records]:
    """Encode a stream of batches one by one."""
    for batch in batches:
        table = batch if isinstance(batch, pa.Table) else pa.Table.from_batches([batch])
        if table.num_rows:
            yield codec.encode(table)


def digest_of(settings: dict[str, Any], arrays: dict[str, np.ndarray]) -> str:
    """sha256 of a codec's state."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name in sorted(arrays):
        digest.update(name.encode() + arrays[name].tobytes())
    return digest.hexdigest()


def whole(state: Mapping[str, Any], name: str, low: int, high: int) -> int:
    """A whole number of a codec's state. ValueError unless it lies in [low, high]: what it counts is allocated."""
    value = state[name]
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{name} is {str(value)[:40]}; accepted are {low:,} to {high:,}")
    return value
