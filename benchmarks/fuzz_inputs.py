"""Hostile inputs for the fuzzer: real files of every format, and what damages them

Everything is drawn from a `random.Random` or by hypothesis, so that a seed gives the same inputs again.
"""

from __future__ import annotations

import datetime
import decimal
import gzip
import io
import json
import struct
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
from hypothesis import strategies as st
from PIL import Image

INTERESTING = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**60, 2**63 - 1, 2**64 - 1)
WIDTHS = {1: "B", 2: "H", 4: "I", 8: "Q"}
NASTY_TEXTS = (
    "", " ", "\0", "a\0b", "\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\u202egnp.exe", "\ud800", "\ufeff",
    "\n", "a\rb", "../../etc/passwd", "/etc/passwd", "..", ".", "~", "~nobody/x", "~nosuchuser/x",
    "a" * 300 + ".json", "{\"class_name\": [], \"config\": {}}", "file:///etc/passwd", "a" * 300,
    "a/" * 200, "x*[?", "{0.__class__}", "{slot}", "{slot:%s}", "{slot-999999w}", "%s%n%x", "${HOME}",
    "$(id)", "`id`", "'; DROP TABLE x;--", "<script>alert(1)</script>", "=cmd|'/c calc'!A0",
    "__import__('os').system('id')", "NaN", "inf", "1e999", "-0", "models:/x@y@z", "models:/", "runs:/",
    "models:/../..", "null", "true", "\U0001f4a3", "ﬀ", "İ", "month=1", "a.b.c",
)  # fmt: skip


def mutated(data: bytes, random: Random, others: list[bytes]) -> bytes:
    """One to eight changes: bits, numbers, ranges removed, doubled or moved, a cut, a splice with another input."""
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 4, 8))):
        random.choice(CHANGES)(changed, random, others)
    return bytes(changed)


def in_place(data: bytes, random: Random) -> bytes:
    """The same length with one to four numbers or bits changed: what points into the data still points there."""
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        if random.random() < 0.6:
            _flip(changed, random, [])
        else:
            _number(changed, random, [])
    return bytes(changed[: len(data)])


def _flip(data: bytearray, random: Random, others: list[bytes]) -> None:
    if data:
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)


def _number(data: bytearray, random: Random, others: list[bytes]) -> None:
    width = random.choice(tuple(WIDTHS))
    at = random.randrange(max(len(data) - width, 0) + 1)
    value = random.choice(INTERESTING) & (2 ** (8 * width) - 1)
    data[at : at + width] = struct.pack(random.choice("<>") + WIDTHS[width], value)


def _remove(data: bytearray, random: Random, others: list[bytes]) -> None:
    at = random.randrange(len(data) + 1)
    del data[at : at + random.randrange(1, 64)]


def _double(data: bytearray, random: Random, others: list[bytes]) -> None:
    at = random.randrange(len(data) + 1)
    data[at:at] = data[at : at + random.randrange(1, 64)] * random.choice((1, 2, 16))


def _cut(data: bytearray, random: Random, others: list[bytes]) -> None:
    del data[random.randrange(len(data) + 1) :]


def _insert(data: bytearray, random: Random, others: list[bytes]) -> None:
    data[(at := random.randrange(len(data) + 1)) : at] = random.randbytes(random.randrange(1, 32))


def _splice(data: bytearray, random: Random, others: list[bytes]) -> None:
    other = random.choice(others)
    data[random.randrange(len(data) + 1) :] = other[random.randrange(len(other) + 1) :]


CHANGES = (_flip, _flip, _flip, _number, _number, _remove, _double, _cut, _insert, _splice)


def reworded(text: str, random: Random, words: list[str]) -> str:
    """A text with words put in, lines moved, removed and doubled: what a person's editor may leave behind."""
    lines = text.splitlines(keepends=True) or [""]
    for _ in range(random.randrange(1, 5)):
        line = random.randrange(len(lines))
        kind = random.randrange(5)
        if kind == 0:
            lines.insert(line, lines[random.randrange(len(lines))])
        elif kind == 1 and len(lines) > 1:
            del lines[line]
        elif kind == 2:
            lines[line] = " " * random.randrange(9) + lines[line].lstrip()
        else:
            at = random.randrange(len(lines[line]) + 1)
            lines[line] = lines[line][:at] + random.choice(words) + lines[line][at + random.randrange(4) :]
    return "".join(lines)


# -- values ----------------------------------------------------------------------------------------------------


def values(depth: int = 3) -> st.SearchStrategy[Any]:
    """Any JSON-able value, wrong types and sizes above all."""
    numbers = st.one_of(
        st.integers(), st.sampled_from([*INTERESTING, -1, 10**30, 10**400]), st.floats(), st.booleans()
    )
    plain = st.one_of(st.none(), numbers, st.sampled_from(NASTY_TEXTS), st.text(max_size=20))
    return st.recursive(
        plain,
        lambda inner: st.one_of(
            st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)
        ),
        max_leaves=2**depth,
    )


def replaced(base: Any, random: Random, value: Any) -> Any:
    """A copy of a JSON-able value in which one place holds `value`, is gone, or stands under another name."""
    if not isinstance(base, dict | list) or not base or random.random() < 0.1:
        return value
    copy: Any = dict(base) if isinstance(base, dict) else list(base)
    place = random.choice(list(copy) if isinstance(copy, dict) else range(len(copy)))
    if random.random() < 0.75:
        copy[place] = replaced(copy[place], random, value)
    elif isinstance(copy, dict) and random.random() < 0.5:
        copy[str(value)[:50]] = copy.pop(place)
    else:
        del copy[place]
    return copy


# -- files -----------------------------------------------------------------------------------------------------


def table(rows: int, random: Random) -> pa.Table:
    """Of the types that lakes are made of."""
    day = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    times = [day + datetime.timedelta(hours=random.randrange(9999)) for _ in range(rows)]
    return pa.table(
        {
            "number": [random.gauss(0, 1) for _ in range(rows)],
            "whole": pa.array([random.choice((None, 1, 5, 99)) for _ in range(rows)], pa.int32()),
            "text": [random.choice(("red", "green", "", "\x1b[31m", "日本")) for _ in range(rows)],
            "time": pa.array(times, pa.timestamp("us", tz="UTC")),
            "flag": [random.random() < 0.5 for _ in range(rows)],
            "price": pa.array([decimal.Decimal(random.randrange(9999)) for _ in range(rows)], pa.decimal128(9, 2)),
            "kind": pa.array([random.choice("ab") for _ in range(rows)]).dictionary_encode(),
        }
    )  # fmt: skip


def parquet_files(random: Random) -> list[bytes]:
    """Small files with every compression, with and without dictionaries, checksums, page indexes, nesting."""
    plain = table(40, random)
    nested = pa.table(
        {"list": [[1, 2], None, []] * 5, "struct": [{"a": 1, "b": "x"}] * 15, "number": range(15)}
    )
    found = []
    for number, compression in enumerate(("none", "snappy", "gzip", "zstd", "lz4", "brotli", "none", "none")):
        for content in (plain, nested):
            sink = io.BytesIO()
            pq.write_table(
                content, sink, compression=compression, use_dictionary=bool(number % 2), row_group_size=16,
                write_page_checksum=number == 4, write_page_index=number > 3, store_schema=number % 3 != 0,
                data_page_version=("1.0", "2.0")[number % 2],
            )  # fmt: skip
            found.append(sink.getvalue())
    return found


def text_files(random: Random) -> dict[str, list[bytes]]:
    """Small CSV, JSON lines and text, plain and gzipped."""
    rows = [
        {"a": random.randrange(99), "b": random.random(), "c": random.choice(("x", "ü", ""))}
        for _ in range(30)
    ]
    csv = "a,b,c\n" + "".join(f'{r["a"]},{r["b"]},"{r["c"]}"\n' for r in rows)
    jsonl = "".join(json.dumps(row | {"d": {"e": row["a"], "f": [1]}}) + "\n" for row in rows)
    text = "".join(f"{row['c']} and {row['a']}\r\n" for row in rows)
    found = {"csv": csv.encode(), "jsonl": jsonl.encode(), "text": text.encode()}
    return {kind: [data, gzip.compress(data, mtime=0)] for kind, data in found.items()}


def pictures(random: Random) -> list[bytes]:
    """Small pictures of every format and pixel type that is read."""
    pixels = np.frombuffer(random.randbytes(16 * 12 * 4), np.uint8).reshape(16, 12, 4)
    picture, found = Image.fromarray(pixels, "RGBA"), []
    forms = [
        ("PNG", "RGBA", {}), ("PNG", "L", {}), ("PNG", "P", {}), ("PNG", "1", {}), ("PNG", "I;16", {}),
        ("JPEG", "RGB", {}), ("JPEG", "RGB", {"progressive": True}), ("JPEG", "CMYK", {}), ("GIF", "P", {}),
        ("WEBP", "RGBA", {}), ("WEBP", "RGB", {"lossless": True}), ("BMP", "RGB", {}), ("TIFF", "RGB", {}),
        ("TIFF", "L", {"compression": "tiff_lzw"}), ("TIFF", "RGB", {"compression": "jpeg"}), ("PPM", "RGB", {}),
        ("AVIF", "RGB", {}), ("JPEG2000", "RGB", {}),
    ]  # fmt: skip
    for form, mode, options in forms:
        sink = io.BytesIO()
        picture.convert("L").convert(mode) if mode == "I;16" else None
        (picture.convert("L") if mode == "I;16" else picture).convert(mode).save(sink, form, **options)
        found.append(sink.getvalue())
    return found


def sounds(random: Random) -> list[bytes]:
    """Short clips of every format that is read."""
    clip = np.array([random.gauss(0, 0.2) for _ in range(1600)], np.float32)
    forms = [
        ("WAV", "PCM_16", 8000), ("WAV", "PCM_24", 44_100), ("WAV", "FLOAT", 8000), ("FLAC", "PCM_16", 8000),
        ("OGG", "VORBIS", 8000), ("OGG", "OPUS", 48_000), ("MP3", "MPEG_LAYER_III", 16_000), ("AIFF", "PCM_16", 8000),
    ]  # fmt: skip
    found = []
    for form, subtype, rate in forms:
        sink = io.BytesIO()
        soundfile.write(sink, clip, rate, format=form, subtype=subtype)
        found.append(sink.getvalue())
    return found


# -- schemas ---------------------------------------------------------------------------------------------------

NAMES = (
    "a",
    "b",
    "",
    " ",
    "a.b",
    "\x1b[31m",
    "__row__",
    "null",
    "<b>",
    "a\0b",
    "x" * 300,
    "source_file",
    "{0.__class__}",
)
PLAIN_TYPES = (
    pa.int8(), pa.uint64(), pa.float16(), pa.float64(), pa.string(), pa.large_string(), pa.string_view(), pa.binary(),
    pa.binary(4), pa.bool_(), pa.null(), pa.date32(), pa.date64(), pa.time32("ms"), pa.time64("ns"), pa.timestamp("ns"),
    pa.timestamp("us", "America/New_York"), pa.timestamp("ms", "+05:30"), pa.duration("s"), pa.decimal128(38, 10),
    pa.decimal256(60, 3), pa.month_day_nano_interval(), pa.uuid(), pa.json_(),
)  # fmt: skip


def odd_type(random: Random, depth: int = 0) -> pa.DataType:
    """Plain, or nested up to four deep."""
    if depth > 3 or random.random() < 0.8:
        return random.choice(PLAIN_TYPES)
    inner = odd_type(random, depth + 1)
    return random.choice(
        (
            lambda: pa.list_(inner),
            lambda: pa.list_(inner, 3),
            lambda: pa.struct([("x", inner), ("bytes", pa.binary())]),
            lambda: pa.map_(pa.string(), inner),
            lambda: pa.dictionary(pa.int8(), random.choice((pa.string(), pa.int64(), pa.float64(), pa.binary()))),
            lambda: pa.fixed_shape_tensor(random.choice((pa.uint8(), pa.float32())), (2, 3)),
        )
    )()  # fmt: skip


def odd_table(random: Random) -> pa.Table:
    """Nulls and extremes of odd types; names that occur twice, or are none; sometimes no row, or 2,000 columns."""
    width = random.choice((0, 1, 2, 3, 5, 8)) if random.random() < 0.99 else 2000
    rows = random.choice((0, 1, 9, 12, 30, 30, 30, 60))
    fields, arrays = [], []
    for _ in range(width):
        name = random.choice(NAMES) if random.random() < 0.4 else f"c{random.randrange(9999)}"
        array = odd_array(odd_type(random), rows, random)
        fields.append(pa.field(name, array.type, metadata={"k": "\x1b"} if random.random() < 0.1 else None))
        arrays.append(array)
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def odd_array(kind: pa.DataType, rows: int, random: Random) -> pa.Array:
    """Rows of a type, from raw memory where the type allows it."""
    if random.random() < 0.15 or pa.types.is_nested(kind):
        return pa.nulls(rows, kind)
    if pa.types.is_dictionary(kind):
        return (
            pa.array(["1", None, "2"] * rows, pa.string())
            .slice(0, rows)
            .cast(kind.value_type)
            .dictionary_encode()
            .cast(kind)
        )
    if pa.types.is_string(kind):
        return pa.array(
            [random.choice(("", "a", "b", "\x1b[2J", "<script>", "=1+1", None)) for _ in range(rows)], kind
        )
    try:
        width = kind.bit_width // 8
        return pa.Array.from_buffers(
            kind, rows, [None, pa.py_buffer(random.randbytes(max(width, 1) * (rows + 1)))]
        )
    except (ValueError, NotImplementedError, pa.ArrowException):
        return pa.nulls(rows, kind)
