"""Pictures: encoded bytes or tensors of one column, as a grid of levels; perhaps with a label"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from genai_core.codec import MIN_ROWS, whole
from genai_core.errors import InvalidData
from genai_core.hyperparameters import ImageSettings, Pictures
from genai_core.payload import Classes, PayloadCodec, look_through, whole_array
from genai_core.pictures.columns import (
    holds_pictures,
    images,
    read_column,
    write_column,
    written_type,
)
from genai_core.pictures.encoded import Frame, Unreadable, bombs_refused
from genai_core.pictures.heat_maps import heat_map, hottest_region
from genai_core.spaces import Grid, Records

HEAT_MAP = "heat_map"
MAX_SIDE = 4096


class ImageCodec(PayloadCodec):
    """Codec of pictures: PNG, JPEG, WebP, BMP, TIFF, ... as bytes, in a struct with `bytes`, or as tensors.

    What cannot be read is a fault of its row: null, empty, truncated, corrupt, animated (a file of several frames
    says nothing about which is meant), too large, floats outside of 0 .. 1. 16 bits are scaled, palettes and CMYK
    converted, transparent pixels put on white, pictures turned upright as their EXIF says.
    """

    kind: ClassVar[str] = "image"
    what: ClassVar[str] = "pictures"
    details: ClassVar[pa.Schema | None] = pa.schema([pa.field(HEAT_MAP, pa.binary())])

    def __init__(
        self, schema: pa.Schema, classes: Classes | None, frame: Frame, levels: int, rows: int
    ) -> None:
        self.schema, self.classes = schema, classes
        self.frame, self.levels = frame, levels
        self.rows = rows  # of the training data
        self._level_of = np.rint(np.arange(256) * ((levels - 1) / 255)).astype(np.uint8)
        self._byte_of = np.rint(np.arange(levels) * (255 / (levels - 1))).astype(np.uint8)

    @classmethod
    def holds(cls, kind: pa.DataType) -> bool:
        """Whether a column of a type can hold pictures."""
        return holds_pictures(kind)

    @classmethod
    def fit(
        cls, batches: Iterable[pa.RecordBatch], schema: pa.Schema, settings: ImageSettings | None = None
    ) -> ImageCodec:
        """Take size and colour from the first readable picture, unless given, and the labels from all rows.

        Raises InvalidData: fewer than 10 rows, no picture that can be read, a label that is none.
        """
        settings = settings or ImageSettings()
        first = FirstPicture(cls.learnt_columns(schema, settings), settings)
        classes = look_through(batches, first.learnt, first.look)
        frame = first.frame()
        return cls(first.written(frame), classes, frame, settings.levels, first.rows)

    @functools.cached_property
    def space(self) -> Any:
        """The space of the encoded records, a Grid."""
        return Grid(*self.frame.shape, levels=self.levels, **self.names)

    @property
    def names(self) -> dict[str, Any]:
        """What a space has to know of the columns."""
        return {"name": self.schema.names[0], **self.label}

    def encode(self, table: pa.Table) -> Records:
        """The label, if there is one, and `entries_of` the picture."""
        self.check_schema(table.schema)
        with bombs_refused():
            pixels, faults = read_column(whole_array(table.column(self.schema.names[0])), self.frame)
        labels = self.label_codes(table, faults)
        x = np.zeros((table.num_rows, self.space.entries), self.space.dtype)
        x[:, self.space.labelled :] = self.entries_of(pixels)
        if labels is not None:
            x[:, :1] = labels
        return Records(x, np.zeros((len(x), len(self.space.fields)), np.float32), faults)

    def entries_of(self, pixels: np.ndarray) -> np.ndarray:
        """Levels, in the order (channel, row, column): the nearest to each of 256 values; (rows, entries)."""
        return self._level_of[pixels].reshape(len(pixels), -1)

    def pixels(self, tokens: np.ndarray) -> np.ndarray:
        """uint8 (rows, channels, height, width) of records."""
        return self._byte_of[tokens[:, self.space.labelled :]].reshape(-1, *self.frame.shape)

    def decode(self, tokens: np.ndarray, random: np.random.Generator) -> pa.Table:
        """A table of exactly `schema`: PNG bytes or tensors."""
        columns = [write_column(self.pixels(tokens), self.schema.field(0).type)]
        if self.classes is not None:
            columns.append(self.classes.decode(tokens[:, 0]))
        return pa.Table.from_arrays(columns, schema=self.schema)

    def heat(self, entries: np.ndarray) -> np.ndarray:
        """What each pixel adds, (rows, height, width), of what a picture's entries add."""
        return entries.reshape(-1, *self.frame.shape).sum(1)

    def explain(self, table: pa.Table, entries: np.ndarray | None) -> dict[str, list[Any]]:
        """`why`: the picture's nats and its hottest region, the label's nats; `heat_map`: PNG as large as the frame."""
        if entries is None:
            return {"why": [None] * table.num_rows, HEAT_MAP: [None] * table.num_rows}
        labelled = self.space.labelled
        heat = self.heat(entries[:, labelled:])
        labels = table.column(self.schema.names[1]).to_pylist() if labelled else [None] * len(heat)
        why = []
        for row, (own, label) in enumerate(zip(heat, labels, strict=True)):
            nats = entries[row, labelled:].sum()
            reasons = [_reason(self.schema.names[0], nats, hottest_region(own))]
            if labelled:
                reasons.append(_reason(self.schema.names[1], entries[row, 0], str(label)))
            why.append(sorted(reasons, key=lambda reason: -reason["nats"]))
        return {"why": why, HEAT_MAP: [heat_map(own) for own in heat]}

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Everything fitted: a JSON-able dictionary and named arrays."""
        return {
            **self.schema_state(),
            "frame": [*self.frame.shape, self.frame.other_sizes],
            "levels": self.levels,
            "rows": self.rows,
        }, {}

    @classmethod
    def from_state(cls, settings: dict[str, Any], arrays: dict[str, np.ndarray]) -> ImageCodec:
        """The inverse of `state`."""
        schema, classes = cls.schema_from_state(settings)
        frame = frame_from(settings["frame"])
        return cls(schema, classes, frame, whole(settings, "levels", 2, 256), settings["rows"])


def _reason(column: str, nats: float, value: str) -> dict[str, Any]:
    return {"column": column, "nats": float(nats), "value": value}


def frame_from(state: list[Any]) -> Frame:
    """A frame as a state keeps it. Raises ValueError for impossible sizes."""
    *shape, other_sizes = state
    sides = dict(zip(("channels", "height", "width"), shape, strict=True))
    height, width = (whole(sides, name, 1, MAX_SIDE) for name in ("height", "width"))
    return Frame(whole(sides, "channels", 1, 3), height, width, other_sizes)


class FirstPicture:
    """Looks for the first readable picture of a stream, and counts rows."""

    def __init__(self, learnt: pa.Schema, settings: Pictures) -> None:
        self.learnt, self.settings = learnt, settings
        self.rows = 0
        self.size: tuple[int, int] | None = None  # height, width
        self.is_colour = False
        self.reasons: Counter[str] = Counter()

    def look(self, batch: pa.RecordBatch) -> None:
        """At every batch, in order."""
        self.rows += batch.num_rows
        if self.size is None:
            with bombs_refused():
                for image in self._images(batch.column(self.learnt.names[0])):
                    self.size, self.is_colour = (image.height, image.width), image.mode == "RGB"
                    break

    def _images(self, column: pa.Array) -> Iterator[Any]:
        for image in images(column):
            if isinstance(image, Unreadable):
                self.reasons[str(image).partition(":")[0]] += 1
            else:
                yield image

    def frame(self) -> Frame:
        """What all pictures are brought to. Raises InvalidData: too few rows, or none that can be read."""
        if self.rows < MIN_ROWS:
            raise InvalidData(f"found {self.rows} picture(s) to learn from; at least {MIN_ROWS} are needed")
        if self.size is None:
            reasons = ", ".join(f"{count} {reason}" for reason, count in self.reasons.most_common())
            raise InvalidData(
                f"none of the {self.rows} pictures in column {self.learnt.names[0]!r} is readable: {reasons}"
            )
        return self.frame_so_far(self.size)

    def frame_so_far(self, size: tuple[int, int]) -> Frame:
        """The frame, if `size` is that of the first readable picture. Raises InvalidData when it is too large."""
        settings = self.settings
        height, width = settings.size or size
        if max(height, width) > MAX_SIDE:
            raise InvalidData(
                f"pictures of {height} x {width} pixels are too large to be learnt; set modality.size to at most "
                f"{MAX_SIDE} x {MAX_SIDE}, better far less"
            )
        colour = self.is_colour if settings.colour == "auto" else settings.colour == "rgb"
        return Frame(3 if colour else 1, height, width, settings.other_sizes)

    def written(self, frame: Frame) -> pa.Schema:
        """The schema of the tables that a codec writes."""
        payload, *label = self.learnt
        payload = payload.with_type(written_type(payload.type, self.settings.output, frame))
        return pa.schema([field.with_nullable(True) for field in (payload, *label)])


CODEC = ImageCodec
