"""Which files a path means, and what their Hive-style folders (`month=1/`) say about them."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote, unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
from pydantic import BaseModel, ConfigDict, Field, field_validator

from genai_core.errors import InvalidData, InvalidInput
from pipelines import filters
from pipelines.stores import storage

NULL_KEY = "__HIVE_DEFAULT_PARTITION__"
GLOB = set("*?[")
INT32 = range(-(2**31), 2**31)
INT64 = range(-(2**63), 2**63)


class FileSettings(BaseModel):
    """What all sources of files have in common."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str = Field(
        min_length=1, description="file, directory, pattern such as lake/*.parquet, or URI of one"
    )
    filter: str | None = Field(
        None, description="rows to take, such as: month <= 9 and origin in ('JFK', 'LGA')"
    )
    columns: list[str] | None = Field(None, min_length=1, description="columns to take; default: all")

    @field_validator("filter")
    @classmethod
    def _readable(cls, text: str | None) -> str | None:
        try:
            filters.read("0" if text is None else text)
        except InvalidInput as error:
            raise ValueError(str(error)) from error
        return text


@dataclass(frozen=True)
class Fragment:
    """One file as it was when the source was opened."""

    path: str  # below the source's root, so that a moved lake keeps its names
    size: int  # bytes
    etag: str
    rows: int  # before any filter
    row_groups: tuple[int, ...]  # rows of each part that can be read without those before it

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Piece:
    """Rows [start, stop) of one file."""

    path: str
    size: int
    etag: str
    start: int
    stop: int

    @property
    def rows(self) -> int:
        return self.stop - self.start

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Piece:
        return cls(**fields)


def root_of(filesystem: pafs.FileSystem, path: str) -> str:
    """The directory that file names are relative to."""
    kind = filesystem.get_file_info(path).type
    if kind == pafs.FileType.Directory:
        return path
    if kind == pafs.FileType.File or not GLOB & set(path):
        return posixpath.dirname(path)
    parts = path.split("/")
    first = next(i for i, part in enumerate(parts) if GLOB & set(part))
    return "/".join(parts[:first])


def find_files(
    filesystem: pafs.FileSystem, path: str, uri: str, suffixes: Sequence[str]
) -> list[pafs.FileInfo]:
    """The data files that a path means, sorted; hidden ones (`_`, `.`) and other formats are left out."""
    info = filesystem.get_file_info(path)
    if info.type == pafs.FileType.File:
        return [info]
    if info.type == pafs.FileType.Directory:
        _refuse_unfinished(filesystem, path, uri)
        return _in_directory(filesystem, path, uri, suffixes)
    if GLOB & set(path):
        return _matching(filesystem, path, uri)
    raise InvalidData(
        f"{storage.mask(uri)} does not exist; give a file, a directory or a pattern (relative paths start at the "
        "working directory)"
    )


def _refuse_unfinished(filesystem: pafs.FileSystem, path: str, uri: str) -> None:
    """Output of our own that has no manifest yet may hold rows twice."""
    begun, finished = (
        storage.exists(filesystem, storage.join(path, n)) for n in ("_JOB.json", "_MANIFEST.json")
    )
    if begun and not finished:
        raise InvalidData(
            f"{storage.mask(uri)} is the output of a job that has not finished; run that job to its end"
        )


def _in_directory(
    filesystem: pafs.FileSystem, path: str, uri: str, suffixes: Sequence[str]
) -> list[pafs.FileInfo]:
    infos = [i for i in storage.list_files(filesystem, path) if not _is_hidden(relative(i.path, path))]
    found = [i for i in infos if i.path.lower().endswith(tuple(suffixes))]
    if not found:
        others = ", ".join(relative(i.path, path) for i in infos[:3])
        holds = f"holds no {' or '.join(suffixes)} file" + (f", but {others}" if others else "; it is empty")
        raise InvalidData(f"{storage.mask(uri)} {holds}; correct `path` or `kind`")
    return found


def _matching(filesystem: pafs.FileSystem, pattern: str, uri: str) -> list[pafs.FileInfo]:
    infos = storage.list_files(filesystem, root_of(filesystem, pattern))
    found = [i for i in infos if PurePosixPath(i.path).match(pattern)]
    if not found:
        raise InvalidData(
            f"no file matches {storage.mask(uri)}; * stands for any characters within one folder"
        )
    return found


def _is_hidden(path: str) -> bool:
    return any(part.startswith(("_", ".")) for part in path.split("/"))


def relative(path: str, root: str) -> str:
    """A path below the root."""
    return path[len(root) :].lstrip("/")


def keys_of(path: str) -> dict[str, str | None]:
    """`month=1/day=2/x.parquet` -> {"month": "1", "day": "2"}."""
    pairs = [part.partition("=") for part in posixpath.dirname(path).split("/")]
    return {unquote(k): None if v == NULL_KEY else unquote(v) for k, equals, v in pairs if equals and k}


def partition_fields(paths: Iterable[str], uri: str) -> list[pa.Field]:
    """The columns that folder names give: int32 or int64 where every value is a whole number, else string."""
    paths = list(paths)
    keys = [keys_of(path) for path in paths]
    names = list(keys[0])
    odd = next((path for path, k in zip(paths, keys, strict=True) if list(k) != names), None)
    if odd is not None:
        raise InvalidData(
            f"{storage.mask(uri)}: {odd} lies in folders {list(keys_of(odd))}, the first file in folders {names}; "
            "all files need the same partition folders"
        )
    return [pa.field(name, _key_type([k[name] for k in keys])) for name in names]


def _key_type(values: Sequence[str | None]) -> pa.DataType:
    known = [v for v in values if v is not None]
    try:
        numbers = [int(v) for v in known]
    except ValueError:
        return pa.string()
    if not known or any("_" in v or v != v.strip() for v in known):
        return pa.string()
    if all(n in INT32 for n in numbers):
        return pa.int32()
    return pa.int64() if all(n in INT64 for n in numbers) else pa.string()


def folder_of(keys: Mapping[str, str | None]) -> str:
    """The Hive-style folder of partition keys, the inverse of `keys_of`; empty without any."""
    return "/".join(
        f"{quote(k, safe='')}={NULL_KEY if v is None else quote(v, safe='')}" for k, v in keys.items()
    )


def key_value(keys: Mapping[str, str | None], field: pa.Field) -> pa.Scalar:
    """What a file's partition keys say about one column."""
    value = keys.get(field.name)
    if value is None or pa.types.is_string(field.type):
        return pa.scalar(value, field.type)
    if pa.types.is_timestamp(field.type) and field.type.tz is not None:  # the text is in UTC and says no zone
        return pa.scalar(value.removesuffix("Z")).cast(pa.timestamp(field.type.unit)).cast(field.type)
    return (
        pa.scalar(int(value), field.type)
        if pa.types.is_integer(field.type)
        else pa.scalar(value).cast(field.type)
    )


def key_expression(keys: Mapping[str, str | None], fields: Iterable[pa.Field]) -> pc.Expression:
    """What is true of every row of a file, for leaving out files that no filtered row can be in."""
    whole = pc.scalar(True)
    for field in fields:
        value, column = key_value(keys, field), pc.field(field.name)
        whole = whole & (column == value if value.is_valid else column.is_null())
    return whole
