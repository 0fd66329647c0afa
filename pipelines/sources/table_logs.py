"""What tables with a log of their own have in common: the log says which files there are, and which columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.fs as pafs

from genai_core.errors import InvalidData
from pipelines.sources import schemas
from pipelines.sources.reader import Reader
from pipelines.stores import storage

Settings = TypeVar("Settings")
SomeReader = TypeVar("SomeReader", bound=Reader)


def one_time(settings: Settings, *names: str) -> Settings:
    """The same; ValueError when it says twice as of when the table shall be read."""
    given = [name for name in names if getattr(settings, name) is not None]
    if len(given) > 1:
        raise ValueError(f"give {' or '.join(names)}, not {' and '.join(given)}")
    return settings


def file_infos(filesystem: pafs.FileSystem, root: str, paths: Sequence[str], uri: str) -> list[pafs.FileInfo]:
    """The files of a table as they are now. InvalidData: one is gone, or there are none."""
    if not paths:
        raise InvalidData(f"{storage.mask(uri)} holds no rows: its log lists no file")
    with storage.explained(uri):
        infos = filesystem.get_file_info([storage.join(root, path) for path in paths])
    gone = [info.path for info in infos if info.type != pafs.FileType.File]
    if gone:
        raise InvalidData(
            f"{storage.mask(uri)}: {len(gone)} file(s) that its log lists are not there, such as {gone[0]}; that "
            "version was vacuumed: read a newer one"
        )
    return sorted(infos, key=lambda info: info.path)


def with_declared(
    reader: SomeReader, found: Sequence[tuple[str, pa.Schema]], declared: pa.Schema
) -> SomeReader:
    """A reader of the columns that a table declares, each of the type that its files have, if any has it."""
    stored: Any = schemas.unify(found)
    keys = {key.name for key in reader.key_columns([])}
    fields = [
        stored.field(column.name) if column.name in stored.names else column
        for column in declared
        if column.name not in keys
    ]
    return reader.with_schema(pa.schema(fields), reader.key_columns([]))
