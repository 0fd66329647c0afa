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
from genai_core.hyperparameters import ImageSettings
from genai_core.payload import Classes, PayloadCodec, whole_array
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
        learnt = cls.learnt_columns(schema, settings)
        first = _First(learnt.names[0])
        classes = None
        if settings.label is None:
            for batch in batches:
                first.look(batch)
        else:
            classes = Classes.fit(learnt.field(1), (first.look(b).column(settings.label) for b in batches))
        if first.rows < MIN_ROWS:
            raise InvalidData(f"found {first.rows} picture(s) to learn from; at least {MIN_ROWS} are needed")
        frame = first.frame(settings)
        payload = learnt.field(0)
        fields = [payload.with_type(written_type(payload.type, settings.output, frame)), *list(learnt)[1:]]
        written = pa.schema([f.with_nullable(True) for f in fields])
        return cls(written, classes, frame, settings.levels, first.rows)

    @functools.cached_property
    def space(self) -> Grid:
        """The space of the encoded records."""
        names = self.schema.names
        label = {} if self.classes is None else {"classes": len(self.classes), "label_name": names[1]}
        return Grid(*self.frame.shape, levels=self.levels, name=names[0], **label)

    def encode(self, table: pa.Table) -> Records:
        """Levels, in the order (channel, row, column); the nearest of the levels to each of 256 values."""
        self.check_schema(table.schema)
        with bombs_refused():
            pixels, faults = read_column(whole_array(table.column(self.schema.names[0])), self.frame)
        labels = self.label_codes(table, faults)
        x = np.zeros((table.num_rows, self.space.entries), self.space.dtype)
        x[:, self.space.labelled :] = self._level_of[pixels].reshape(table.num_rows, -1)
        if labels is not None:
            x[:, :1] = labels
        return Records(x, np.zeros((len(x), len(self.space.fields)), np.float32), faults)

    def pixels(self, tokens: np.ndarray) -> np.ndarray:
        """uint8 (rows, channels, height, width) of records."""
        return self._byte_of[tokens[:, self.space.labelled :]].reshape(-1, *self.frame.shape)

    def decode(self, tokens: np.ndarray, random: np.random.Generator) -> pa.Table:
        """A table of exactly `schema`: PNG bytes or tensors."""
        columns = [write_column(self.pixels(tokens), self.schema.field(0).type)]
        if self.classes is not None:
            columns.append(self.classes.decode(tokens[:, 0]))
        return pa.Table.from_arrays(columns, schema=self.schema)

    def explain(self, table: pa.Table, entries: np.ndarray | None) -> dict[str, list[Any]]:
        """`why`: the picture's nats and its hottest region, the label's nats; `heat_map`: PNG as large as the frame."""
        if entries is None:
            return {"why": [None] * table.num_rows, HEAT_MAP: [None] * table.num_rows}
        labelled = self.space.labelled
        heat = entries[:, labelled:].reshape(-1, *self.frame.shape).sum(1)
        labels = table.column(self.schema.names[1]).to_pylist() if labelled else [None] * len(heat)
        why = []
        for row, (own, label) in enumerate(zip(heat, labels, strict=True)):
            reasons = [_reason(self.schema.names[0], own.sum(), hottest_region(own))]
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
        *shape, other_sizes = settings["frame"]
        sides = dict(zip(("channels", "height", "width"), shape, strict=True))
        height, width = (whole(sides, name, 1, MAX_SIDE) for name in ("height", "width"))
        frame = Frame(whole(sides, "channels", 1, 3), height, width, other_sizes)
        return cls(schema, classes, frame, whole(settings, "levels", 2, 256), settings["rows"])


def _reason(column: str, nats: float, value: str) -> dict[str, Any]:
    return {"column": column, "nats": float(nats), "value": value}


class _First:
    """Looks for the first readable picture of a stream, and counts rows."""

    def __init__(self, column: str) -> None:
        self.column, self.rows = column, 0
        self.size: tuple[int, int] | None = None  # height, width
        self.is_colour = False
        self.reasons: Counter[str] = Counter()

    def look(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Of every batch, in order."""
        self.rows += batch.num_rows
        if self.size is None:
            with bombs_refused():
                for image in self._images(batch.column(self.column)):
                    self.size, self.is_colour = (image.height, image.width), image.mode == "RGB"
                    break
        return batch

    def _images(self, column: pa.Array) -> Iterator[Any]:
        for image in images(column):
            if isinstance(image, Unreadable):
                self.reasons[str(image).partition(":")[0]] += 1
            else:
                yield image

    def frame(self, settings: ImageSettings) -> Frame:
        """What all pictures are brought to. Raises InvalidData when none can be read."""
        if self.size is None:
            reasons = ", ".join(f"{count} {reason}" for reason, count in self.reasons.most_common())
            raise InvalidData(
                f"none of the {self.rows} pictures in column {self.column!r} is readable: {reasons}"
            )
        height, width = settings.size or self.size
        if max(height, width) > MAX_SIDE:
            raise InvalidData(
                f"pictures of {height} x {width} pixels are too large to be learnt; set modality.size to at most "
                f"{MAX_SIDE} x {MAX_SIDE}, better far less"
            )
        colour = self.is_colour if settings.colour == "auto" else settings.colour == "rgb"
        return Frame(3 if colour else 1, height, width, settings.other_sizes)


CODEC = ImageCodec
