"""What a person looks at first: a page of a job's records beside the data, for modalities that have one"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from genai_core.errors import InvalidData
from pipelines.outputs.sink import Sink
from pipelines.scoring.anomalies import FILE as ANOMALIES
from pipelines.source_rows import FILE, ROW
from pipelines.sources import Piece, Source
from pipelines.stores import storage

# modality -> module with FILE, its name beside the data; ROWS, how many records it shows; and
# page(table, column, score=None) -> bytes: of the records in `column`; with `score`, of the most anomalous ones
PAGES = {
    "audio": "pipelines.pages.listening_page",
    "image": "pipelines.pages.contact_sheet",
    "image_codes": "pipelines.pages.contact_sheet",
}


def of_rows(modality: str, column: str) -> Callable[[Sink, Mapping[str, Any]], dict[str, Any]]:
    """Writes a page of the first records of an output; what the manifest says of it."""

    def summarise(sink: Sink, provenance: Mapping[str, Any]) -> dict[str, Any]:
        del provenance
        if modality not in PAGES:
            return {}
        module = import_module(PAGES[modality])
        return _write(sink, module.FILE, module.page(_first(sink, module.ROWS), column))

    return summarise


def of_anomalies(sink: Sink, modality: str, column: str, score: str, source: Source) -> dict[str, Any]:
    """Writes a page of the most anomalous records, which are read from the source again; none where none is flagged."""
    if modality not in PAGES:
        return {}
    module = import_module(PAGES[modality])
    with sink.filesystem.open_input_file(sink.path(ANOMALIES)) as stream, pq.ParquetFile(stream) as parquet:
        batches = (
            [batch.slice(0, module.ROWS) for batch in parquet.iter_batches(module.ROWS, row_groups=[0])][:1]
            if parquet.num_row_groups
            else []
        )
        listed = pa.Table.from_batches(batches, parquet.schema_arrow)
    if not listed.num_rows:
        return {}
    try:
        records = _records(listed, column, source)
    except InvalidData as error:  # the work is done: a source that has changed since costs the page only
        return {"overview_missing": str(error)}
    if column in listed.column_names:
        listed = listed.drop_columns([column])
    return _write(sink, module.FILE, module.page(listed.append_column(column, records), column, score))


def _write(sink: Sink, name: str, page: bytes) -> dict[str, Any]:
    with storage.explained(sink.uri):
        storage.put_bytes(sink.filesystem, sink.path(name), page)
    return {"overview": name}


def _first(sink: Sink, rows: int) -> pa.Table:
    """The first rows of the data."""
    parts: list[pa.Table] = []
    for record in sink.records():
        with (
            sink.filesystem.open_input_file(sink.path(record["file"])) as stream,
            pq.ParquetFile(stream) as file,
        ):
            for batch in file.iter_batches(rows):
                parts.append(pa.Table.from_batches([batch]))
                break
        if sum(part.num_rows for part in parts) >= rows:
            break
    return pa.concat_tables(parts).slice(0, rows)


def _records(listed: pa.Table, column: str, source: Source) -> pa.Array:
    """The payload of the listed rows, one by one."""
    fragments = {fragment.path: fragment for fragment in source.fragments()}
    parts = [source.schema.empty_table().select([column])]
    for path, row in zip(listed[FILE].to_pylist(), listed[ROW].to_pylist(), strict=True):
        of = fragments[path]
        parts.append(source.reader.read_with_rows(Piece(path, of.size, of.etag, row, row + 1), [column])[0])
    return pa.concat_tables(parts).column(column).combine_chunks()
