"""A source as encoded records on local disk: training reads them shuffled, and memory does not grow with the rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import DTypeLike

from genai_core.codec import Codec
from genai_core.errors import InvalidData
from genai_core.hyperparameters import FitSettings
from genai_core.spaces import Records
from genai_core.train import split
from pipelines.source_rows import rows_together
from pipelines.sources.files import Piece
from pipelines.sources.reader import Reader
from pipelines.sources.source import Source

ROWS_PER_FILE = (
    2**40
)  # rows are numbered by file and place in it: the split is the same for any number of workers
ROWS_PER_PIECE = 2**16


class Encoded(NamedTuple):
    """Memory-mapped: training records (rows, entries) and the held-out ones; how many were unreadable, by reason."""

    train: np.ndarray
    held_out: Records
    skipped: dict[str, int]


def shares(source: Source, world: int) -> list[list[tuple[int, Piece]]]:
    """The pieces that each of `world` workers reads, every piece with the number of its file."""
    numbers = {fragment.path: i for i, fragment in enumerate(source.fragments())}
    pieces = [(numbers[piece.path], piece) for piece in source.pieces(_piece_rows(source, world))]
    return [pieces[rank::world] for rank in range(world)]


def _piece_rows(source: Source, world: int) -> int:
    """Small enough that every worker gets some of a short source too."""
    return max(min(ROWS_PER_PIECE, -(-source.rows // (4 * world))), 1)


def encode_source(
    codec: Codec, reader: Reader, settings: FitSettings, scratch: Path, share: Sequence[tuple[int, Piece]]
) -> Encoded:
    """Encode a worker's share of the source into files in `scratch`.

    Raises InvalidData when the share has fewer than two rows: nothing could be held out.
    """
    names = ("train", "held_out", "measure")
    paths = {name: scratch / f"{name}.bin" for name in names}
    files: dict[str, IO[bytes]] = {name: path.open("wb") for name, path in paths.items()}
    rows, skipped = 0, Counter[str]()
    try:
        for table, numbers in _numbered(codec, reader, share):
            records = codec.encode(table)
            fine = records.readable()
            skipped.update(reason.partition(":")[0] for reason in records.faults.values())
            _write(records.rows(fine), split(numbers[fine], settings, certain=rows == 0), files)
            rows += int(fine.sum())
    finally:
        for file in files.values():
            file.close()
    if rows < 2:
        raise InvalidData(
            f"a worker's share of the source has {rows} readable row(s){_reasons(skipped)}; "
            "use fewer workers (compute.workers)"
        )
    entries, fields = codec.space.entries, len(codec.space.fields)
    kind = codec.space.dtype
    held_out = Records(
        _mapped(paths["held_out"], kind, entries), _mapped(paths["measure"], np.float32, fields)
    )
    return Encoded(_mapped(paths["train"], kind, entries), held_out, dict(skipped))


def _numbered(
    codec: Codec, reader: Reader, share: Sequence[tuple[int, Piece]]
) -> Iterator[tuple[pa.Table, np.ndarray]]:
    """Rows with their numbers over all files, some together where files are short: a picture's has one row."""
    together = rows_together(codec)
    batches: list[pa.RecordBatch] = []
    numbers: list[np.ndarray] = []
    for number, piece in share:
        for batch, places in reader.stream(piece, codec.schema.names, together):
            batches.append(batch)
            numbers.append(number * ROWS_PER_FILE + places)
            if sum(map(len, numbers)) >= together:
                yield pa.Table.from_batches(batches), np.concatenate(numbers)
                batches, numbers = [], []
    if batches:
        yield pa.Table.from_batches(batches), np.concatenate(numbers)


def _reasons(skipped: Counter[str]) -> str:
    return f" ({', '.join(f'{n} {reason}' for reason, n in skipped.most_common())})" if skipped else ""


def _write(records: Records, out: np.ndarray, files: dict[str, IO[bytes]]) -> None:
    files["train"].write(records.tokens[~out].tobytes())
    files["held_out"].write(records.tokens[out].tobytes())
    files["measure"].write(records.log_measure[out].tobytes())


def _mapped(path: Path, kind: DTypeLike, width: int) -> np.ndarray:
    if not path.stat().st_size:
        return np.zeros((0, width), kind)
    return np.memmap(path, kind, "r").reshape(-1, width)
