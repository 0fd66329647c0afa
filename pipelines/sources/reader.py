"""Reads pieces of files as rows of one schema; all that a worker needs of a source. The subclass knows the format."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs

from genai_core.errors import InvalidData, InvalidInput, nearest
from pipelines import filters
from pipelines.sources import schemas
from pipelines.sources.files import (
    Fragment,
    Piece,
    find_files,
    key_value,
    keys_of,
    partition_fields,
    root_of,
)
from pipelines.stores import storage

BATCH_ROWS = 65_536
ROW = "__row__"


@dataclass(frozen=True)
class Head:
    """What the beginning (or footer) of a file says."""

    schema: pa.Schema
    row_groups: tuple[int, ...]  # rows of each


@dataclass(frozen=True)
class Reader(ABC):
    """Reads pieces of files of one format, in any process; the subclass knows the format."""

    settings: Any
    filesystem: pafs.FileSystem
    root: str
    full_schema: pa.Schema = field(default_factory=lambda: pa.schema([]))  # all columns, before `columns:`
    partition_fields: tuple[pa.Field, ...] = ()

    suffixes: ClassVar[tuple[str, ...]]
    divisible: ClassVar[bool]  # whether a part of a row group can be read without reading all before it
    typed: ClassVar[bool] = (
        True  # whether files say the types of their columns, which text leaves to be guessed
    )

    @classmethod
    def listed(cls, settings: Any) -> tuple[Self, list[pafs.FileInfo]]:
        """A reader that knows no schema yet, and the files that the settings mean; none is opened."""
        filesystem, path = storage.resolve(settings.path)
        with storage.explained(settings.path):
            blank = cls(settings, filesystem, root_of(filesystem, path))
            return blank, find_files(filesystem, path, settings.path, cls.suffixes)

    def agreed(self, found: Sequence[tuple[str, pa.Schema]]) -> Self:
        """This reader with the schema of all files, and the partition columns that files do not hold themselves."""
        stored = schemas.unify(found)
        return self.with_schema(stored, self.key_columns([path for path, _ in found]))

    def with_schema(self, stored: pa.Schema, keys: Sequence[pa.Field]) -> Self:
        """This reader with known columns; a partition column that files hold too is read from them."""
        extra = tuple(key for key in keys if key.name not in stored.names)
        return replace(
            self, full_schema=pa.schema([*stored, *extra], stored.metadata), partition_fields=extra
        )

    def key_columns(self, paths: Sequence[str]) -> list[pa.Field]:
        """The partition columns of files: those that their folders name. InvalidData when folders disagree."""
        return partition_fields(paths, self.settings.path)

    def keys(self, path: str) -> Mapping[str, str | None]:
        """The partition keys of a file: what its folders say."""
        return keys_of(path)

    @property
    def version(self) -> dict[str, Any]:
        """Which state of a versioned table is read; empty for plain files."""
        return {}

    @abstractmethod
    def head(self, path: str) -> Head:
        """Schema and row counts of the file at an absolute path."""

    @abstractmethod
    def decode(
        self, path: str, columns: Sequence[str], start: int, stop: int, batch_rows: int
    ) -> Iterator[tuple[int, pa.RecordBatch]]:
        """(number of the first row, batch) covering at least rows [start, stop); absent columns are left out."""

    def live_groups(self, path: str, condition: pc.Expression) -> Sequence[int] | None:
        """Row groups in which rows may satisfy the condition; None: cannot tell."""
        return None

    def advice(self, error: Exception) -> str:
        """What to do about bytes that cannot be read, if the format knows something."""
        return ""

    @property
    def partitions(self) -> tuple[str, ...]:
        return tuple(f.name for f in self.partition_fields)

    @property
    def schema(self) -> pa.Schema:
        """The columns that the settings ask for, in the order of the files."""
        return self.project(self.settings.columns)

    @cached_property
    def condition(self) -> pc.Expression | None:
        """The filter; None takes all rows."""
        text = self.settings.filter
        return None if text is None else filters.parse(text, self.full_schema)

    def project(self, columns: Sequence[str] | None) -> pa.Schema:
        """The schema of some columns; InvalidInput names those that are not there."""
        if columns is None:
            return self.full_schema
        unknown = [name for name in columns if name not in self.full_schema.names]
        if unknown:
            hints = "; ".join(f"no column {n!r}{nearest(n, self.full_schema.names)}" for n in unknown)
            known = ", ".join(self.full_schema.names)
            raise InvalidInput(f"{storage.mask(self.settings.path)}: {hints} (columns: {known})")
        return pa.schema([self.full_schema.field(name) for name in columns], self.full_schema.metadata)

    def absolute(self, path: str) -> str:
        return storage.join(self.root, path)

    def read_with_rows(
        self, piece: Piece, columns: Sequence[str] | None = None
    ) -> tuple[pa.Table, np.ndarray]:
        """The piece's rows that pass the filter, and their numbers in the file (int64)."""
        parts = list(self.stream(piece, columns))
        schema = self.project(columns if columns is not None else self.settings.columns)
        rows = np.concatenate([rows for _, rows in parts]) if parts else np.empty(0, np.int64)
        return pa.Table.from_batches([batch for batch, _ in parts], schema), rows

    def stream(
        self, piece: Piece, columns: Sequence[str] | None = None, batch_rows: int = BATCH_ROWS
    ) -> Iterator[tuple[pa.RecordBatch, np.ndarray]]:
        """Batches of the piece's rows that pass the filter, with their row numbers; empty ones are left out."""
        wanted = self.project(columns if columns is not None else self.settings.columns)
        read = self._with_filter_columns(wanted)
        stored = [name for name in read.names if name not in self.partitions]
        self.refuse_changed(piece)
        with self.explained(piece.path):
            for first, batch in self.decode(
                self.absolute(piece.path), stored, piece.start, piece.stop, batch_rows
            ):
                # pyarrow hands out text that is no UTF-8 and decimals beyond their precision; a tenth of the reading
                batch.validate(full=True)
                inside, rows = _clip(batch, first, piece)
                kept, rows = self._filtered(self._conform(inside, read, piece.path), rows)
                if kept.num_rows:
                    yield (
                        pa.RecordBatch.from_arrays([kept.column(n) for n in wanted.names], schema=wanted),
                        rows,
                    )

    def _with_filter_columns(self, wanted: pa.Schema) -> pa.Schema:
        needed = filters.columns_of(self.settings.filter, self.full_schema) if self.settings.filter else []
        extra = [self.full_schema.field(name) for name in needed if name not in wanted.names]
        return pa.schema([*wanted, *extra], wanted.metadata)

    def _filtered(self, batch: pa.RecordBatch, rows: np.ndarray) -> tuple[pa.RecordBatch, np.ndarray]:
        if self.condition is None or not batch.num_rows:
            return batch, rows
        kept = batch.append_column(ROW, pa.array(rows)).filter(self.condition)
        return kept, kept.column(ROW).to_numpy()

    def _conform(self, batch: pa.RecordBatch, schema: pa.Schema, path: str) -> pa.RecordBatch:
        arrays = [self._column(batch, wanted, path) for wanted in schema]
        if not arrays:
            return batch.select([])
        return pa.RecordBatch.from_arrays(arrays, schema=schema)

    def _column(self, batch: pa.RecordBatch, wanted: pa.Field, path: str) -> pa.Array:
        if wanted.name in self.partitions:
            return schemas.cast(pa.repeat(key_value(self.keys(path), wanted), batch.num_rows), wanted.type)
        if wanted.name not in batch.schema.names:
            return pa.nulls(batch.num_rows, wanted.type)
        try:
            return schemas.cast(batch.column(wanted.name), wanted.type)
        except pa.ArrowException as error:
            raise InvalidData(
                f"{path}: column {wanted.name!r} does not fit {wanted.type}: {error}"
            ) from error

    def refuse_changed(self, piece: Piece | Fragment) -> None:
        """InvalidData when a file is not what it was when the source was listed."""
        path = self.absolute(piece.path)
        with self.explained(piece.path):
            info = self.filesystem.get_file_info(path)
            if info.type != pafs.FileType.File:
                raise FileNotFoundError(path)
            now = storage.etag(self.filesystem, info)
        if (info.size, now) != (piece.size, piece.etag):
            raise InvalidData(
                f"{piece.path} has changed since the job was planned ({piece.size:,} bytes then, {info.size:,} now); "
                "run the job on the new data, into a new output directory"
            )

    @contextmanager
    def explained(self, path: str) -> Iterator[None]:
        """Turn what a file's bytes raise into InvalidData that names the file."""
        try:
            yield
        except FileNotFoundError as error:
            raise InvalidData(f"{path} is no longer there; it was when the source was listed") from error
        except UnicodeDecodeError as error:
            kind = self.settings.kind
            raise InvalidData(f"{path} is not a readable {kind} file: a name in it is no UTF-8") from error
        except (pa.ArrowException, OSError, EOFError) as error:
            if isinstance(error, OSError) and (error.errno or "AWS Error" in str(error)):
                with storage.explained(self.absolute(path)):
                    raise
            raise InvalidData(
                f"{path} is not a readable {self.settings.kind} file: {_first_line(error)}{self.advice(error)}"
            ) from error


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0][:300]


def _clip(batch: pa.RecordBatch, first: int, piece: Piece) -> tuple[pa.RecordBatch, np.ndarray]:
    """The part of a batch that lies in the piece, and its row numbers."""
    low = max(piece.start - first, 0)
    high = max(min(piece.stop - first, batch.num_rows), low)
    return batch.slice(low, high - low), np.arange(first + low, first + high, dtype=np.int64)
