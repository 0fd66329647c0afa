"""Where rows come from. A new kind is one file here and one word in SOURCES. Free of torch, Ray and pandas."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated

from pydantic import Field

from pipelines.sources.audio import AudioSource
from pipelines.sources.csv import CsvSource
from pipelines.sources.delta import DeltaSource
from pipelines.sources.files import Fragment, Piece
from pipelines.sources.iceberg import IcebergSource
from pipelines.sources.images import ImagesSource
from pipelines.sources.jsonl import JsonlSource
from pipelines.sources.parquet import ParquetSource
from pipelines.sources.reader import Reader
from pipelines.sources.source import Source
from pipelines.sources.text import TextSource

SOURCES = ("audio", "csv", "delta", "iceberg", "images", "jsonl", "parquet", "text")
SourceSettings = Annotated[
    AudioSource
    | CsvSource
    | DeltaSource
    | IcebergSource
    | ImagesSource
    | JsonlSource
    | ParquetSource
    | TextSource,
    Field(discriminator="kind"),
]

__all__ = [
    "SOURCES",
    "AudioSource",
    "CsvSource",
    "DeltaSource",
    "Fragment",
    "IcebergSource",
    "ImagesSource",
    "JsonlSource",
    "ParquetSource",
    "Piece",
    "Reader",
    "Source",
    "SourceSettings",
    "TextSource",
    "open_source",
    "reader_of",
]


def open_source(settings: SourceSettings) -> Source:
    """List the files, read their heads, agree on one schema; InvalidData or InvalidInput says what is wrong."""
    return Source.opened(settings, reader_of(settings))


def reader_of(settings: SourceSettings) -> type[Reader]:
    """The class that reads a kind of source."""
    reader: type[Reader] = import_module(f"pipelines.sources.{settings.kind}").READER
    return reader
