"""Delta Lake tables: the files that the table's log lists, as of now or of a version, in the log's partitions."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Self
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.fs as pafs
from pydantic import Field, model_validator

from genai_core.errors import InvalidData, InvalidInput
from pipelines.masking import mask_text
from pipelines.sources.files import FileSettings
from pipelines.sources.parquet import ParquetReader
from pipelines.sources.table_logs import file_infos, one_time, with_declared
from pipelines.stores import storage

NOT_READ = "delta.columnMapping.mode"  # columns have other names in the files


class DeltaSource(FileSettings):
    """A Delta Lake table, by the directory that holds its _delta_log."""

    kind: Literal["delta"] = "delta"
    version: int | None = Field(None, ge=0, description="of the table; default: the newest")
    as_of: datetime | None = Field(None, description="the version of a time, such as 2026-11-01T00:00:00Z")

    @model_validator(mode="after")
    def _one_time(self) -> Self:
        return one_time(self, "version", "as_of")


@dataclass(frozen=True)
class DeltaReader(ParquetReader):
    """Reads the Parquet files of a table; partition columns stand in the log alone."""

    declared: pa.Schema = field(default_factory=lambda: pa.schema([]))
    partition_values: Mapping[str, Mapping[str, str | None]] = field(default_factory=dict)
    table_version: int = -1

    @classmethod
    def listed(cls, settings: Any) -> tuple[Self, list[pafs.FileInfo]]:
        """See Reader.listed. InvalidData for a table that cannot be read as its files alone say."""
        table = _table(settings)
        filesystem, root = storage.resolve(settings.path)
        actions = pa.table(table.get_add_actions(flatten=False))
        paths = [unquote(path) for path in actions.column("path").to_pylist()]
        reader = cls(
            settings,
            filesystem,
            root,
            declared=_plain(pa.schema(table.schema().to_arrow())),
            partition_values=_values(actions, paths, table.metadata().partition_columns),
            table_version=table.version(),
        )
        return reader, file_infos(filesystem, root, paths, settings.path)

    def agreed(self, found: Sequence[tuple[str, pa.Schema]]) -> Self:
        """The table's own columns; what its files lack is null."""
        return with_declared(self, found, self.declared)

    def key_columns(self, paths: Sequence[str]) -> list[pa.Field]:
        """The table's partition columns, typed."""
        names = next(iter(self.partition_values.values()), {})
        return [self.declared.field(name) for name in names]

    def keys(self, path: str) -> Mapping[str, str | None]:
        """What the log says."""
        return self.partition_values[path]

    @property
    def version(self) -> dict[str, Any]:
        """For lineage."""
        return {"version": self.table_version}


def _table(settings: DeltaSource) -> Any:
    with _explained(settings.path):
        import deltalake

        table = deltalake.DeltaTable(_address(settings.path), storage_options=_options(settings.path))
        asked = settings.version if settings.as_of is None else settings.as_of
        if asked is not None:
            table.load_as_version(asked)
        _refuse_what_files_do_not_say(table, settings.path)
        return table


@contextmanager
def _explained(path: str) -> Iterator[None]:
    shown = storage.mask(path)
    try:
        from deltalake.exceptions import DeltaError, TableNotFoundError
    except ImportError as error:
        raise InvalidInput(
            f"{shown}: Delta Lake tables need the package deltalake; say: pip install 'genai-core[delta]'"
        ) from error
    try:
        yield
    except TableNotFoundError as error:
        raise InvalidData(
            f"{shown} is no Delta Lake table, it has no _delta_log; correct `path` or `kind`"
        ) from error
    except (DeltaError, OSError) as error:
        raise InvalidData(
            f"{shown} cannot be read as a Delta Lake table: {mask_text(str(error).strip()[:300])}"
        ) from error


def _address(path: str) -> str:
    scheme, separator, _ = path.partition("://")
    return f"s3://{path.partition('://')[2]}" if scheme in storage.S3_SCHEMES and separator else path


def _options(path: str) -> dict[str, str] | None:
    """The library reads the usual variables of a store; that an endpoint has no TLS it wants to be told."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if not endpoint or "://" not in path:
        return None
    return {"AWS_ENDPOINT_URL": endpoint, "AWS_ALLOW_HTTP": str(urlsplit(endpoint).scheme == "http").lower()}


def _refuse_what_files_do_not_say(table: Any, path: str) -> None:
    from deltalake.table import SUPPORTED_READER_FEATURES

    vectors = sum(batch.num_rows for batch in pa.table(table.deletion_vectors()).to_batches())
    if vectors:
        raise InvalidData(
            f"{storage.mask(path)}: rows of {vectors} file(s) are deleted by deletion vectors, which are not read; "
            "purge them first (Spark: REORG TABLE ... APPLY (PURGE))"
        )
    mode = table.metadata().configuration.get(NOT_READ, "none")
    if mode != "none":
        raise InvalidData(
            f"{storage.mask(path)}: {NOT_READ} = {mode} is not read; write the table without it"
        )
    unknown = set(table.protocol().reader_features or ()) - {"deletionVectors", "columnMapping"}
    if unknown := unknown - SUPPORTED_READER_FEATURES:
        raise InvalidData(
            f"{storage.mask(path)}: the table needs {', '.join(sorted(unknown))}, which is not read; write it without"
        )


def _plain(schema: pa.Schema) -> pa.Schema:
    return pa.schema([pa.field(f.name, f.type, f.nullable) for f in schema])


def _values(
    actions: pa.Table, paths: Sequence[str], names: Sequence[str]
) -> dict[str, dict[str, str | None]]:
    """Path -> partition column -> its value as text."""
    if not names:
        return {path: {} for path in paths}
    struct = actions.column("partition").combine_chunks()
    columns = [struct.field(name).cast(pa.string()).to_pylist() for name in names]
    return {path: dict(zip(names, row, strict=True)) for path, *row in zip(paths, *columns, strict=True)}


READER = DeltaReader
