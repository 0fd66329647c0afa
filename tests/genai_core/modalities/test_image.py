"""Pictures: every kind of column there and back, every kind of bad input as a fault of its row."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from genai_core.errors import InvalidData, InvalidInput, MissingCapability, SchemaMismatch
from genai_core.hyperparameters import ImageSettings
from genai_core.modalities.image import ImageCodec
from genai_core.pictures.encoded import Unreadable, read
from genai_core.pictures.heat_maps import hottest_region

ROWS, HIGH, WIDE = 12, 6, 5
COLOUR = np.random.default_rng(0).integers(0, 256, (ROWS, HIGH, WIDE, 3)).astype(np.uint8)
GREY = COLOUR[..., 0]
LABELS = ["cat", "dog", "owl"] * 4


def encoded(pixels: np.ndarray | Image.Image, format_: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(out, format_, **options)
    return out.getvalue()


def tensors(pixels: np.ndarray, **names: object) -> pa.Array:
    return pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(pixels), **names)


def lists(pixels: np.ndarray) -> pa.Array:
    array = pa.array(pixels.ravel())
    for size in reversed(pixels.shape[1:]):
        array = pa.FixedSizeListArray.from_arrays(array, size)
    return array


PNGS = [encoded(p) for p in COLOUR]
COLUMNS: dict[str, Callable[[], pa.Array]] = {
    "bytes": lambda: pa.array(PNGS),
    "large_binary": lambda: pa.array(PNGS, pa.large_binary()),
    "struct": lambda: pa.array([{"bytes": data, "path": None} for data in PNGS]),
    "hwc": lambda: tensors(COLOUR),
    "chw": lambda: tensors(COLOUR.transpose(0, 3, 1, 2)),
    "named": lambda: tensors(COLOUR.transpose(0, 3, 1, 2), dim_names=["channel", "height", "width"]),
    "float": lambda: tensors((COLOUR / 255).astype(np.float32)),
    "uint16": lambda: tensors(COLOUR.astype(np.uint16) * 257),
    "lists": lambda: lists(COLOUR),
}


def fitted(column: pa.Array, label: bool = False, **choices: object) -> tuple[ImageCodec, pa.Table]:
    table = pa.table({"picture": column} | ({"kind": LABELS} if label else {}))
    how = ImageSettings(label="kind" if label else None, **choices)
    return ImageCodec.fit(table.to_batches(max_chunksize=5), table.schema, how), table


@pytest.mark.parametrize("kind", COLUMNS)
def test_pictures_come_back_as_they_were_read(kind: str, tmp_path: Path) -> None:
    codec, table = fitted(COLUMNS[kind](), label=True)
    records = codec.encode(table)
    assert not records.faults and codec.space.fields == ("kind", "picture")
    assert codec.space.class_names == tuple(sorted(set(table["kind"].to_pylist())))
    assert np.array_equal(codec.pixels(records.tokens), COLOUR.transpose(0, 3, 1, 2))
    assert records.tokens[:, 0].tolist() == [0, 1, 2] * 4
    decoded = codec.decode(records.tokens, np.random.default_rng(0))
    assert decoded.schema.equals(table.schema) and decoded.schema.equals(codec.schema)
    assert kind in ("bytes", "large_binary", "struct", "float") or decoded.equals(table)
    pq.write_table(decoded, tmp_path / "x.parquet")
    again = pq.read_table(tmp_path / "x.parquet")
    assert again.equals(decoded) and np.array_equal(codec.encode(again).tokens, records.tokens)


@pytest.mark.parametrize("kind", COLUMNS)
def test_a_state_comes_back(kind: str) -> None:
    codec, table = fitted(COLUMNS[kind](), label=True)
    state, arrays = codec.state()
    again = ImageCodec.from_state(json.loads(json.dumps(state)), arrays)
    assert again.fingerprint == codec.fingerprint and again.schema == codec.schema
    assert np.array_equal(again.encode(table).tokens, codec.encode(table).tokens)


@pytest.mark.parametrize("output", ["png", "tensor", "same"])
@pytest.mark.parametrize("kind", COLUMNS)
def test_size_colour_and_output_as_asked_for(kind: str, output: str) -> None:
    codec, table = fitted(COLUMNS[kind](), size=(4, 7), colour="grey", output=output)
    assert codec.space.shape == (1, 4, 7)
    decoded = codec.decode(codec.encode(table).tokens, np.random.default_rng(0))
    assert decoded.schema == codec.schema
    assert np.array_equal(codec.encode(decoded).tokens, codec.encode(table).tokens)
    written = decoded.schema.field(0).type
    assert output != "png" or pa.types.is_binary(written) or kind in ("large_binary", "struct")
    assert output != "tensor" or (written.shape == [4, 7] and written.value_type == pa.uint8())


def test_a_flat_list_is_a_grey_square_and_grey_has_no_channel_axis() -> None:
    flat = pa.FixedSizeListArray.from_arrays(pa.array(GREY[:, :5].ravel()), 25)
    assert fitted(flat)[0].space.shape == (1, 5, 5)
    assert fitted(tensors(GREY))[0].space.shape == (1, HIGH, WIDE)
    assert fitted(tensors(GREY[..., None]))[0].space.shape == (1, HIGH, WIDE)


@pytest.mark.parametrize("levels", [2, 3, 7, 255, 256])
def test_levels_are_kept_when_written(levels: int) -> None:
    codec, table = fitted(pa.array([encoded(p) for p in GREY]), levels=levels)
    tokens = codec.encode(table).tokens
    assert tokens.max() < levels
    assert np.array_equal(codec.encode(codec.decode(tokens, np.random.default_rng(0))).tokens, tokens)


def several(format_: str) -> bytes:
    frames = [Image.fromarray(p) for p in GREY[:3]]
    return encoded(frames[0], format_, save_all=True, append_images=frames[1:])


def bomb() -> bytes:
    """A PNG of 40,000 x 40,000 in a hundred bytes."""
    head = b"IHDR" + struct.pack(">IIBBBBB", 40_000, 40_000, 8, 0, 0, 0, 0)
    parts = [head, b"IDAT" + zlib.compress(b""), b"IEND"]
    framed = [struct.pack(">I", len(p) - 4) + p + struct.pack(">I", zlib.crc32(p)) for p in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


NOISE = Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64, 3)).astype(np.uint8))
LARGE = encoded(NOISE)
BAD: dict[str, tuple[bytes | None, str]] = {
    "null": (None, "missing"),
    "empty": (b"", "empty"),
    "text": (b"no picture at all", "no picture"),
    "cut": (LARGE[: len(LARGE) // 2], "truncated"),
    "cut jpeg": (encoded(NOISE, "JPEG")[:1500], "truncated"),
    "animation": (several("GIF"), "animated"),
    "pages": (several("TIFF"), "animated"),
    "bomb": (bomb(), "too large"),
    "floats": (encoded(Image.fromarray(GREY[0].astype(np.float32)), "TIFF"), "unsupported pixels"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_read_is_a_fault_of_its_row_alone(name: str) -> None:
    codec, _ = fitted(COLUMNS["bytes"]())
    records = codec.encode(pa.table({"picture": pa.array([PNGS[0], BAD[name][0], PNGS[1]])}))
    assert list(records.faults) == [1] and records.faults[1].startswith(BAD[name][1] + ":")
    assert np.array_equal(codec.pixels(records.tokens)[[0, 2]], COLOUR[:2].transpose(0, 3, 1, 2))


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_damaged_bytes_in_the_middle_are_faults_or_pictures_but_no_errors(format_: str) -> None:
    random, data = np.random.default_rng(3), encoded(NOISE, format_)
    for _ in range(12):
        broken = bytearray(data)
        for place in random.integers(2, len(data), 6):
            broken[place] ^= int(random.integers(1, 256))
        try:
            assert read(bytes(broken)).mode in ("L", "RGB")
        except Unreadable as reason:
            assert ":" in str(reason)


HEADS = [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"BM", b"II*\0"]


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=64), st.sampled_from(HEADS))
def test_any_bytes_are_a_fault_or_a_picture(data: bytes, head: bytes) -> None:
    try:
        assert read(head + data).mode in ("L", "RGB")
    except Unreadable as reason:
        assert ":" in str(reason)


def test_other_modes_are_converted() -> None:
    assert read(encoded(Image.fromarray(COLOUR[0]).convert("CMYK"), "JPEG")).mode == "RGB"
    deep = np.array([[0, 257, 65535]], np.uint16)
    assert np.asarray(read(encoded(deep))).tolist() == [[0, 1, 255]], "scaled, not clipped"
    assert np.asarray(read(encoded(GREY[0] > 99))).tolist() == ((GREY[0] > 99) * 255).tolist()
    clear = np.dstack([GREY[0], np.zeros_like(GREY[0])])
    assert (np.asarray(read(encoded(clear))) == 255).all(), "what is transparent is white"
    assert read(encoded(Image.fromarray(COLOUR[0]).quantize(256))).mode == "RGB"
    assert read(encoded(Image.fromarray(GREY[0]).convert("P"))).mode == "L", "a palette of greys"


def test_pictures_are_turned_upright() -> None:
    image = Image.fromarray(COLOUR[0])
    exif = image.getexif()
    exif[0x0112] = 6
    assert read(encoded(image, "PNG", exif=exif)).size == (HIGH, WIDE)


@pytest.mark.parametrize("policy", ["resize", "pad", "skip"])
def test_pictures_of_another_size(policy: str) -> None:
    codec, _ = fitted(COLUMNS["bytes"](), other_sizes=policy)
    records = codec.encode(pa.table({"picture": [encoded(np.full((9, 30, 3), 200, np.uint8)), PNGS[0]]}))
    if policy == "skip":
        assert records.faults == {0: f"other size: 9 x 30, not {HIGH} x {WIDE}"}
    else:
        first = codec.pixels(records.tokens)[0]
        assert not records.faults and first.max() == 200 and (first.min() == 0) == (policy == "pad")


def test_floats_outside_of_0_to_1_and_holes_are_faults() -> None:
    pixels = (COLOUR / 255).astype(np.float32)
    codec, table = fitted(tensors(pixels))
    odd = pixels[:3].copy()
    odd[0] = odd[0] * 2 - 1
    odd[1, 0, 0, 0] = np.nan
    assert sorted(codec.encode(pa.table({"picture": tensors(odd)})).faults) == [0, 1]
    assert codec.encode(table.take(pa.array([0, None, 2]))).faults == {1: "missing: null"}
    part = codec.encode(table.slice(4, 3)).tokens
    assert np.array_equal(part, codec.encode(table).tokens[4:7])


def test_labels_that_are_missing_or_unknown_are_faults() -> None:
    codec, _ = fitted(COLUMNS["bytes"](), label=True)
    faults = codec.encode(pa.table({"picture": PNGS[:3], "kind": ["owl", None, "yak"]})).faults
    assert sorted(faults) == [1, 2]
    with pytest.raises(InvalidInput, match="did you mean 'owl'"):
        codec.given({"kind": "owll"})
    with pytest.raises(MissingCapability, match="writes pictures"):
        codec.given({}, prompt="a cat")


def test_what_cannot_be_learnt_is_said() -> None:
    with pytest.raises(InvalidData, match=r"none of the 12 pictures .* 11 truncated, 1 missing"):
        fitted(pa.array([LARGE[:3000]] * 11 + [None]))
    with pytest.raises(InvalidData, match="no column can hold pictures"):
        fitted(pa.array(["text"] * ROWS))
    with pytest.raises(InvalidData, match="found 3"):
        fitted(pa.array(PNGS[:3]))
    codec, _ = fitted(COLUMNS["bytes"]())
    with pytest.raises(SchemaMismatch, match="'picture' is string"):
        codec.encode(pa.table({"picture": ["a"]}))


def test_unreadable_pictures_at_the_beginning_do_not_decide_the_size() -> None:
    codec, _ = fitted(pa.array([None, b"", *PNGS[2:]]))
    assert codec.space.shape == (3, HIGH, WIDE)


def test_explanations_name_the_hottest_region() -> None:
    codec, table = fitted(COLUMNS["bytes"](), label=True)
    heat = np.zeros((ROWS, codec.space.entries), np.float32)
    heat[:, 1:].reshape(ROWS, 3, HIGH, WIDE)[:, :, 2:4, 3] = 5
    heat[:, 0] = 1
    found = codec.explain(table, heat)
    assert found["why"][0][0]["column"] == "picture" and found["why"][0][0]["nats"] == 30
    assert found["why"][0][0]["value"] == "100 % in rows 2-3, columns 3-3"
    assert found["why"][1][1] == {"column": "kind", "nats": 1.0, "value": "dog"}
    drawn = np.asarray(Image.open(io.BytesIO(found["heat_map"][0])))
    assert drawn.shape == (HIGH, WIDE) and drawn[2, 3] == 255 and drawn.sum() == 2 * 255
    assert codec.explain(table, None)["why"] == [None] * ROWS
    assert hottest_region(np.zeros((4, 4))) == "nowhere more than elsewhere"
