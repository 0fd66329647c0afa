"""Finished output as TFRecord files for TensorFlow users, written without TensorFlow: `genai export`.

    data/part-00000-<hash12>.tfrecord   a part of the output, one tf.train.Example a row; named as the part is
    _EXPORT.json                        what the columns have become, the files, the rows' origin; written last

| column                          | feature                                                                     |
|---------------------------------|-----------------------------------------------------------------------------|
| integers, booleans              | int64_list                                                                  |
| floats                          | float_list: 32 bits, TensorFlow's Example has no others                     |
| strings, bytes, dictionaries    | bytes_list (a dictionary of numbers: as the numbers)                        |
| decimals                        | bytes_list, as text: exact                                                  |
| timestamps, dates, times        | int64_list, since 1970 or midnight (UTC where zoned), `unit` in _EXPORT.json|
| fixed-shape tensors             | one flat list, `shape` in _EXPORT.json                                      |
| lists                           | one list                                                                    |
| a struct                        | its members, as `column.member`                                             |
| null                            | the feature is absent                                                       |
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import google_crc32c
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from genai_core.errors import InvalidData, InvalidInput, OutputExists
from pipelines.outputs.sink import MANIFEST, Sink
from pipelines.stores import storage

FORMAT, EXPORT = 1, "_EXPORT.json"
ROWS = 4096  # in memory at a time
MASK = 0xA282EAD8  # of TFRecord: a checksum of checksums would be weak
DAYS, SECONDS = "day", {"s": "second", "ms": "millisecond", "us": "microsecond", "ns": "nanosecond"}
BYTES, FLOAT, INT = "bytes_list", "float_list", "int64_list"
NUMBER_OF = {BYTES: 1, FLOAT: 2, INT: 3}  # of the field in tf.train.Feature
Values = Iterable[bytes | None]  # encoded features of a column, one a row; None where the feature is absent


def export(source: str, to: str) -> dict[str, Any]:
    """Write the finished output at `source` into the directory `to`; returns what _EXPORT.json says.

    Doing it again does nothing; after an interruption it begins anew. Raises InvalidInput for unfinished output,
    InvalidData for a column that TFRecord has no room for, OutputExists when `to` holds something else.
    """
    sink, target = Sink(source), Sink(to)
    manifest = sink.manifest()
    if manifest is None:
        state = "is unfinished: run its job again first" if sink.job() else "holds no output of a job"
        raise InvalidInput(f"{storage.mask(source)} {state}; accepted is a directory with a {MANIFEST}")
    done = _already(target, to, manifest)
    if done is not None:
        return done
    with storage.explained(to):
        files: list[dict[str, Any]] = []
        features: dict[str, Any] = {}
        for shard in manifest["shards"]:
            file, features = _part(sink, target, shard)
            files.append(file)
        sidecar = {
            "format": FORMAT,
            "kind": "tfrecord",
            "rows": manifest["rows"],
            "features": features,
            "files": files,
            "source": {
                "path": storage.mask(source),
                "manifest": manifest["hash"],
                "status": manifest["status"],
            },
            "provenance": manifest["provenance"],
        }
        text = json.dumps(sidecar, indent=1, sort_keys=True, ensure_ascii=False)
        storage.put_bytes(target.filesystem, target.path(EXPORT), text.encode() + b"\n")
    return sidecar


def _already(target: Sink, to: str, manifest: Mapping[str, Any]) -> dict[str, Any] | None:
    """The sidecar of the same export done before; None where nothing, or its beginning, is."""
    listed = {target.path(_name(shard)) for shard in manifest["shards"]}
    with storage.explained(to):
        found = storage.list_files(target.filesystem, target.root)
        if target.path(EXPORT) in [info.path for info in found]:
            kept = dict(json.loads(storage.read_bytes(target.filesystem, target.path(EXPORT))))
            if kept.get("source", {}).get("manifest") == manifest["hash"]:
                return kept
            raise OutputExists(
                f"{storage.mask(to)} holds the export of another output "
                f"({kept.get('source', {}).get('path')}); choose another directory, or remove that one"
            )
    names = [info.path for info in found if not storage.is_temporary(info.path.rpartition("/")[2])]
    strange = sorted(set(names) - listed)
    if strange:
        raise OutputExists(
            f"{storage.mask(to)} is not empty ({strange[0]}); choose another directory, or empty it"
        )
    return None


def _name(shard: Mapping[str, Any]) -> str:
    return str(shard["file"]).removesuffix(".parquet") + ".tfrecord"


def _part(sink: Sink, target: Sink, shard: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """One file of the export, and the features of its columns."""
    digest, size = hashlib.sha256(), 0
    with sink.filesystem.open_input_file(sink.path(shard["file"])) as stream:
        parquet = pq.ParquetFile(stream)
        features = features_of(parquet.schema_arrow)
        with storage.open_whole(target.filesystem, target.path(_name(shard))) as out:
            for batch in parquet.iter_batches(batch_size=ROWS):
                data = b"".join(map(record, examples(batch)))
                out.write(data)
                digest.update(data)
                size += len(data)
    file = {"file": _name(shard), "rows": shard["rows"], "bytes": size, "sha256": digest.hexdigest()}
    return file | {"from": shard["file"], "from_sha256": shard["sha256"]}, features


# -- TFRecord and tf.train.Example -------------------------------------------------------------------------------
def record(data: bytes) -> bytes:
    """The framing of TFRecord: length, its masked CRC-32C, the data, its masked CRC-32C."""
    length = struct.pack("<Q", len(data))
    return length + _masked_crc(length) + data + _masked_crc(data)


def _masked_crc(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + MASK) & 0xFFFFFFFF)


def examples(batch: pa.RecordBatch) -> Iterator[bytes]:
    """Every row as the bytes of a tf.train.Example, its features in alphabetical order."""
    columns = sorted(_flat(batch.schema, batch), key=lambda column: column[0])
    keys = [_field(1, name.encode()) for name, _, _ in columns]
    encoded = [_column(name, kind, values) for name, kind, values in columns]
    for row in zip(*encoded, strict=True):
        entries = (
            _field(1, key + _field(2, value))
            for key, value in zip(keys, row, strict=True)
            if value is not None
        )
        yield _field(1, b"".join(entries))


def _field(number: int, data: bytes) -> bytes:
    """A field of a protocol buffer that has a length."""
    return bytes([number << 3 | 2]) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    found.append(value)
    return bytes(found)


def _feature(kind: str, packed: bytes) -> bytes:
    """tf.train.Feature around the contents of its list."""
    return _field(NUMBER_OF[kind], packed)


def _floats(values: np.ndarray) -> bytes:
    return _feature(FLOAT, _field(1, values.astype("<f4").tobytes()))


def _ints(values: np.ndarray) -> bytes:
    return _feature(INT, _field(1, _varints(values)))


def _varints(values: np.ndarray) -> bytes:
    """Seven bits a byte, the lowest first; negative numbers take ten bytes."""
    bits = values.astype(np.int64).view(np.uint64)
    if not len(bits):
        return b""
    shifts = np.arange(0, 70, 7, dtype=np.uint64)
    digits = (bits[:, None] >> shifts) & np.uint64(127)
    needed = 1 + (bits[:, None] >> shifts[1:] != 0).sum(1)
    place = np.arange(len(shifts))
    digits |= np.where(place + 1 < needed[:, None], np.uint64(128), np.uint64(0))
    return digits[place < needed[:, None]].astype(np.uint8).tobytes()


def _texts(values: Iterable[bytes | str]) -> bytes:
    parts = (value.encode() if isinstance(value, str) else value for value in values)
    return _feature(BYTES, b"".join(_field(1, part) for part in parts))


# -- columns -----------------------------------------------------------------------------------------------------
def features_of(schema: pa.Schema) -> dict[str, dict[str, Any]]:
    """Name -> {"list", "shape", "unit"?, "type"} of the features; shape []: one value, [null]: any number."""
    return {name: _describe(kind) for name, kind, _ in _flat(schema)}


def _flat(schema: pa.Schema, batch: pa.RecordBatch | None = None) -> Iterator[tuple[str, pa.DataType, Any]]:
    """Name, type and array (None without a batch) of the columns, structs taken apart."""
    for i, field in enumerate(schema):
        yield from _members(field.name, field.type, None if batch is None else batch.column(i))


def _members(name: str, kind: pa.DataType, values: Any) -> Iterator[tuple[str, pa.DataType, Any]]:
    if not pa.types.is_struct(kind):
        yield name, kind, values
        return
    parts = [None] * kind.num_fields if values is None else values.flatten()
    for member, part in zip(kind, parts, strict=True):
        yield from _members(f"{name}.{member.name}", member.type, part)


def _describe(kind: pa.DataType) -> dict[str, Any]:
    shape: list[int | None] = []
    value = kind
    if isinstance(kind, pa.FixedShapeTensorType):
        shape, value = list(kind.shape), kind.value_type
    elif pa.types.is_fixed_size_list(kind):
        shape, value = [kind.list_size], kind.value_type
    elif _is_list(kind):
        shape, value = [None], kind.value_type
    unit = _unit(value)
    return {"list": _encoder(value)[0], "shape": shape, "type": str(kind)} | ({"unit": unit} if unit else {})


def _is_list(kind: pa.DataType) -> bool:
    t = pa.types
    return bool(t.is_list(kind) or t.is_large_list(kind) or t.is_fixed_size_list(kind))


def _unit(kind: pa.DataType) -> str | None:
    if pa.types.is_date32(kind):
        return DAYS
    if pa.types.is_date64(kind):
        return SECONDS["ms"]
    return SECONDS[kind.unit] if pa.types.is_temporal(kind) else None


def _encoder(kind: pa.DataType) -> tuple[str, Callable[[Any], bytes]]:
    """The list that values of a type go into, and what encodes them."""
    t = pa.types
    if t.is_dictionary(kind):
        return _encoder(kind.value_type)
    if t.is_floating(kind):
        return FLOAT, _floats
    if t.is_integer(kind) or t.is_boolean(kind) or (t.is_temporal(kind) and not t.is_interval(kind)):
        return INT, _ints
    texts = (
        t.is_string,
        t.is_large_string,
        t.is_string_view,
        t.is_binary,
        t.is_large_binary,
        t.is_binary_view,
    )
    if any(known(kind) for known in (*texts, t.is_fixed_size_binary, t.is_decimal, t.is_null)):
        return BYTES, _texts
    raise InvalidData(
        f"found a column of type {kind}, for which TFRecord has no place; accepted are numbers, booleans, texts, "
        "bytes, times, decimals, tensors of fixed shape, and lists and structs of these"
    )


def _column(name: str, kind: pa.DataType, values: Any) -> Values:
    if isinstance(kind, pa.FixedShapeTensorType):
        return _tensors(name, kind, values)
    if _is_list(kind):
        return _lists(name, values)
    encode = _encoder(kind)[1]
    return (None if null else encode(part) for null, part in _parts(_plain(name, values), values))


def _parts(plain: Any, values: Any) -> Iterator[tuple[bool, Any]]:
    """Whether a row is null, and its value as an array of one."""
    nulls = values.is_null().to_numpy(zero_copy_only=False)
    return ((bool(null), plain[i : i + 1]) for i, null in enumerate(nulls))


def _lists(name: str, values: Any) -> Values:
    encode = _encoder(values.type.value_type)[1]
    for row in values:
        if not row.is_valid:
            yield None
        elif row.values.null_count:
            raise InvalidData(
                f"the column {name!r} has nulls inside its lists; TFRecord has no place for them"
            )
        else:
            yield encode(_plain(name, row.values))


def _tensors(name: str, kind: Any, values: Any) -> Values:
    if kind.permutation not in (None, list(range(len(kind.shape)))):
        raise InvalidData(
            f"the tensors of {name!r} are stored with permuted axes; write them in C order first"
        )
    return _lists(name, values.storage)


def _plain(name: str, values: Any) -> Any:
    """Values without dictionary, unit and null (0 in its place), as numpy array or list."""
    kind = values.type
    if pa.types.is_dictionary(kind):
        return _plain(name, values.dictionary_decode())
    listed, _ = _encoder(kind)
    if listed == BYTES:
        texts = values.to_pylist()
        return [str(text) for text in texts] if pa.types.is_decimal(kind) else texts
    if pa.types.is_temporal(kind):
        values = values.cast(pa.int32() if kind.bit_width == 32 else pa.int64())
    filled = values.fill_null(False if pa.types.is_boolean(kind) else 0)
    found = filled.to_numpy(zero_copy_only=False)
    if kind == pa.uint64() and len(found) and found.max() > np.iinfo(np.int64).max:
        raise InvalidData(f"the column {name!r} has numbers above 2^63 - 1; TFRecord holds 64 bits with sign")
    return found
