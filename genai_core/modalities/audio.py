"""Sounds: encoded bytes of one column, as mu-law levels or a log-mel spectrogram; perhaps with a label"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from genai_core.codec import MIN_ROWS
from genai_core.errors import InvalidData
from genai_core.hyperparameters import AudioSettings
from genai_core.payload import Classes, PayloadCodec, look_through, whole_array
from genai_core.pictures.heat_maps import heat_map
from genai_core.sounds.files import Sound, Unreadable, files_in, holds_sounds, read, write_column
from genai_core.sounds.views import CLIPS_TOGETHER, Loudness, Spectrogram, View, Waveform, from_state
from genai_core.spaces import Records, Space

HEAT_MAP = "heat_map"
NEAR = 0.005  # seconds; a difference that is not called cut or padded


class AudioCodec(PayloadCodec):
    """Codec of sounds: WAV, FLAC, OGG, MP3, ... as bytes, or in a struct with `bytes`.

    Any rate is resampled to the model's, all channels are mixed down, longer clips cut, shorter ones padded with
    silence. What cannot be read is a fault of its row: null, empty, truncated, corrupt, samples that are no number.
    """

    kind: ClassVar[str] = "audio"
    what: ClassVar[str] = "sounds"
    details: ClassVar[pa.Schema | None] = pa.schema([pa.field(HEAT_MAP, pa.binary())])

    def __init__(
        self, schema: pa.Schema, classes: Classes | None, view: View, rate: int, counts: dict[str, int]
    ) -> None:
        self.schema, self.classes, self.view, self.rate = schema, classes, view, rate
        self.counts = counts  # of the training data: rows, unreadable, cut, padded, resampled, ...

    @property
    def rows(self) -> int:
        """Of the training data."""
        return self.counts["rows"]

    @classmethod
    def holds(cls, kind: pa.DataType) -> bool:
        """Whether a column of a type can hold sounds."""
        return holds_sounds(kind)

    @classmethod
    def fit(
        cls, batches: Iterable[pa.RecordBatch], schema: pa.Schema, settings: AudioSettings | None = None
    ) -> AudioCodec:
        """Take the rate from the first readable clip, unless given, the range of loudness and the labels from all.

        Raises InvalidData: fewer than 10 rows, no clip that can be read, a label that is none.
        """
        settings = settings or AudioSettings()
        learnt = cls.learnt_columns(schema, settings)
        first = _First(learnt.names[0], settings)
        classes = look_through(batches, learnt, first.look)
        view = first.view()
        written = pa.schema([field.with_nullable(True) for field in learnt])
        return cls(written, classes, view, first.rate, dict(first.counts))

    @cached_property
    def space(self) -> Space:
        """The space of the encoded records."""
        return self.view.space(name=self.schema.names[0], **self.label)

    def encode(self, table: pa.Table) -> Records:
        """Levels of the view."""
        self.check_schema(table.schema)
        column = whole_array(table.column(self.schema.names[0]))
        labelled = int(self.classes is not None)
        x = np.zeros((table.num_rows, self.space.entries), self.space.dtype)
        faults: dict[int, str] = {}
        for start in range(0, table.num_rows, CLIPS_TOGETHER):
            clips = np.zeros((min(CLIPS_TOGETHER, table.num_rows - start), self.view.samples), np.float32)
            for row, data in enumerate(files_in(column.slice(start, CLIPS_TOGETHER))):
                try:
                    place(clips[row], self._read(data).samples)
                except Unreadable as reason:
                    faults[start + row] = str(reason)
            x[start : start + CLIPS_TOGETHER, labelled:] = self.view.levels(clips)
        labels = self.label_codes(table, faults)
        if labels is not None:
            x[:, :1] = labels
        return Records(x, np.zeros((len(x), len(self.space.fields)), np.float32), faults)

    def _read(self, data: bytes | None) -> Sound:
        return read(data, self.rate, self.view.samples / self.rate)

    def decode(self, tokens: np.ndarray, random: np.random.Generator) -> pa.Table:
        """A table of exactly `schema`: WAV files of 16 bits."""
        labelled = int(self.classes is not None)
        clips = self.view.clips(tokens[:, labelled:])
        columns = [write_column(clips, self.rate, self.schema.field(0).type)]
        if self.classes is not None:
            columns.append(self.classes.decode(tokens[:, 0]))
        return pa.Table.from_arrays(columns, schema=self.schema)

    def explain(self, table: pa.Table, entries: np.ndarray | None) -> dict[str, list[Any]]:
        """`why`: the sound's nats and where most are, the label's nats; `heat_map`: PNG of a spectrogram's size."""
        if entries is None:
            return {"why": [None] * table.num_rows, HEAT_MAP: [None] * table.num_rows}
        names, labelled = self.schema.names, int(self.classes is not None)
        labels = table.column(names[1]).to_pylist() if labelled else [None] * table.num_rows
        why, maps = [], []
        for row, label in zip(entries, labels, strict=True):
            own = row[labelled:]
            reasons = [{"column": names[0], "nats": float(own.sum()), "value": self.view.place(own)}]
            if labelled:
                reasons.append({"column": names[1], "nats": float(row[0]), "value": str(label)})
            why.append(sorted(reasons, key=lambda reason: -reason["nats"]))
            heat = self.view.heat(own)
            maps.append(None if heat is None else heat_map(heat))
        return {"why": why, HEAT_MAP: maps}

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Everything fitted: a JSON-able dictionary and named arrays."""
        own = {"view": self.view.state(), "rate": self.rate, "counts": self.counts}
        return {**self.schema_state(), **own}, {}

    @classmethod
    def from_state(cls, settings: dict[str, Any], arrays: dict[str, np.ndarray]) -> AudioCodec:
        """The inverse of `state`."""
        schema, classes = cls.schema_from_state(settings)
        return cls(schema, classes, from_state(settings["view"]), settings["rate"], settings["counts"])


def place(clip: np.ndarray, samples: np.ndarray) -> None:
    """Write the beginning of `samples` into a clip of silence."""
    clip[: len(samples)] = samples[: len(clip)]


class _First:
    """Goes through a stream once: the first clip's rate, how loud all are, how many had to be changed."""

    def __init__(self, column: str, settings: AudioSettings) -> None:
        self.column, self.settings = column, settings
        self.rate = settings.rate or 0
        self.counts: Counter[str] = Counter(rows=0)
        self.reasons: Counter[str] = Counter()
        self.loudness: Loudness | None = None

    def look(self, batch: pa.RecordBatch) -> None:
        """At every batch, in order."""
        self.counts["rows"] += batch.num_rows
        column = whole_array(batch.column(self.column))
        for start in range(0, batch.num_rows, CLIPS_TOGETHER):
            files = files_in(column.slice(start, CLIPS_TOGETHER))
            found = [sound for data in files if (sound := self._read(data)) is not None]
            if found and self.settings.view != Waveform.kind:
                self._listen(found)

    def _read(self, data: bytes | None) -> Sound | None:
        try:
            sound = read(data, self.rate or None, self.settings.seconds)
        except Unreadable as reason:
            self.reasons[str(reason).partition(":")[0]] += 1
            return None
        self.rate = self.rate or sound.rate
        self.counts["readable"] += 1
        if abs(sound.seconds - self.settings.seconds) > NEAR:
            self.counts["cut" if sound.seconds > self.settings.seconds else "padded"] += 1
        return sound

    def _listen(self, found: list[Sound]) -> None:
        from genai_core.sounds.spectrogram import LogMel

        if self.loudness is None:
            s = self.settings
            self.loudness = Loudness(LogMel.covering(self.rate, s.mels, s.hop, s.seconds))
        clips = np.zeros((len(found), self.loudness.transform.samples), np.float32)
        for clip, sound in zip(clips, found, strict=True):
            place(clip, sound.samples)
        self.loudness.add(clips)

    def view(self) -> View:
        """What all clips are brought to. Raises InvalidData: too few rows, or none that can be read."""
        if self.counts["rows"] < MIN_ROWS:
            raise InvalidData(
                f"found {self.counts['rows']} sound(s) to learn from; at least {MIN_ROWS} are needed"
            )
        if not self.counts["readable"]:
            reasons = ", ".join(f"{count} {reason}" for reason, count in self.reasons.most_common())
            raise InvalidData(
                f"none of the {self.counts['rows']} sounds in column {self.column!r} is readable: {reasons}"
            )
        self.counts["unreadable"] = self.reasons.total()
        if self.loudness is None:
            return Waveform(self.rate, max(round(self.settings.seconds * self.rate), 1))
        t = self.loudness.transform
        return Spectrogram(t.rate, t.mels, t.hop, t.frames, *self.loudness.range())


CODEC = AudioCodec
