"""Single rows of a source read again: those that somebody asks about"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from genai_core.errors import InvalidData
from pipelines.sources import reader_of
from pipelines.sources.files import Fragment, Piece
from pipelines.sources.reader import Reader
from pipelines.sources.source import read_head


class SomeFiles:
    """Some files of a source, with the schema that they have together."""

    def __init__(self, reader: Reader | None, fragments: dict[str, Fragment]) -> None:
        self.reader, self.fragments = reader, fragments

    @classmethod
    def of(cls, settings: Any, files: Sequence[str], missing_ok: bool = False) -> SomeFiles:
        """Files by their names below the source's root; its filter is left aside. InvalidData: one is gone."""
        blank, infos = reader_of(settings).listed(settings.model_copy(update={"filter": None}))
        there = {info.path: info for info in infos}
        gone = [file for file in files if blank.absolute(file) not in there]
        if gone and not missing_ok:
            raise InvalidData(f"{gone[0]} is no longer there: its rows cannot be read again")
        chosen = [there[blank.absolute(file)] for file in files if blank.absolute(file) in there]
        found = [read_head(blank, info) for info in chosen]
        if not found:
            return cls(None, {})
        reader = blank.agreed([(fragment.path, head.schema) for fragment, head in found])
        return cls(reader, {fragment.path: fragment for fragment, _ in found})

    def numbers_inside(self, file: str, rows: Sequence[int]) -> list[int]:
        """Those of the row numbers that the file has."""
        of = self.fragments.get(file)
        return [] if of is None else [row for row in rows if 0 <= row < of.rows]

    def rows(self, file: str, rows: Sequence[int], columns: Sequence[str]) -> pa.Table:
        """Rows of one file by number, ascending."""
        if self.reader is None:
            raise InvalidData(f"{file} is no longer there: its rows cannot be read again")
        of = self.fragments[file]
        piece = Piece(file, of.size, of.etag, int(rows[0]), int(rows[-1]) + 1)
        table, _ = self.reader.read_with_rows(piece, columns)
        return table.take(pa.array(np.asarray(rows) - rows[0]))
