"""Larger pictures: the codes of an autoencoder in raster order, as a sequence; perhaps with a label"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa

from genai_core.codec import whole
from genai_core.errors import InvalidArtifact, InvalidData
from genai_core.hyperparameters import ImageCodesSettings
from genai_core.modalities.image import FirstPicture, ImageCodec, frame_from
from genai_core.payload import Classes, look_through, whole_array
from genai_core.pictures.columns import read_column
from genai_core.pictures.encoded import Frame, bombs_refused
from genai_core.spaces import Sequence

if TYPE_CHECKING:  # checking a job file must not import torch
    from genai_core.pictures.codes import CodeAutoencoder

MAX_CODES = 4096  # of a picture: a transformer's work grows with their square
MAX_CHANNELS = 128
MAX_CROP = 128  # pixels along each side of what the autoencoder is trained on
SAMPLE_PICTURES, SAMPLE_ENTRIES = 8192, 2**25  # that it is trained on
CODES, FACTORS = (64, 512, 4096), (2, 4, 8, 16)
LEVELS = 256


class ImageCodesCodec(ImageCodec):
    """Codec of pictures as codes, read and written as `ImageCodec` does; a code stands for factor x factor pixels.

    The autoencoder is fitted with the codec, on a sample of the pictures, and is part of its state. What models learn
    and score are the codes: nats of codes, exact for them, say nothing of what the autoencoder does not keep.
    """

    kind: ClassVar[str] = "image_codes"

    def __init__(
        self,
        schema: pa.Schema,
        classes: Classes | None,
        frame: Frame,
        rows: int,
        autoencoder: dict[str, Any],
        weights: dict[str, np.ndarray],
    ) -> None:
        super().__init__(schema, classes, frame, LEVELS, rows)
        self.settings = autoencoder  # codes, factor, channels; psnr and perplexity of what it was fitted on
        self.weights = weights

    @classmethod
    def fit(
        cls, batches: Iterable[pa.RecordBatch], schema: pa.Schema, settings: Any | None = None
    ) -> ImageCodesCodec:
        """Take size, colour and labels as `ImageCodec` does, and learn the autoencoder on a sample of the pictures.

        Raises InvalidData as there, and for pictures of more than MAX_CODES codes.
        """
        settings = settings or ImageCodesSettings()
        first = FirstPicture(cls.learnt_columns(schema, settings), settings)
        seed = settings.seed or 0
        sample = _Sample(first, seed)
        classes = look_through(batches, first.learnt, sample.look)
        frame = first.frame()
        _refuse_many(frame, settings.factor)
        from genai_core.pictures import codes

        shape = {"codes": settings.codes, "factor": settings.factor, "channels": settings.channels}
        pictures = np.stack(sample.kept)
        model = codes.fit(pictures, **shape, steps=settings.steps, seed=seed)
        weights = {name: value.numpy() for name, value in model.state_dict().items()}
        facts = codes.fidelity(model, pictures)
        return cls(first.written(frame), classes, frame, first.rows, {**shape, **facts}, weights)

    @functools.cached_property
    def space(self) -> Sequence:
        """The codes in raster order."""
        return Sequence(self.settings["codes"], int(np.prod(self.sides)), **self.names)

    @property
    def sides(self) -> tuple[int, int]:
        """Codes down and across a picture."""
        return _sides(self.frame, self.settings["factor"])

    @property
    def notes(self) -> tuple[str, ...]:
        """What the codes keep of the pictures, and what likelihoods are of."""
        s, (down, across) = self.settings, self.sides
        return (
            f"pictures are {down} x {across} codes of {s['codes']}, with a perplexity of {s['perplexity']:.0f}; "
            f"they come back with a peak signal-to-noise ratio of {s['psnr']:.1f} dB",
            "likelihoods are in nats of the codes, not of the pixels",
        )

    @functools.cached_property
    def autoencoder(self) -> CodeAutoencoder:
        """Imports torch. Raises InvalidArtifact for weights that are of another one."""
        from genai_core.pictures import codes

        shape = {name: self.settings[name] for name in ("codes", "factor", "channels")}
        try:
            return codes.restored(self.weights, self.frame.channels, **shape)
        except (RuntimeError, ValueError) as error:
            raise InvalidArtifact(f"the autoencoder of the model does not fit together: {error}") from None

    def entries_of(self, pixels: np.ndarray) -> np.ndarray:
        """Codes, row by row."""
        from genai_core.pictures import codes

        return codes.encode(self.autoencoder, pixels)

    def pixels(self, tokens: np.ndarray) -> np.ndarray:
        """uint8 (rows, channels, height, width) of records."""
        from genai_core.pictures import codes

        return codes.decode(
            self.autoencoder, tokens[:, self.space.labelled :], self.frame.height, self.frame.width
        )

    def heat(self, entries: np.ndarray) -> np.ndarray:
        """What each pixel adds: a code's share is spread over what it stands for."""
        factor = self.settings["factor"]
        spread = entries.reshape(-1, *self.sides).repeat(factor, 1).repeat(factor, 2) / factor**2
        return spread[:, : self.frame.height, : self.frame.width]

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Everything fitted: a JSON-able dictionary and named arrays."""
        settings, _ = super().state()
        return {**settings, "autoencoder": self.settings}, self.weights

    @classmethod
    def from_state(cls, settings: dict[str, Any], arrays: dict[str, np.ndarray]) -> ImageCodesCodec:
        """The inverse of `state`."""
        schema, classes = cls.schema_from_state(settings)
        frame, own = frame_from(settings["frame"]), settings["autoencoder"]
        whole(own, "channels", 1, MAX_CHANNELS)
        for name, accepted in (("codes", CODES), ("factor", FACTORS)):
            if type(own[name]) is not int or own[name] not in accepted:
                raise ValueError(f"{name} is {str(own[name])[:40]}; accepted are {accepted}")
        if np.prod(_sides(frame, own["factor"])) > MAX_CODES:
            raise ValueError("a picture has more codes than any that is learnt")
        return cls(schema, classes, frame, settings["rows"], own, dict(arrays))


def _sides(frame: Frame, factor: int) -> tuple[int, int]:
    return -(-frame.height // factor), -(-frame.width // factor)


def _refuse_many(frame: Frame, factor: int) -> None:
    down, across = _sides(frame, factor)
    if down * across > MAX_CODES:
        raise InvalidData(
            f"pictures of {frame.height} x {frame.width} pixels are {down * across:,} codes with modality.factor "
            f"{factor}; at most {MAX_CODES:,} are learnt: set a larger modality.factor, or a smaller modality.size"
        )


class _Sample:
    """Parts of pictures of a stream, every picture as likely as any other (Vitter 1985, algorithm R)."""

    def __init__(self, first: FirstPicture, seed: int) -> None:
        self.first = first
        # two, so that the sample is the same for batches of any size
        self.choosing, self.placing = (np.random.default_rng([seed, use]) for use in (0, 1))
        self.kept: list[np.ndarray] = []  # uint8 (channels, height, width)
        self.seen = 0

    def look(self, batch: pa.RecordBatch) -> None:
        """At every batch, in order; only pictures that are kept are decoded."""
        self.first.look(batch)
        if self.first.size is None:
            return
        frame = self.first.frame_so_far(self.first.size)
        size = frame.channels * min(frame.height, MAX_CROP) * min(frame.width, MAX_CROP)
        room = min(SAMPLE_PICTURES, SAMPLE_ENTRIES // size)
        rows = [row for row in range(batch.num_rows) if self._chosen(room)]
        column = whole_array(batch.column(self.first.learnt.names[0]))
        with bombs_refused():
            pixels, faults = read_column(column.take(pa.array(rows, pa.int64())), frame)
        for row in sorted(set(range(len(rows))) - set(faults)):
            part = self._part(pixels[row]).copy()
            if len(self.kept) < room:
                self.kept.append(part)
            else:
                self.kept[int(self.placing.integers(room))] = part

    def _chosen(self, room: int) -> bool:
        self.seen += 1
        return self.seen <= room or int(self.choosing.integers(self.seen)) < room

    def _part(self, picture: np.ndarray) -> np.ndarray:
        """A part of at most MAX_CROP x MAX_CROP, anywhere."""
        high, wide = (min(side, MAX_CROP) for side in picture.shape[1:])
        top = int(self.placing.integers(picture.shape[1] - high + 1))
        left = int(self.placing.integers(picture.shape[2] - wide + 1))
        return picture[:, top : top + high, left : left + wide]


CODEC = ImageCodesCodec
