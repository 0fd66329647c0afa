"""Formats in which a file is a row: its name below the source's root, its bytes, the folder it lies in as its label."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from pipelines import filters
from pipelines.sources.files import key_value, relative
from pipelines.sources.reader import Head, Reader
from pipelines.stores import storage

FILE, LABEL = "file", "label"


class WholeFileReader(Reader):
    """One row a file: `file`, the payload column, and `label`, the name of the folder that the file lies in.

    A file at the root has no label, nor has one in a Hive-style folder (`digit=7/`), whose key is a column of its own.
    What the bytes hold is the codec's affair: a damaged file is a row that the codec finds a fault with.
    """

    payload: ClassVar[str]
    divisible = False

    def head(self, path: str) -> Head:
        columns = [
            pa.field(FILE, pa.string()),
            pa.field(self.payload, pa.large_binary()),
            pa.field(LABEL, pa.string()),
        ]
        return Head(pa.schema(columns), (1,))

    def decode(
        self, path: str, columns: Sequence[str], start: int, stop: int, batch_rows: int
    ) -> Iterator[tuple[int, pa.RecordBatch]]:
        del start, stop, batch_rows  # one row
        row = {name: self._value(name, relative(path, self.root)) for name in columns}
        fields = [self.head(path).schema.field(name) for name in columns]
        yield 0, pa.RecordBatch.from_struct_array(pa.array([row], pa.struct(fields)))

    def live_groups(self, path: str, condition: pc.Expression) -> Sequence[int] | None:
        """A filter of names and folders is asked before the file is read."""
        if self.payload in filters.columns_of(self.settings.filter or "", self.full_schema):
            return None
        arrays = [
            pa.repeat(key_value(self.keys(path), field), 1)
            if field.name in self.partitions
            else pa.array([None if field.name == self.payload else self._value(field.name, path)], field.type)
            for field in self.full_schema
        ]
        row = pa.RecordBatch.from_arrays(arrays, schema=self.full_schema)
        return [0] if row.filter(condition).num_rows else []

    def _value(self, name: str, path: str) -> str | bytes | None:
        if name == FILE:
            return path
        if name == LABEL:
            folder = posixpath.basename(posixpath.dirname(path))
            return folder if folder and "=" not in folder else None
        return storage.read_bytes(self.filesystem, self.absolute(path))
