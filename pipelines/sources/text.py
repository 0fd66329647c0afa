"""Text files as rows: lines, whole files, or windows of long texts."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Literal, Self

import pyarrow as pa
from pydantic import Field, model_validator

from pipelines.sources.files import FileSettings, relative
from pipelines.sources.reader import Head, Reader

BLOCK_BYTES = 1 << 20
MARK = codecs.BOM_UTF8


class TextSource(FileSettings):
    """One text file in UTF-8, gzipped or not, or a directory of them."""

    kind: Literal["text"] = "text"
    split: Literal["lines", "whole", "windows"] = Field(
        "lines",
        description="rows: lines (columns file, text, line), whole files (file, text), windows (file, text, offset)",
    )
    length: int = Field(256, ge=1, le=10_000_000, description="characters of a window")
    stride: int | None = Field(
        None, ge=1, le=10_000_000, description="characters from window to window; default: their length"
    )

    @model_validator(mode="after")
    def _nothing_between_windows(self) -> Self:
        if self.stride is not None and self.stride > self.length:
            raise ValueError(
                f"a stride of {self.stride} leaves out text between windows of {self.length}; at most {self.length}"
            )
        return self


class TextReader(Reader):
    """Reads whole files; `text` is a string where all files are UTF-8, else bytes, so that odd rows can be told."""

    suffixes = (".txt", ".text", ".log", ".md", ".txt.gz", ".text.gz", ".log.gz", ".md.gz")
    divisible = False

    def head(self, path: str) -> Head:
        rows, valid = 0, True
        for text, _ in self._rows(path):
            rows += 1
            valid = valid and _is_utf8(text)
        kind = pa.string() if valid else pa.binary()
        fields = [pa.field("file", pa.string()), pa.field("text", kind)]
        if self._place is not None:
            fields.append(pa.field(self._place, pa.int64()))
        return Head(pa.schema(fields), (rows,))

    def decode(
        self, path: str, columns: Sequence[str], start: int, stop: int, batch_rows: int
    ) -> Iterator[tuple[int, pa.RecordBatch]]:
        del start, stop  # the whole file: see `divisible`
        rows, first = self._rows(path), 0
        kind = self.full_schema.field("text").type
        while batch := list(islice(rows, batch_rows)):
            made: dict[str, Any] = {
                "file": pa.array([relative(path, self.root)] * len(batch), pa.string()),
                "text": pa.array([text for text, _ in batch], pa.binary()).cast(kind),
            }
            if self._place is not None:
                made[self._place] = pa.array([place for _, place in batch], pa.int64())
            yield first, pa.record_batch({name: made[name] for name in made if name in columns})
            first += len(batch)

    @property
    def _place(self) -> str | None:
        """The column that says where in its file a row begins."""
        return {"lines": "line", "whole": None, "windows": "offset"}[self.settings.split]

    def _rows(self, path: str) -> Iterator[tuple[bytes, int]]:
        """Text and place of each row."""
        blocks = self._blocks(path)
        if self.settings.split == "whole":
            return iter([(b"".join(blocks), 0)])
        if self.settings.split == "lines":
            return ((line, number) for number, line in enumerate(_lines(blocks), 1))
        length = self.settings.length
        return _windows(blocks, length, self.settings.stride or length)

    def _blocks(self, path: str) -> Iterator[bytes]:
        """The bytes of a file without a byte-order mark."""
        with self.filesystem.open_input_stream(path, compression="detect") as stream:
            first = stream.read(BLOCK_BYTES)
            yield first.removeprefix(MARK)
            while block := stream.read(BLOCK_BYTES):
                yield block


def _lines(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Lines without their ends; what follows the last end is a line unless it is empty."""
    parts: list[bytes] = []  # of a line that goes on
    for block in blocks:
        *whole, rest = block.split(b"\n")
        for line in whole:
            yield b"".join([*parts, line]).removesuffix(b"\r")
            parts = []
        parts.append(rest)
    if last := b"".join(parts):
        yield last.removesuffix(b"\r")


def _windows(blocks: Iterator[bytes], length: int, stride: int) -> Iterator[tuple[bytes, int]]:
    """Windows of `length` characters; the last ends where the text does. A byte that is no UTF-8 is one character."""
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    held, start, ready = "", 0, 0  # `held` begins at the character `start`; the next window begins at `ready`
    for block in blocks:
        held += decoder.decode(block)
        while ready + length <= start + len(held):
            yield _encoded(held[ready - start : ready - start + length]), ready
            ready += stride
        # the last window may begin as far back as the one before it
        kept = max(ready - stride, start)
        held, start = held[kept - start :], kept
    held += decoder.decode(b"", final=True)
    end = start + len(held)
    if end > max(ready - stride + length, 0) or (not ready and held):
        last = max(end - length, start)
        yield _encoded(held[last - start :]), last


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _is_utf8(text: bytes) -> bool:
    try:
        codecs.utf_8_decode(text, "strict", True)
    except UnicodeDecodeError:
        return False
    return True


READER = TextReader
