"""A source as encoded records on local disk: training reads them shuffled, and memory does not grow with the rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import pyarrow as pa

from genai_core.codec import Codec
from genai_core.errors import InvalidData
from genai_core.hyperparameters import FitSettings
from genai_core.spaces import Records
from genai_core.train import split
from pipelines.sources.files import Piece
from pipelines.sources.reader import Reader
from pipelines.sources.source import Source

ROWS_PER_FILE = (
    2**40
)  # rows are numbered by file and place in it: the split is the same for any number of workers
ROWS_PER_PIECE = 2**16


class Encoded(NamedTuple):
    """Memory-mapped: training tokens (rows, positions) and the held-out records."""

    train: np.ndarray
    held_out: Records


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
    rows = 0
    try:
        for number, piece in share:
            for batch, places in reader.stream(piece, codec.schema.names):
                numbers = number * ROWS_PER_FILE + places
                _write(codec, batch, split(numbers, settings, certain=rows == 0), files)
                rows += batch.num_rows
    finally:
        for file in files.values():
            file.close()
    if rows < 2:
        raise InvalidData(
            f"a worker's share of the source has {rows} row(s); use fewer workers (compute.workers)"
        )
    positions, fields = len(codec.space.positions), len(codec.space.fields)
    held_out = Records(
        _mapped(paths["held_out"], np.int16, positions), _mapped(paths["measure"], np.float32, fields)
    )
    return Encoded(_mapped(paths["train"], np.int16, positions), held_out)


def _write(codec: Codec, batch: pa.RecordBatch, out: np.ndarray, files: dict[str, IO[bytes]]) -> None:
    records = codec.encode(pa.Table.from_batches([batch]))
    files["train"].write(records.tokens[~out].tobytes())
    files["held_out"].write(records.tokens[out].tobytes())
    files["measure"].write(records.log_measure[out].tobytes())


def _mapped(path: Path, kind: type, width: int) -> np.ndarray:
    if not path.stat().st_size:
        return np.zeros((0, width), kind)
    return np.memmap(path, kind, "r").reshape(-1, width)
