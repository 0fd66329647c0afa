"""Arrow columns that hold pictures: encoded bytes, bytes in a struct, or tensors; each is read and written"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.types as pt
from PIL import Image

from genai_core.pictures.encoded import Frame, Unreadable, image_of, placed, plain, png, read

BYTES = "bytes"  # the field of a struct that holds the picture, as Hugging Face's datasets write it
SCALE = {"uint8": 1, "uint16": 257}  # of a whole number for one of 256 levels; floats lie in 0 .. 1
LAYOUTS = {2: ("HW",), 3: ("HWC", "CHW")}
CHANNELS = (1, 2, 3, 4)  # grey, with alpha; RGB, with alpha

Found = tuple[np.ndarray, dict[int, str]]  # uint8 (rows, channels, height, width); row -> fault


@dataclass(frozen=True)
class Tensors:
    """How pictures stand in a tensor column: `axes` is HW, HWC or CHW, in the order of `shape`."""

    value: pa.DataType
    shape: tuple[int, ...]
    axes: str

    def length(self, axis: str) -> int:
        """Of one axis; a grey picture without channel axis has one channel."""
        return self.shape[self.axes.index(axis)] if axis in self.axes else 1

    def type(self) -> pa.DataType:
        """An Arrow type for such tensors, which every pyarrow reads."""
        return pa.fixed_shape_tensor(self.value, self.shape, dim_names=list(self.axes))


def is_encoded(kind: pa.DataType) -> bool:
    """Whether a column of a type can hold encoded pictures by themselves."""
    return pt.is_binary(kind) or pt.is_large_binary(kind) or pt.is_binary_view(kind)


def is_struct(kind: pa.DataType) -> bool:
    """Whether it is a struct with encoded pictures under `bytes`."""
    return pt.is_struct(kind) and any(f.name == BYTES and is_encoded(f.type) for f in kind.fields)


def tensors_of(kind: pa.DataType) -> Tensors | None:
    """How pictures stand in a column; None when it holds no picture tensors.

    A fixed-shape tensor says it by the names of its dimensions (C, H, W, or words that begin so), or else by where
    an axis of 1 to 4 channels stands: last (H x W x C), or first (C x H x W). Lists of lists of fixed size are read
    alike, from the outermost to the innermost; a flat list of n numbers is a grey square of n = H x H.
    """
    if isinstance(kind, pa.FixedShapeTensorType):
        order = kind.permutation or range(len(kind.shape))
        logical = tuple(kind.shape[i] for i in order)
        names = [kind.dim_names[i] for i in order] if kind.dim_names else None
        axes = _named(names, logical) if names else _guessed(logical)
        physical = {place: axes[i] for i, place in enumerate(order)} if axes else {}
        return _checked(kind.value_type, tuple(kind.shape), "".join(physical[i] for i in sorted(physical)))
    shape: list[int] = []
    while pt.is_fixed_size_list(kind):
        shape.append(kind.list_size)
        kind = kind.value_type
    if len(shape) == 1 and math.isqrt(shape[0]) ** 2 == shape[0] > 1:
        shape = [math.isqrt(shape[0])] * 2
    return _checked(kind, tuple(shape), _guessed(shape) or "")


def _checked(value: pa.DataType, shape: tuple[int, ...], axes: str) -> Tensors | None:
    able = str(value) in SCALE or pt.is_floating(value)
    return Tensors(value, shape, axes) if able and axes and min(shape) > 0 else None


def _named(names: Sequence[str], shape: Sequence[int]) -> str | None:
    axes = "".join(name[:1].upper() for name in names)
    fits = axes in LAYOUTS.get(len(shape), ())
    return (axes if "C" not in axes or shape[axes.index("C")] in CHANNELS else None) if fits else None


def _guessed(shape: Sequence[int]) -> str | None:
    fitting = [a for a in LAYOUTS.get(len(shape), ()) if "C" not in a or shape[a.index("C")] in CHANNELS]
    return fitting[0] if fitting else None


def holds_pictures(kind: pa.DataType) -> bool:
    """Whether a column of a type can hold pictures."""
    return is_encoded(kind) or is_struct(kind) or tensors_of(kind) is not None


def images(column: pa.Array) -> Iterator[Image.Image | Unreadable]:
    """Every picture of a column as grey or RGB, or why it cannot be read."""
    layout = tensors_of(column.type)
    if layout is None:
        yield from map(_read_one, _encoded(column))
        return
    for pixels, fault in zip(*_tensor_pixels(column, layout), strict=True):
        yield Unreadable(fault) if fault else plain(_image_of_any(pixels))


def _encoded(column: pa.Array) -> Iterator[bytes | None]:
    if pt.is_struct(column.type):
        valid = column.is_valid().to_pylist()
        column = column.field(BYTES)
        yield from (v.as_py() if fine else None for v, fine in zip(column, valid, strict=True))
    else:
        yield from (value.as_py() for value in column)


def _read_one(data: bytes | None) -> Image.Image | Unreadable:
    if data is None:
        return Unreadable("missing: null")
    try:
        return read(data)
    except Unreadable as reason:
        return reason


def _image_of_any(pixels: np.ndarray) -> Image.Image:
    """uint8 (1 to 4, height, width)."""
    last = np.ascontiguousarray(pixels.transpose(1, 2, 0))
    return Image.fromarray(last[..., 0] if last.shape[2] == 1 else last)


def _tensor_pixels(column: pa.Array, layout: Tensors) -> tuple[np.ndarray, list[str]]:
    """uint8 (rows, channels, height, width), and a fault or an empty string for every row."""
    missing = column.is_null().to_numpy(zero_copy_only=False)
    values = column.storage if isinstance(column, pa.ExtensionArray) else column
    while pt.is_fixed_size_list(values.type):
        size = values.type.list_size
        values = values.values.slice(values.offset * size, len(values) * size)
    holes = values.is_null().to_numpy(zero_copy_only=False).reshape(len(column), -1).any(1)
    raw = values.fill_null(0) if values.null_count else values
    rows = raw.to_numpy(zero_copy_only=False).reshape(len(column), *layout.shape)
    if "C" not in layout.axes:
        rows = rows[:, None]
    elif layout.axes == "HWC":
        rows = rows.transpose(0, 3, 1, 2)
    pixels, odd = _as_bytes(rows, layout.value)
    faults = [""] * len(column)
    for row in np.flatnonzero(missing | holes | odd).tolist():
        faults[row] = "missing: null" if missing[row] or holes[row] else _range_fault(rows[row])
    return pixels, faults


def _as_bytes(rows: np.ndarray, value: pa.DataType) -> tuple[np.ndarray, np.ndarray]:
    """As 0 .. 255, and which rows have a number outside of the type's range."""
    fine = np.zeros(len(rows), bool)
    if str(value) == "uint8":
        return rows, fine
    if str(value) == "uint16":
        return np.rint(rows.astype(np.float32) / SCALE["uint16"]).astype(np.uint8), fine
    with np.errstate(invalid="ignore"):
        inside = np.asarray(((rows >= 0) & (rows <= 1)).all((1, 2, 3)))  # False for what is no number
        scaled = np.where(inside[:, None, None, None], rows, 0).astype(np.float32) * 255
    return np.rint(scaled).astype(np.uint8), ~inside


def _range_fault(pixels: np.ndarray) -> str:
    return f"out of range: floats from {pixels.min():.4g} to {pixels.max():.4g}; 0 to 1 is accepted"


def read_column(column: pa.Array, frame: Frame) -> Found:
    """All pictures, brought to one frame."""
    layout = tensors_of(column.type)
    if layout is not None and tuple(layout.length(a) for a in "CHW") == frame.shape:
        pixels, reasons = _tensor_pixels(column, layout)
        return pixels, {row: reason for row, reason in enumerate(reasons) if reason}
    found, faults = np.zeros((len(column), *frame.shape), np.uint8), {}
    for row, image in enumerate(images(column)):
        try:
            if isinstance(image, Unreadable):
                raise image
            found[row] = placed(image, frame)
        except Unreadable as reason:
            faults[row] = str(reason)
    return found, faults


def written_type(kind: pa.DataType, output: str, frame: Frame) -> pa.DataType:
    """Of the column that pictures are written to: as they were read where that is possible.

    output: same, png or tensor. Tensors of another size than those that were read have a type of their own.
    """
    layout = tensors_of(kind)
    if output == "png" or (output == "same" and layout is None):
        return kind if layout is None else pa.binary()
    if output == "same" and layout is not None:
        if tuple(layout.length(a) for a in "CHW") == frame.shape:
            return kind
        axes, value = ("HWC" if frame.channels > 1 else "HW", layout.value)
        axes = layout.axes if "C" in layout.axes else axes
    else:
        axes, value = ("HWC" if frame.channels > 1 else "HW", pa.uint8())
    lengths = dict(zip("CHW", frame.shape, strict=True))
    return Tensors(value, tuple(lengths[a] for a in axes), axes).type()


def write_column(pixels: np.ndarray, kind: pa.DataType) -> pa.Array:
    """A column of a type, from uint8 (rows, channels, height, width)."""
    layout = tensors_of(kind)
    if layout is not None:
        return _write_tensors(pixels, kind, layout)
    encoded = [png(image_of(picture)) for picture in pixels]
    if not pt.is_struct(kind):
        return pa.array(encoded, kind)
    columns = [
        pa.array(encoded, f.type) if f.name == BYTES else pa.nulls(len(pixels), f.type) for f in kind.fields
    ]
    return pa.StructArray.from_arrays(columns, fields=list(kind.fields))


def _write_tensors(pixels: np.ndarray, kind: pa.DataType, layout: Tensors) -> pa.Array:
    order = {"HW": (0, 2, 3, 1), "HWC": (0, 2, 3, 1), "CHW": (0, 1, 2, 3)}[layout.axes]
    values = np.ascontiguousarray(pixels.transpose(order)).reshape(-1)
    if pt.is_floating(layout.value):
        array = pa.array((values / np.float32(255)).astype(layout.value.to_pandas_dtype()), layout.value)
    else:
        array = pa.array(values.astype(layout.value.to_pandas_dtype()) * SCALE[str(layout.value)])
    storage = kind.storage_type if isinstance(kind, pa.FixedShapeTensorType) else kind
    array = _nested(array, storage)
    return pa.ExtensionArray.from_storage(kind, array) if isinstance(kind, pa.FixedShapeTensorType) else array


def _nested(values: pa.Array, kind: pa.DataType) -> pa.Array:
    if not pt.is_fixed_size_list(kind):
        return values
    return pa.FixedSizeListArray.from_arrays(_nested(values, kind.value_type), type=kind)
