"""Apache Iceberg tables: the data files of a snapshot, as the catalogue lists them, columns by their ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Self
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from pydantic import Field, model_validator

from genai_core.errors import InvalidData, InvalidInput
from pipelines.sources.files import FileSettings, keys_of
from pipelines.sources.parquet import ParquetReader
from pipelines.sources.reader import Head
from pipelines.sources.table_logs import file_infos, one_time, with_declared
from pipelines.stores import storage

ID = b"PARQUET:field_id"


class IcebergSource(FileSettings):
    """An Iceberg table, by its name in a catalogue that PyIceberg's own configuration describes."""

    kind: Literal["iceberg"] = "iceberg"
    path: str = Field(min_length=1, description="the table's name in the catalogue, such as lake.flights")
    catalog: str = Field(
        "default",
        min_length=1,
        description="name of a catalogue in ~/.pyiceberg.yaml or in PYICEBERG_CATALOG__NAME__URI and the like",
    )
    snapshot: int | None = Field(None, description="id of a snapshot; default: the newest")
    as_of: datetime | None = Field(None, description="the snapshot of a time, such as 2026-11-01T00:00:00Z")

    @model_validator(mode="after")
    def _one_time(self) -> Self:
        return one_time(self, "snapshot", "as_of")


@dataclass(frozen=True)
class IcebergReader(ParquetReader):
    """Reads the Parquet files of a snapshot; a column that was renamed since is found by its id."""

    declared: pa.Schema = field(default_factory=lambda: pa.schema([]))
    names_by_id: Mapping[int, str] = field(default_factory=dict)
    folders: Mapping[str, str] = field(default_factory=dict)
    snapshot: int = -1

    @classmethod
    def listed(cls, settings: Any) -> tuple[Self, list[pafs.FileInfo]]:
        """See Reader.listed. InvalidData for a table that cannot be read as its files alone say."""
        table = _table(settings)
        snapshot = _snapshot(table, settings)
        newest = snapshot.snapshot_id == table.current_snapshot().snapshot_id
        # an older snapshot has the columns of its time, the newest those of now
        scan = table.scan() if newest else table.scan(snapshot_id=snapshot.snapshot_id)
        schema = scan.projection()
        _refuse_defaults(schema, settings.path)
        filesystem, root = storage.resolve(table.location().removeprefix("file://"))
        folders = {}
        for task in scan.plan_files():
            path = _below(task.file.file_path, table.location(), settings.path)
            _refuse_deletes(task, settings.path)
            folders[path] = table.specs()[task.file.spec_id].partition_to_path(task.file.partition, schema)
        reader = cls(
            settings,
            filesystem,
            root,
            declared=_plain(schema.as_arrow()),
            names_by_id={column.field_id: column.name for column in schema.fields},
            folders=folders,
            snapshot=snapshot.snapshot_id,
        )
        return reader, file_infos(filesystem, root, list(folders), settings.path)

    def agreed(self, found: Sequence[tuple[str, pa.Schema]]) -> Self:
        """The table's own columns; what its files lack is null."""
        return with_declared(self, found, self.declared)

    def key_columns(self, paths: Sequence[str]) -> list[pa.Field]:
        """None: the values of partition columns stand in the files."""
        return []

    def keys(self, path: str) -> Mapping[str, str | None]:
        """The partition of a file: of columns, or of what was made of them, such as `time_day=2026-11-01`."""
        return keys_of(f"{self.folders[path]}/")

    @property
    def version(self) -> dict[str, Any]:
        """For lineage."""
        return {"snapshot": self.snapshot}

    def head(self, path: str) -> Head:
        """With the names that the table has for the columns now."""
        found = super().head(path)
        names = self.logical(found.schema)
        columns = [found.schema.field(own).with_name(name).remove_metadata() for own, name in names.items()]
        return Head(pa.schema(columns), found.row_groups)

    def logical(self, schema: pa.Schema) -> dict[str, str]:
        """Name in the file -> name in the table, without columns that were dropped since."""
        ids = {own.name: int((own.metadata or {}).get(ID, -1)) for own in schema}
        if set(ids.values()) == {-1}:  # a file that was added to the table as it was
            return {name: name for name in ids if name in self.declared.names}
        return {own: self.names_by_id[i] for own, i in ids.items() if i in self.names_by_id}

    def live_groups(self, path: str, condition: pc.Expression) -> Sequence[int] | None:
        """By statistics, which stand under the names in the file."""
        with self.filesystem.open_input_file(self.absolute(path)) as file:
            names = self.logical(pq.read_schema(file))
        if any(own != name for own, name in names.items()):
            return None
        return super().live_groups(path, condition)


def _table(settings: IcebergSource) -> Any:
    try:
        from pyiceberg.catalog import load_catalog
        from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError
    except ImportError as error:
        raise InvalidInput(
            f"{settings.path}: Iceberg tables need the package pyiceberg; say: pip install 'genai-core[iceberg]'"
        ) from error
    try:
        return load_catalog(settings.catalog).load_table(settings.path)
    except (NoSuchTableError, NoSuchNamespaceError) as error:
        raise InvalidData(
            f"the catalogue {settings.catalog!r} has no table {settings.path!r}; give namespace.table"
        ) from error
    except Exception as error:  # every kind of catalogue has its own
        raise InvalidInput(
            f"the catalogue {settings.catalog!r} cannot be used: {str(error).strip()[:300]}; describe it in "
            "~/.pyiceberg.yaml, or by PYICEBERG_CATALOG__NAME__URI and the like"
        ) from error


def _snapshot(table: Any, settings: IcebergSource) -> Any:
    if settings.snapshot is not None:
        found = table.snapshot_by_id(settings.snapshot)
    elif settings.as_of is not None:
        found = table.snapshot_as_of_timestamp(int(settings.as_of.timestamp() * 1000))
    else:
        found = table.current_snapshot()
    if found is None:
        known = ", ".join(str(one.snapshot_id) for one in table.snapshots()[-3:]) or "none"
        raise InvalidData(f"{settings.path} has no such snapshot; the last ones are: {known}")
    return found


def _below(path: str, location: str, name: str) -> str:
    """A file's path below the table's directory."""
    inside, root = unquote_file(path), unquote_file(location).rstrip("/") + "/"
    if not inside.startswith(root):
        raise InvalidData(
            f"{name}: {storage.mask(path)} lies outside of the table's directory {storage.mask(location)}; that is "
            "not read: rewrite the table's data files"
        )
    return inside.removeprefix(root)


def unquote_file(uri: str) -> str:
    """A file: URI as a plain path; others as they are."""
    return unquote(urlsplit(uri).path) if uri.startswith("file:") else uri


def _refuse_deletes(task: Any, name: str) -> None:
    if task.delete_files:
        raise InvalidData(
            f"{name}: rows of {task.file.file_path.rpartition('/')[2]} are deleted by delete files, which are not "
            "read; compact the table first (Spark: CALL system.rewrite_data_files with delete-file-threshold 1)"
        )
    if str(task.file.file_format.value).upper() != "PARQUET":
        raise InvalidData(
            f"{name}: {task.file.file_path} is {task.file.file_format.value}; only Parquet is read"
        )


def _refuse_defaults(schema: Any, name: str) -> None:
    odd = [column.name for column in schema.fields if column.initial_default is not None]
    if odd:
        raise InvalidData(
            f"{name}: column(s) {', '.join(odd)} have an initial default, which is not read; rewrite the data files"
        )


def _plain(schema: pa.Schema) -> pa.Schema:
    """Without ids, and with the narrow types that files of a table have."""
    narrow = {pa.large_string(): pa.string(), pa.large_binary(): pa.binary()}
    return pa.schema([pa.field(f.name, narrow.get(f.type, f.type), f.nullable) for f in schema])


READER = IcebergReader
