"""The files that a path means, as they are now: one schema, a list of files, what is to be read, a digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs

from genai_core.errors import InvalidData
from pipelines import filters
from pipelines.sources.files import Fragment, Piece, key_expression, relative
from pipelines.sources.reader import BATCH_ROWS, Head, Reader
from pipelines.stores import storage

HEADS_AT_ONCE = 8  # footers of a store are waited for, not computed


class Source:
    """Files of one schema, as they are now."""

    def __init__(self, reader: Reader, fragments: Sequence[Fragment]) -> None:
        """`reader` knows the schema; see `opened`."""
        self.settings, self.reader = reader.settings, reader
        self._fragments = sorted(fragments, key=lambda fragment: fragment.path)
        self._refuse_empty()
        self.reader.project(self.settings.columns)
        self._live = self._without_ruled_out()

    @classmethod
    def opened(cls, settings: Any, reader_class: type[Reader]) -> Source:
        """All files that the settings mean, with the schema that all of them fit into."""
        blank, infos = reader_class.listed(settings)
        found = list(read_heads(blank, infos))
        shapes = sorted(((f.path, head.schema) for f, head in found), key=lambda pair: pair[0])
        return cls(blank.agreed(shapes), [fragment for fragment, _ in found])

    @property
    def schema(self) -> pa.Schema:
        """Of every batch, exactly: the columns asked for, partition columns last."""
        return self.reader.schema

    @property
    def rows(self) -> int:
        """Rows of the fragments, before the filter looks at them."""
        return sum(fragment.rows for fragment in self._live)

    def fragments(self) -> list[Fragment]:
        """Files in which rows may pass the filter, sorted by path."""
        return list(self._live)

    def batches(
        self,
        columns: Sequence[str] | None = None,
        *,
        fragments: Sequence[Fragment] | None = None,
        batch_rows: int = BATCH_ROWS,
    ) -> Iterator[pa.RecordBatch]:
        """Rows that pass the filter, in the order of files and rows; InvalidData when no row of the source does."""
        seen = 0
        for piece in self.pieces(fragments=fragments):
            for batch, _ in self.reader.stream(piece, columns, batch_rows):
                seen += batch.num_rows
                yield batch
        if not seen and fragments is None:
            raise InvalidData(
                f"no row of {storage.mask(self.settings.path)} passes the filter {self.settings.filter!r}"
            )

    def require_rows(self) -> None:
        """InvalidData unless a row passes the filter; stops reading at the first."""
        if self.reader.condition is not None:
            next(self.batches(filters.columns_of(self.settings.filter or "", self.reader.full_schema)))

    def pieces(
        self, rows_per_piece: int | None = None, *, fragments: Sequence[Fragment] | None = None
    ) -> Iterator[Piece]:
        """What is to be read, without row groups that the filter rules out; long ones in slices of equal length."""
        for fragment in self._live if fragments is None else fragments:
            for start, stop in self._live_ranges(fragment):
                for low, high in self._cut(start, stop, rows_per_piece):
                    yield Piece(fragment.path, fragment.size, fragment.etag, low, high)

    def read_with_rows(
        self, piece: Piece, columns: Sequence[str] | None = None
    ) -> tuple[pa.Table, np.ndarray]:
        """See Reader.read_with_rows."""
        return self.reader.read_with_rows(piece, columns)

    @cached_property
    def digest(self) -> str:
        """Of the files (names, sizes, etags), the schema and the filter."""
        facts = {
            "files": [[f.path, f.size, f.etag] for f in self._live],
            "schema": self.schema.to_string(show_field_metadata=True, truncate_metadata=False),
            "filter": self.settings.filter,
        }
        return "sha256:" + hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def _refuse_empty(self) -> None:
        if not sum(fragment.rows for fragment in self._fragments):
            raise InvalidData(
                f"{storage.mask(self.settings.path)} holds no rows in {len(self._fragments)} file(s)"
            )
        if not self.reader.full_schema.names:
            raise InvalidData(f"{storage.mask(self.settings.path)} holds no columns")

    def _without_ruled_out(self) -> list[Fragment]:
        """Without the files whose folders (`month=12/`) say that the filter takes no row of them."""
        possible = not_ruled_out(self.reader, [fragment.path for fragment in self._fragments])
        live = [fragment for fragment in self._fragments if fragment.path in possible]
        if not live:
            raise InvalidData(
                f"no file of {storage.mask(self.settings.path)} passes the filter {self.settings.filter!r}; "
                f"it is partitioned by {', '.join(self.reader.partitions)}"
            )
        return live

    def _live_ranges(self, fragment: Fragment) -> Iterator[tuple[int, int]]:
        stops = np.cumsum(fragment.row_groups)
        live = self._live_groups(fragment)
        for i, rows in enumerate(fragment.row_groups):
            if rows and (live is None or i in live):
                yield int(stops[i]) - rows, int(stops[i])

    def _live_groups(self, fragment: Fragment) -> set[int] | None:
        if self.reader.condition is None:
            return None
        self.reader.refuse_changed(fragment)
        with self.reader.explained(fragment.path):
            live = self.reader.live_groups(fragment.path, self.reader.condition)
        return None if live is None else set(live)

    def _cut(self, start: int, stop: int, rows_per_piece: int | None) -> Iterator[tuple[int, int]]:
        if not rows_per_piece or not self.reader.divisible:
            yield start, stop
            return
        parts = -(-(stop - start) // rows_per_piece)
        length = -(-(stop - start) // parts)
        for low in range(start, stop, length):
            yield low, min(low + length, stop)


def not_ruled_out(reader: Reader, paths: Sequence[str]) -> set[str]:
    """The files whose partition keys do not say that the filter takes no row of them; none is opened."""
    condition, fields = reader.condition, reader.partition_fields
    if condition is None or not fields or not paths:
        return set(paths)
    import pyarrow.dataset as pads  # imports pandas: 0.15 s

    dataset = pads.FileSystemDataset.from_paths(
        list(paths),
        schema=reader.full_schema,
        format=pads.ParquetFileFormat(),  # any: no file is opened
        filesystem=pafs.LocalFileSystem(),
        partitions=[key_expression(reader.keys(path), fields) for path in paths],
    )
    return {fragment.path for fragment in dataset.get_fragments(filter=condition)}


def read_heads(reader: Reader, infos: Sequence[pafs.FileInfo]) -> Iterator[tuple[Fragment, Head]]:
    """Every file as it is now, several at a time. InvalidData names the one that cannot be read."""
    with ThreadPoolExecutor(min(HEADS_AT_ONCE, max(len(infos), 1))) as pool:
        yield from pool.map(lambda info: read_head(reader, info), infos)


def _refuse_odd_names(schema: pa.Schema) -> None:
    """UnicodeDecodeError for a name that is no UTF-8, however deep: later nobody would know whose it is."""
    for field in schema:
        assert field.name is not None and str(field.type)


def read_head(reader: Reader, info: pafs.FileInfo) -> tuple[Fragment, Head]:
    """One file as it is now. InvalidData."""
    path = relative(info.path, reader.root)
    with reader.explained(path):
        head = reader.head(info.path)
        _refuse_odd_names(head.schema)
        etag = storage.etag(reader.filesystem, info)
    return Fragment(path, info.size, etag, sum(head.row_groups), head.row_groups), head
