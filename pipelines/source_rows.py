"""Rows of a source as batch jobs read them: in chunks, each row with its file and its number therein"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from genai_core.codec import Codec
from genai_core.errors import InvalidInput
from pipelines.plan import Shard
from pipelines.settings import SinkSettings
from pipelines.sources import Reader, Source, SourceSettings
from pipelines.stores import storage

FILE, ROW, FAULT = "source_file", "source_row", "fault"
PLACE = (pa.field(FILE, pa.dictionary(pa.int32(), pa.string())), pa.field(ROW, pa.int64()))
CHUNK_ROWS = 65_536  # handled together, so that a file that cannot be cut needs no more memory
CHUNK_ENTRIES = 8_000_000


class Chunk(NamedTuple):
    """Rows that are handled together, the file of each and its number therein."""

    table: pa.Table
    files: pa.DictionaryArray
    rows: np.ndarray


def rows_together(codec: Codec) -> int:
    """How many rows make a chunk that memory bears, encoded and as they lie in files."""
    return min(int(np.clip(CHUNK_ENTRIES // codec.space.entries, 64, CHUNK_ROWS)), codec.rows_together)


def chunks(reader: Reader, shard: Shard, columns: Sequence[str], together: int) -> Iterator[Chunk]:
    """The rows of a shard's pieces that pass the filter, about `together` at a time."""
    parts: list[tuple[str, pa.RecordBatch, np.ndarray]] = []
    waiting = 0
    for piece in shard.pieces:
        for batch, rows in reader.stream(piece, columns, together):
            parts.append((piece.path, batch, rows))
            waiting += len(rows)
            if waiting >= together:
                yield _joined(parts)
                parts, waiting = [], 0
    if parts:
        yield _joined(parts)


def _joined(parts: Sequence[tuple[str, pa.RecordBatch, np.ndarray]]) -> Chunk:
    paths = {path: number for number, path in enumerate(dict.fromkeys(path for path, _, _ in parts))}
    codes = np.concatenate([np.full(len(rows), paths[path], np.int32) for path, _, rows in parts])
    table = pa.Table.from_batches([batch for _, batch, _ in parts]).unify_dictionaries().combine_chunks()
    files = pa.DictionaryArray.from_arrays(codes, pa.array(list(paths), pa.string()))
    return Chunk(table, files, np.concatenate([rows for _, _, rows in parts]))


def joined(tables: Iterable[pa.Table], schema: pa.Schema) -> pa.Table:
    """One table of all chunks', with one dictionary a column."""
    found = list(tables)
    table = pa.concat_tables(found) if found else schema.empty_table()
    return table.unify_dictionaries().combine_chunks()


def with_kept(reader: Reader, keep: Sequence[str], made: Sequence[pa.Field]) -> pa.Schema:
    """Columns to keep, then those that a job makes; InvalidInput: not there, or a name taken twice."""
    kept = reader.project(list(dict.fromkeys(keep)))
    taken = [field.name for field in made if field.name in kept.names]
    if taken:
        raise InvalidInput(
            f"keep: the output has a column {taken[0]!r} of its own; leave it out, or rename it"
        )
    return pa.schema([*kept, *made])


def refuse_overlap(source: SourceSettings, sink: SinkSettings) -> None:
    """Output below the source would be read as part of it by the next run."""
    (there, read), (here, written) = storage.resolve(source.path), storage.resolve(sink.path)
    if there.type_name == here.type_name and f"{written}/".startswith(f"{read.rstrip('/')}/"):
        raise InvalidInput(
            f"sink.path {storage.mask(sink.path)} lies in the source {storage.mask(source.path)}, whose rows "
            "it would become; choose a directory beside it"
        )


def source_facts(settings: SourceSettings, source: Source) -> dict[str, Any]:
    """What the manifest says of a source."""
    return {
        "kind": settings.kind,
        "path": settings.path,
        "filter": settings.filter,
        "digest": source.digest,
        "rows": source.rows,
        **source.reader.version,
    }
