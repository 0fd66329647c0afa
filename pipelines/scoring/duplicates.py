"""Rows whose key is there more than once: no model of single rows can see them, since each is as probable as before.

Exact, over all shards, in bounded memory: a pass over the key columns of the output keeps 64-bit hashes; of more than
ROWS rows, several passes take a part of the hashes each. Rows whose hashes repeat are then compared by their keys. A
key that has a null is no key, as in SQL.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.outputs import footer as footers
from pipelines.outputs.sink import Sink
from pipelines.scoring.anomalies import batches_of
from pipelines.source_rows import FILE as FILE_COLUMN
from pipelines.source_rows import ROW as ROW_COLUMN
from pipelines.stores import storage

FILE = "_duplicates.parquet"
COPIES = "copies"  # rows with this key
ROWS = 20_000_000  # hashes that are in memory together, 8 bytes each
MIX = np.uint64(0x9E3779B97F4A7C15)  # odd, so that nothing is lost by the product


def list_duplicates(sink: Sink, key: Sequence[str], provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Write `_duplicates.parquet`: the rows of keys that are there more than once; what the manifest says of it."""
    records = list(sink.records())
    files, rows = [record["file"] for record in records], sum(record["rows"] for record in records)
    passes = max(-(-rows // ROWS), 1)
    facts = {"duplicates": FILE, "unique": list(key), "duplicated_rows": 0}
    schema = _schema(sink, files, key)
    with (
        storage.explained(sink.uri),
        storage.open_whole(sink.filesystem, sink.path(FILE)) as stream,
        footers.open_writer(
            stream, schema, {**provenance, "role": "duplicates", "unique": list(key)}
        ) as writer,
    ):
        for number in range(passes):
            found = _of_pass(sink, files, key, number, passes).cast(schema)
            writer.write_table(found)
            facts["duplicated_rows"] += found.num_rows
    return facts


def _schema(sink: Sink, files: Sequence[str], key: Sequence[str]) -> pa.Schema:
    """Keys as they are in the output, their rows, and how many there are."""
    first = next((batch.schema for _, batch in batches_of(sink, files[0], [*key])), None) if files else None
    fields = (
        [pa.field(name, pa.null()) for name in key] if first is None else [first.field(name) for name in key]
    )
    own = [(FILE_COLUMN, pa.string()), (ROW_COLUMN, pa.int64()), (COPIES, pa.int64())]
    return pa.schema([*fields, *(pa.field(name, kind) for name, kind in own)])


def _of_pass(sink: Sink, files: Sequence[str], key: Sequence[str], number: int, passes: int) -> pa.Table:
    """Duplicated rows among those whose hashes belong to this pass, key by key."""
    hashes = [own[own % np.uint64(passes) == number] for own, _ in _hashed(sink, files, key)]
    every = np.sort(np.concatenate(hashes)) if hashes else np.zeros(0, np.uint64)
    repeated = np.unique(every[1:][every[1:] == every[:-1]])
    columns = [*key, FILE_COLUMN, ROW_COLUMN]
    parts = [
        batch.filter(pa.array(np.isin(own, repeated))) for own, batch in _hashed(sink, files, key, columns)
    ]
    if not len(repeated):
        parts = [part.slice(0, 0) for part in parts[:1]]
    if not parts:
        return _schema(sink, files, key).empty_table()
    candidates = pa.Table.from_batches(parts).unify_dictionaries()
    at = candidates.column_names.index(FILE_COLUMN)
    candidates = candidates.set_column(at, FILE_COLUMN, candidates[FILE_COLUMN].cast(pa.string()))
    counts = candidates.group_by(list(key)).aggregate([([], "count_all")])
    together = candidates.join(counts.filter(pc.field("count_all") > 1), list(key), join_type="inner")
    order = [(name, "ascending") for name in columns]
    return together.sort_by(order).rename_columns([*columns, COPIES])


def _hashed(
    sink: Sink, files: Sequence[str], key: Sequence[str], columns: Sequence[str] | None = None
) -> Iterator[tuple[np.ndarray, pa.RecordBatch]]:
    """Batches without the rows that have no key, and the hash of each row's key."""
    for file in files:
        for _, batch in batches_of(sink, file, list(columns or key)):
            given = np.logical_and.reduce([~batch.column(name).is_null().to_numpy(False) for name in key])
            kept = batch.filter(pa.array(given))
            yield _hashes([kept.column(name) for name in key], kept.num_rows), kept


def _hashes(key: Sequence[pa.Array], rows: int) -> np.ndarray:
    """uint64 (rows,)."""
    found = np.zeros(rows, np.uint64)
    for column in key:
        encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
        texts = [repr(value).encode() for value in encoded.dictionary.to_pylist()]
        own = [int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") for text in texts]
        found = found * MIX + np.array(own, np.uint64)[encoded.indices.to_numpy()]
    return found
