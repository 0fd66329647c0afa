"""Files that the sink writes: exact schemas, provenance beside them, equal input equal bytes."""

from __future__ import annotations

import datetime as dt
import decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from pipelines.outputs import footer as footers

FOOTER = {"job_id": "generate-1", "shard": 3, "synthetic": True}


def varied(rows: int = 1000) -> pa.Table:
    """Types that readers like to change, with metadata on a field and on the schema."""
    moment = dt.datetime(2013, 1, 1, 5)
    codes = np.arange(rows, dtype=np.int8) % 2
    table = pa.table(
        {
            "plain": list(range(rows)),
            "codes": pa.DictionaryArray.from_arrays(codes, pa.array(["x", "y"]), ordered=True),
            "wide": pa.array(["a"] * rows, pa.large_string()),
            "zoned": pa.array([moment] * rows, pa.timestamp("ns", "America/New_York")),
            "day": pa.array([moment.date()] * rows),
            "price": pa.array([decimal.Decimal("1.50")] * rows, pa.decimal128(10, 2)),
            "half": pa.array(np.ones(rows, np.float16)),
            "nothing": pa.nulls(rows),
            "bytes": pa.array([b"\xff"] * rows, pa.large_binary()),
        }
    )
    field = pa.field("plain", pa.int64(), nullable=False, metadata={"unit": "minutes"})
    return table.cast(table.schema.set(0, field)).replace_schema_metadata({"owner": "me"})


def test_the_schema_is_exactly_the_tables_and_the_provenance_beside_it(tmp_path: Path) -> None:
    table = varied()
    path = tmp_path / "x.parquet"
    path.write_bytes(footers.encode(table, FOOTER))
    metadata = pq.read_metadata(path)
    assert {b"ARROW:schema", b"genai", b"owner"} == set(metadata.metadata)
    assert pq.read_schema(path).equals(table.schema, check_metadata=True)
    assert pq.read_table(path).equals(table)
    assert footers.read(pafs.LocalFileSystem(), str(path)) == FOOTER


def test_equal_input_gives_equal_bytes_and_any_change_other_bytes() -> None:
    data = footers.encode(varied(), FOOTER)
    assert footers.encode(varied(), dict(reversed(FOOTER.items()))) == data
    assert footers.encode(varied(999), FOOTER) != data
    assert footers.encode(varied(), {**FOOTER, "shard": 4}) != data


def test_row_groups_have_a_fixed_length_and_pages_checksums(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    path.write_bytes(footers.encode(pa.table({"n": np.arange(150_000)}), FOOTER))
    metadata = pq.read_metadata(path)
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [
        65_536,
        65_536,
        18_928,
    ]
    damaged = bytearray(path.read_bytes())
    damaged[50_000:50_010] = bytes(10)
    path.write_bytes(damaged)
    try:
        pq.read_table(path, page_checksum_verification=True)
    except OSError:
        return
    raise AssertionError("damage went unseen")


def test_files_of_others_have_no_provenance(tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": [1]}), tmp_path / "x.parquet")
    assert footers.read(pafs.LocalFileSystem(), str(tmp_path / "x.parquet")) is None
