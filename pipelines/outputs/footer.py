"""Parquet files that carry their provenance in the footer, beside the Arrow schema that pyarrow keeps there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from pipelines.plan import canonical

KEY = "genai"
ROW_GROUP = 65_536
# Fixed, because a file is named by the hash of its bytes.
WRITER = {"version": "2.6", "compression": "zstd", "compression_level": 1, "write_page_checksum": True}


def encode(table: pa.Table, footer: Mapping[str, Any] | None) -> bytes:
    """The bytes of a Parquet file with exactly the table's schema; equal input, equal bytes. None: no provenance."""
    buffer = pa.BufferOutputStream()
    with open_writer(buffer, table.schema, footer) as writer:
        writer.write_table(table, row_group_size=ROW_GROUP)
    return buffer.getvalue().to_pybytes()


def open_writer(stream: Any, schema: pa.Schema, footer: Mapping[str, Any] | None) -> pq.ParquetWriter:
    """A writer with the fixed settings, for tables that do not fit into memory."""
    writer = pq.ParquetWriter(stream, schema, **WRITER)
    if footer is not None:
        writer.add_key_value_metadata({KEY: canonical(dict(footer)).decode()})
    return writer


def read(filesystem: pafs.FileSystem, path: str) -> dict[str, Any] | None:
    """The provenance in a Parquet file's footer; None when it has none of ours."""
    with filesystem.open_input_file(path) as file:
        return _parsed(file)


def of_bytes(data: bytes) -> dict[str, Any]:
    """The same of a file in memory; empty when it has none."""
    return _parsed(pa.BufferReader(data)) or {}


def _parsed(file: Any) -> dict[str, Any] | None:
    metadata = pq.read_metadata(file).metadata or {}
    try:
        found = json.loads(metadata.get(KEY.encode(), b"null"))
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
