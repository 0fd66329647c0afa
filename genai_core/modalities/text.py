"""Texts: UTF-8 bytes or byte-pair tokens, up to an end; odd words are marked"""

from __future__ import annotations

from codecs import utf_8_decode
from collections.abc import Iterable
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from genai_core.codec import MIN_ROWS, whole
from genai_core.errors import InvalidData, InvalidInput
from genai_core.hyperparameters import TextSettings
from genai_core.payload import Classes, PayloadCodec, look_through
from genai_core.spaces import Records, Sequence
from genai_core.texts import tokens as text_tokens
from genai_core.texts.odd_words import odd_words
from genai_core.texts.tokens import ByteTokens, PairTokens, TextTokens

USUAL = "text"  # the column that is meant where several hold texts
SAMPLE_BYTES = 2**24  # of texts that byte pairs are counted in
ROWS_AT_ONCE = 4096


class TextCodec(PayloadCodec):
    """Codec of a column of texts (or of bytes that are UTF-8), perhaps with a label.

    A record is the tokens of a text and then the end; of a longer text only the first `length` tokens are read.
    Drawn bytes that are no UTF-8 become U+FFFD, and so does the token of bytes that no training text holds.
    """

    kind = "text"
    what = "texts"
    details: ClassVar[pa.Schema | None] = pa.schema([])

    def __init__(
        self, schema: pa.Schema, classes: Classes | None, tokens: TextTokens, length: int, rows: int, cut: int
    ) -> None:
        self.schema, self.classes, self.tokens, self.length = schema, classes, tokens, length
        self.rows = rows  # of the training data
        self.cut = cut  # of its texts have more tokens than a record

    @classmethod
    def holds(cls, kind: pa.DataType) -> bool:
        """Strings and bytes of any length, plain or as a dictionary."""
        plain = kind.value_type if pt.is_dictionary(kind) else kind
        tests = (pt.is_string, pt.is_large_string, pt.is_string_view)
        bytes_ = (pt.is_binary, pt.is_large_binary, pt.is_binary_view)
        return any(test(plain) for test in tests + bytes_)

    @classmethod
    def learnt_columns(cls, schema: pa.Schema, settings: TextSettings) -> pa.Schema:
        """The column of texts, then that of the label. Raises InvalidData, or Unavailable: no library for `bpe`."""
        if settings.tokens == "bpe":
            text_tokens.require_tokenizers()
        if settings.column is None and USUAL in schema.names and settings.label != USUAL:
            settings = settings.model_copy(update={"column": USUAL})
        found = super().learnt_columns(schema, settings)
        kind = found.field(0).type
        if pt.is_dictionary(kind) and kind.index_type.bit_width < 32:
            raise InvalidData(
                f"column {found.names[0]!r} numbers its values with {kind.index_type}, not enough for new texts; "
                "store it as string"
            )
        return found

    @classmethod
    def fit(
        cls, batches: Iterable[pa.RecordBatch], schema: pa.Schema, settings: TextSettings | None = None
    ) -> TextCodec:
        """Fit on a stream of record batches. Raises InvalidData for fewer than 10 texts that can be read."""
        settings = settings or TextSettings()
        kept = cls.learnt_columns(schema, settings)
        seen = _Seen(kept.names[0], settings)
        classes = look_through(batches, kept, seen.look)
        if seen.texts < MIN_ROWS:
            others = seen.rows - seen.texts
            raise InvalidData(
                f"found {seen.texts} text(s) to learn from"
                + (f", and {others} that are missing or not UTF-8" if others else "")
                + f"; at least {MIN_ROWS} are needed. Check the path, the filter and modality.column."
            )
        tokens, cut = seen.tokens()
        return cls(kept, classes, tokens, settings.length, seen.rows, cut)

    @cached_property
    def space(self) -> Sequence:
        """The tokens, and the end as the last of the vocabulary."""
        return Sequence(
            self.tokens.vocabulary + 1,
            self.length,
            end=self.tokens.vocabulary,
            name=self.schema.names[0],
            **self.label,
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """How many texts were cut, if any."""
        if not self.cut:
            return ()
        share = f"{self.cut:,} of {self.rows:,} texts have more than {self.length} tokens"
        return (f"{share}; of these the first {self.length} are learnt (modality.length)",)

    def encode(self, table: pa.Table) -> Records:
        """Tokens (rows, entries) up to the end. Faults: missing, or no UTF-8 in the part that is read."""
        self.check_schema(table.schema)
        column = table.column(self.schema.names[0])
        faults: dict[int, str] = {}
        parts = [np.zeros((0, self.length), self.space.dtype)]
        for start in range(0, len(column), ROWS_AT_ONCE):
            texts = self._beginnings(column.slice(start, ROWS_AT_ONCE))
            faults |= {start + row: why for row, why in _unreadable(texts, self._bytes).items()}
            parts.append(self._matrix(self.tokens.encode(_without(texts, faults, start))))
        tokens = np.concatenate(parts)
        labels = self.label_codes(table, faults)
        if labels is not None:
            tokens = np.concatenate([labels.astype(tokens.dtype), tokens], 1)
        return Records(tokens, np.zeros((len(tokens), len(self.space.fields)), np.float32), faults)

    @property
    def _bytes(self) -> int:
        """No record reads more of a text."""
        return self.length * self.tokens.longest

    def _beginnings(self, column: pa.ChunkedArray) -> pa.LargeBinaryArray:
        """As much of each text as a record can hold: of a text of 100 MB no more is looked at."""
        return beginnings(column, self._bytes)

    def _matrix(self, found: text_tokens.Ragged) -> np.ndarray:
        """(rows, length): cut, or filled up with the end."""
        kept = np.minimum(found.lengths, self.length)
        matrix = np.full((len(kept), self.length), self.space.end, self.space.dtype)
        place = np.arange(len(found.tokens)) - np.repeat(
            found.lengths.cumsum() - found.lengths, found.lengths
        )
        matrix[np.arange(self.length) < kept[:, None]] = found.tokens[place < self.length]
        return matrix

    def prefix_of(self, prompt: str) -> np.ndarray:
        """Tokens (n,) of a prompt. Raises InvalidInput where it is too long, or holds what no training text does."""
        prefix = self.tokens.prefix(prompt)
        if len(prefix) > self.length:
            raise InvalidInput(
                f"the prompt has {len(prefix)} tokens, a text of this model at most {self.length}; shorten it"
            )
        return prefix

    def decode(self, tokens: np.ndarray, random: np.random.Generator) -> pa.Table:
        """A table of exactly `schema`."""
        texts = [self._text(row) for row in tokens[:, self.space.labelled :]]
        arrays = [_as_type(texts, self.schema.field(0).type)]
        if self.classes is not None:
            arrays.append(self.classes.decode(tokens[:, 0]))
        return pa.Table.from_arrays(arrays, schema=self.schema)

    def _text(self, row: np.ndarray) -> str:
        """Of a row of tokens; one that fills the record may end inside a character, which is left out."""
        ends = np.flatnonzero(row == self.space.end)
        written = self.tokens.written((row[: ends[0]] if len(ends) else row).tolist())
        return utf_8_decode(written, "replace", bool(len(ends)))[0]

    def explain(self, table: pa.Table, entries: np.ndarray | None) -> dict[str, list[Any]]:
        """The odd words of each text, and the label where it is odd: see `odd_words`."""
        if entries is None:
            return {"why": [None] * table.num_rows}
        records, labelled = self.encode(table), self.space.labelled
        texts = self._beginnings(table.column(self.schema.names[0])).to_pylist()
        why = []
        for row, text in enumerate(texts):
            tokens, nats = records.tokens[row, labelled:], entries[row, labelled:]
            found = odd_words(*self._by_byte(text or b"", tokens, nats), self.schema.names[0])
            if labelled:
                value = str(table.column(self.schema.names[1])[row].as_py())
                label = {"column": self.schema.names[1], "nats": float(entries[row, 0]), "value": value}
                found = sorted([*found, label], key=lambda reason: -reason["nats"])
            why.append(found)
        return {"why": why}

    def _by_byte(self, text: bytes, tokens: np.ndarray, nats: np.ndarray) -> tuple[str, np.ndarray]:
        """What a record holds of a text, and nats (its bytes + 1,): of a token at its first byte; at last the end."""
        number = int((tokens != self.space.end).sum())
        widths = self.tokens.widths(tokens[:number])
        read = utf_8_decode(text[: widths.sum()], "ignore", number < self.length)[0]
        found = np.zeros(max(len(read.encode()), int(widths.sum())) + 1)
        found[widths.cumsum() - widths] = nats[:number]
        found = found[: len(read.encode()) + 1]
        found[-1] = nats[number] if number < self.length else 0.0
        return read, found

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """A JSON-able dictionary; no arrays."""
        own = {"tokens": self.tokens.state(), "length": self.length, "rows": self.rows, "cut": self.cut}
        return self.schema_state() | own, {}

    @classmethod
    def from_state(cls, settings: dict[str, Any], arrays: dict[str, np.ndarray]) -> TextCodec:
        """The inverse of `state`."""
        schema, classes = cls.schema_from_state(settings)
        tokens = text_tokens.from_state(settings["tokens"])
        length = whole(settings, "length", 2, 65_536)
        return cls(schema, classes, tokens, length, settings["rows"], settings["cut"])


class _Seen:
    """What one pass learns of a column of texts; memory does not grow with the rows."""

    def __init__(self, name: str, settings: TextSettings) -> None:
        self.name, self.settings = name, settings
        self.reach = settings.length * (1 if settings.tokens == "bytes" else text_tokens.LONGEST)
        self.rows = self.texts = self.long = 0
        self.bytes = np.zeros(256, bool)
        self.sample: list[str] = []  # every `step`th text, for byte pairs
        self.step, self.sampled = 1, 0

    def look(self, batch: pa.RecordBatch) -> None:
        """At every batch, in order."""
        column = pa.chunked_array([batch.column(self.name)])
        for start in range(0, len(column), ROWS_AT_ONCE):
            self._update(beginnings(column.slice(start, ROWS_AT_ONCE), self.reach + 1))

    def _update(self, texts: pa.LargeBinaryArray) -> None:
        self.rows += len(texts)
        fine = np.ones(len(texts), bool)
        fine[list(_unreadable(texts, self.reach + 1))] = False
        texts = texts.filter(pa.array(fine))
        values, lengths = text_tokens.contents(texts)
        self.long += int((lengths > self.settings.length).sum())
        self.bytes[values] = True
        if self.settings.tokens == "bpe":
            for number in range(-self.texts % self.step, len(texts), self.step):
                self._keep(texts[number].as_py())
        self.texts += len(texts)

    def _keep(self, text: bytes) -> None:
        self.sample.append(text.decode("utf-8", "ignore"))
        self.sampled += len(text)
        if self.sampled > SAMPLE_BYTES and len(self.sample) > 1:
            self.sample, self.step = self.sample[::2], 2 * self.step
            self.sampled = sum(map(len, self.sample))

    def tokens(self) -> tuple[TextTokens, int]:
        """Fitted, and how many of all texts are longer than a record."""
        if self.settings.tokens == "bytes":
            return ByteTokens(np.flatnonzero(self.bytes).tolist()), self.long
        pairs = PairTokens.fit(self.sample, self.settings.vocabulary)
        lengths = pairs.encode(pa.array([t.encode() for t in self.sample], pa.large_binary())).lengths
        return pairs, round(float((lengths > self.settings.length).mean()) * self.texts)


def beginnings(column: pa.ChunkedArray, bytes_: int) -> pa.LargeBinaryArray:
    """The first bytes of every text of a column of any type that holds texts; missing ones stay missing."""
    if pt.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    cut = [pc.binary_slice(chunk.cast(pa.large_binary()), 0, bytes_) for chunk in column.chunks]
    return pa.concat_arrays(cut) if cut else pa.array([], pa.large_binary())


def _unreadable(texts: pa.LargeBinaryArray, bytes_: int) -> dict[int, str]:
    """Row -> what is wrong with it; a text of `bytes_` bytes was cut and may end inside a character."""
    faults = dict.fromkeys(
        np.flatnonzero(texts.is_null().to_numpy(zero_copy_only=False)).tolist(), "text missing"
    )
    try:
        texts.cast(pa.large_string())
        return faults
    except pa.ArrowInvalid:
        pass
    for row, text in enumerate(texts.to_pylist()):
        try:
            utf_8_decode(text or b"", "strict", len(text or b"") < bytes_)
        except UnicodeDecodeError as error:
            faults[row] = f"text is not UTF-8: byte 0x{error.object[error.start]:02x} at {error.start}"
    return faults


def _without(texts: pa.LargeBinaryArray, faults: dict[int, str], start: int) -> pa.LargeBinaryArray:
    """With unreadable texts empty."""
    bad = [row - start for row in faults if start <= row < start + len(texts)]
    if not bad:
        return texts
    keep = np.ones(len(texts), bool)
    keep[bad] = False
    return pc.if_else(pa.array(keep), texts, pa.scalar(b"", pa.large_binary()))


def _as_type(texts: list[str], kind: pa.DataType) -> pa.Array:
    plain = kind.value_type if pt.is_dictionary(kind) else kind
    array = pa.array(texts, pa.large_string()).cast(pa.large_binary()).cast(plain)
    if not pt.is_dictionary(kind):
        return array
    encoded = array.dictionary_encode()
    indices, known = encoded.indices.cast(kind.index_type), encoded.dictionary
    return pa.DictionaryArray.from_arrays(indices, known, ordered=kind.ordered)


CODEC = TextCodec
