"""TFRecord export: golden bytes, every type, refusals, interruptions; and real TensorFlow where there is one.

GENAI_TENSORFLOW_PYTHON may name the interpreter of another environment that has tensorflow and pyarrow.
"""

from __future__ import annotations

import datetime as dt
import decimal
import importlib.util
import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from genai_core.errors import InvalidData, InvalidInput, OutputExists
from jobs.cli import main
from pipelines.outputs import tfrecord
from pipelines.outputs.sink import Sink
from pipelines.plan import Plan, Shard
from tests.contract.spaces import every_type

READER = Path(__file__).with_name("tensorflow_reader.py")


def output(path: Path, tables: list[pa.Table], finish: bool = True) -> Sink:
    """What a job leaves: one part a table."""
    shards = tuple(Shard(i, 100 + i, table.num_rows) for i, table in enumerate(tables))
    plan, sink = Plan("generation", shards), Sink(str(path))
    sink.prepare({"job_id": "generate-1", "verb": "generate", "parts": {}})
    for shard, table in zip(plan.shards, tables, strict=True):
        sink.write_shard(shard, table, {"job_id": "generate-1"})
    if finish:
        sink.finish(plan, {"job_id": "generate-1", "model": {"digest": "sha256:ab"}})
    return sink


# -- a reader of its own: protocol buffers and TFRecord as their specifications say -------------------------------
def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def records_in(data: bytes) -> list[bytes]:
    found, at = [], 0
    while at < len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        body = data[at + 12 : at + 12 + length]
        for part, place in ((data[at : at + 8], at + 8), (body, at + 12 + length)):
            crc = crc32c(part)
            (kept,) = struct.unpack_from("<I", data, place)
            assert kept == ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
        found.append(body)
        at += 16 + length
    return found


def varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        shift, at = shift + 7, at + 1
        if not data[at - 1] & 128:
            return value, at


def fields(data: bytes) -> list[tuple[int, bytes]]:
    found, at = [], 0
    while at < len(data):
        key, at = varint(data, at)
        length, at = varint(data, at)
        assert key & 7 == 2
        found.append((key >> 3, data[at : at + length]))
        at += length
    return found


def decoded(example: bytes) -> dict[str, list[Any]]:
    ((_, features),) = fields(example)
    return {
        dict(fields(entry))[1].decode(): values(*fields(dict(fields(entry))[2])[0])
        for _, entry in fields(features)
    }


def values(kind: int, data: bytes) -> list[Any]:
    parts = [part for _, part in fields(data)]
    if kind == 1:
        return parts
    packed = b"".join(parts)
    if kind == 2:
        return list(struct.unpack(f"<{len(packed) // 4}f", packed))
    found, at = [], 0
    while at < len(packed):
        value, at = varint(packed, at)
        found.append(value - 2**64 if value >= 2**63 else value)
    return found


def rows_of(table: pa.Table) -> list[dict[str, list[Any]]]:
    return [decoded(e) for batch in table.to_batches() for e in tfrecord.examples(batch)]


# -- tests -------------------------------------------------------------------------------------------------------
def test_golden_bytes() -> None:
    """The bytes that tf.io.TFRecordWriter writes for the same example."""
    batch = pa.record_batch({"n": [-1], "s": ["hi"], "x": [0.5]})
    (example,) = tfrecord.examples(batch)
    assert example.hex() == (
        "0a310a130a016e120e1a0c0a0affffffffffffffffff010a0b0a017312060a040a0268690a0d0a0178120812060a040000003f"
    )


def test_every_record_carries_right_checksums() -> None:
    assert tfrecord.record(b"").hex() == "0000000000000000" + "29039807" + "d8ea82a2"
    bodies = [b"", b"a", bytes(range(256)) * 3]
    assert records_in(b"".join(map(tfrecord.record, bodies))) == bodies


def test_every_type_comes_back() -> None:
    """What Arrow gives for every column that users have, through a reader written after the specification."""
    table = every_type(60)
    index = table.schema.get_field_index("uint64")
    small = pa.array(np.arange(60, dtype=np.uint64) << np.uint64(57 - 1))
    table = table.set_column(index, "uint64", small)
    described = tfrecord.features_of(table.schema)
    found = rows_of(table)
    for name in table.column_names:
        column, kind = table[name], described[name]["list"]
        if pa.types.is_dictionary(column.type):
            column = column.combine_chunks().dictionary_decode()
        if pa.types.is_temporal(column.type):
            column = column.cast(pa.int32() if column.type.bit_width == 32 else pa.int64())
        for row, value in zip(found, column.to_pylist(), strict=True):
            if value is None:
                assert name not in row
            elif kind == "float_list":
                np.testing.assert_array_equal(row[name], [np.float32(value)])
            elif kind == "bytes_list":
                assert row[name] == [value if isinstance(value, bytes) else str(value).encode()]
            else:
                assert row[name] == [int(value)]


def test_units_and_shapes_are_stated() -> None:
    tensor = pa.fixed_shape_tensor(pa.uint8(), (2, 2, 1))
    schema = pa.schema(
        {
            "at": pa.timestamp("us", "UTC"),
            "day": pa.date32(),
            "image": tensor,
            "price": pa.decimal128(9, 2),
            "sound": pa.struct({"bytes": pa.binary(), "path": pa.string()}),
            "tags": pa.list_(pa.string()),
        }
    )
    described = tfrecord.features_of(schema)
    assert list(described) == ["at", "day", "image", "price", "sound.bytes", "sound.path", "tags"]
    assert described["at"] == {
        "list": "int64_list",
        "shape": [],
        "type": "timestamp[us, tz=UTC]",
        "unit": "microsecond",
    }
    assert described["day"]["unit"] == "day"
    assert described["image"]["shape"] == [2, 2, 1]
    assert described["price"]["list"] == "bytes_list"
    assert described["tags"]["shape"] == [None]


def test_tensors_lists_and_structs() -> None:
    pictures = np.arange(8, dtype=np.uint8).reshape(2, 2, 2, 1)
    table = pa.table(
        {
            "image": pa.FixedShapeTensorArray.from_numpy_ndarray(pictures),
            "sound": pa.array([{"bytes": b"RIFF", "path": None}, None]),
            "tags": pa.array([["a", "b"], []], pa.list_(pa.string())),
            "wave": pa.array([[0.5, -1.0], None], pa.list_(pa.float32(), 2)),
            "price": pa.array([decimal.Decimal("1.50"), None], pa.decimal128(9, 2)),
        }
    )
    first, second = rows_of(table)
    expected = {"image": [0, 1, 2, 3], "sound.bytes": [b"RIFF"], "tags": [b"a", b"b"], "wave": [0.5, -1.0]}
    assert first == {**expected, "price": [b"1.50"]}
    assert second == {"image": [4, 5, 6, 7], "tags": []}
    # a slice has an offset into its values
    assert rows_of(table.slice(1))[0]["image"] == [4, 5, 6, 7]


def test_what_has_no_place_is_refused() -> None:
    for column, why in (
        (pa.array([2**63], pa.uint64()), "above"),
        (pa.array([[1, None]]), "nulls inside"),
        (pa.array([[[1]]]), "no place"),
        (pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())), "no place"),
    ):
        with pytest.raises(InvalidData, match=why):
            rows_of(pa.table({"x": column}))


def test_an_output_becomes_one_file_a_part_with_its_lineage(tmp_path: Path) -> None:
    tables = [pa.table({"n": [1, 2]}), pa.table({"n": [3]})]
    manifest = output(tmp_path / "out", tables).manifest()
    written = tfrecord.export(str(tmp_path / "out"), str(tmp_path / "to"))
    sidecar = json.loads((tmp_path / "to" / "_EXPORT.json").read_text())
    assert sidecar == written
    assert sidecar["rows"] == 3
    assert sidecar["source"]["manifest"] == manifest["hash"]
    assert sidecar["provenance"]["model"] == {"digest": "sha256:ab"}
    found = [
        [decoded(e)["n"] for e in records_in((tmp_path / "to" / f["file"]).read_bytes())]
        for f in sidecar["files"]
    ]
    assert found == [[[1], [2]], [[3]]]
    names = sorted(p.name for p in (tmp_path / "to" / "data").iterdir())
    assert names == [Path(shard["file"]).stem + ".tfrecord" for shard in manifest["shards"]]
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "to").rglob("*")}
    assert tfrecord.export(str(tmp_path / "out"), str(tmp_path / "to")) == written
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "to").rglob("*")}


def test_an_interrupted_export_begins_anew_and_strangers_are_left_alone(tmp_path: Path) -> None:
    out, to = str(tmp_path / "out"), tmp_path / "to"
    output(tmp_path / "out", [pa.table({"n": [1]}), pa.table({"n": [2]})])
    whole = tfrecord.export(out, str(to))
    (to / "_EXPORT.json").unlink()
    (to / whole["files"][0]["file"]).write_bytes(b"torn")
    assert tfrecord.export(out, str(to)) == whole
    output(tmp_path / "other", [pa.table({"n": [9]})])
    with pytest.raises(OutputExists, match="another output"):
        tfrecord.export(str(tmp_path / "other"), str(to))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(OutputExists, match=r"notes\.txt"):
        tfrecord.export(out, str(tmp_path / "mine"))
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep"


def test_unfinished_output_is_refused(tmp_path: Path) -> None:
    output(tmp_path / "out", [pa.table({"n": [1]})], finish=False)
    with pytest.raises(InvalidInput, match="unfinished"):
        tfrecord.export(str(tmp_path / "out"), str(tmp_path / "to"))
    with pytest.raises(InvalidInput, match="no output of a job"):
        tfrecord.export(str(tmp_path), str(tmp_path / "to"))
    assert not (tmp_path / "to").exists()


def test_command(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    output(tmp_path / "out", [pa.table({"n": [1, 2]})])
    arguments = ["export", str(tmp_path / "out"), "--as", "tfrecord", "--to", str(tmp_path / "to")]
    assert main([*arguments, "--quiet"]) == 0
    line = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert (line["status"], line["rows"], line["files"]) == ("done", 2, 1)
    assert main(["export", str(tmp_path / "nothing"), "--as", "tfrecord", "--to", "x", "--json"]) == 2
    assert json.loads(capfd.readouterr().out.splitlines()[-1])["status"] == "invalid"


def interpreter() -> str | None:
    """A Python that has TensorFlow."""
    if named := os.environ.get("GENAI_TENSORFLOW_PYTHON"):
        return named
    return sys.executable if importlib.util.find_spec("tensorflow") else None


@pytest.mark.tensorflow
@pytest.mark.skipif(
    interpreter() is None,
    reason="TensorFlow is not installed; GENAI_TENSORFLOW_PYTHON names a Python that has it",
)
def test_tensorflow_reads_what_was_written(tmp_path: Path) -> None:
    """tf.data over the TFRecord files, and over the Parquet files by pyarrow, as docs/tensorflow.md shows."""
    pictures = np.arange(12, dtype=np.uint8).reshape(3, 2, 2, 1)
    table = pa.table(
        {
            "at": pa.array([dt.datetime(2020, 1, day) for day in (1, 2, 3)], pa.timestamp("us")),
            "digit": pa.array([7, None, -9]),
            "image": pa.FixedShapeTensorArray.from_numpy_ndarray(pictures),
            "name": ["a", "ü", ""],
            "weight": [0.5, 1.5, -2.0],
        }
    )
    output(tmp_path / "out", [table, table.slice(1)])
    tfrecord.export(str(tmp_path / "out"), str(tmp_path / "to"))
    done = subprocess.run(
        [str(interpreter()), str(READER), str(tmp_path / "out"), str(tmp_path / "to")],
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    rows = [*table.to_pylist(), *table.slice(1).to_pylist()]
    for row, read, simple in zip(rows, found["tfrecord"], found["parquet"], strict=True):
        assert read["digit"] == (-1 if row["digit"] is None else row["digit"])
        assert read["name"] == simple["name"] == row["name"]
        assert read["weight"] == simple["weight"] == row["weight"]
        since = (row["at"] - dt.datetime(1970, 1, 1)) // dt.timedelta(microseconds=1)
        assert read["at"] == since
        assert np.array(read["image"]).shape == (2, 2, 1)
        assert np.ravel(read["image"]).tolist() == np.ravel(simple["image"]).tolist() == row["image"]
    golden = Path(
        tmp_path / "to" / json.loads((tmp_path / "to" / "_EXPORT.json").read_text())["files"][0]["file"]
    )
    assert found["rewritten"] == golden.read_bytes().hex()
