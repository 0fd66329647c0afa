"""Parquet files: types as written, row groups as the smallest part, statistics that leave row groups out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.sources.files import FileSettings, key_expression
from pipelines.sources.reader import Head, Reader


class ParquetSource(FileSettings):
    """One Parquet file, or a directory of them, Hive-partitioned or not."""

    kind: Literal["parquet"] = "parquet"


class ParquetReader(Reader):
    """Reads row ranges; a range inside a row group decodes that group from its beginning."""

    suffixes = (".parquet", ".parq", ".pq")
    divisible = True

    def head(self, path: str) -> Head:
        with self.filesystem.open_input_file(path) as file, pq.ParquetFile(file) as parquet:
            groups = [parquet.metadata.row_group(i).num_rows for i in range(parquet.num_row_groups)]
            return Head(parquet.schema_arrow, tuple(groups))

    def logical(self, schema: pa.Schema) -> dict[str, str]:
        """Name of a column in a file -> its name in the source; the same, unless a table's log renames columns."""
        return {name: name for name in schema.names}

    def live_groups(self, path: str, condition: pc.Expression) -> Sequence[int] | None:
        """Row groups whose statistics do not rule the condition out."""
        import pyarrow.dataset as pads  # imports pandas: 0.15 s

        whole = pads.ParquetFileFormat().make_fragment(
            self.absolute(path),
            self.filesystem,
            partition_expression=key_expression(self.keys(path), self.partition_fields),
        )
        return [group.id for group in whole.subset(condition, schema=self.full_schema).row_groups]

    def decode(
        self, path: str, columns: Sequence[str], start: int, stop: int, batch_rows: int
    ) -> Iterator[tuple[int, pa.RecordBatch]]:
        options = {
            "pre_buffer": self.filesystem.type_name != "local",  # one long read instead of many short ones
            "page_checksum_verification": True,  # off in pyarrow: it would hand out damaged values
        }
        with (
            self.filesystem.open_input_file(path) as file,
            pq.ParquetFile(file, **options) as parquet,
        ):
            groups, offset = _covering(parquet.metadata, start, stop)
            names = {own: name for own, name in self.logical(parquet.schema_arrow).items() if name in columns}
            for batch in parquet.iter_batches(batch_rows, row_groups=groups, columns=list(names)):
                yield offset, batch.rename_columns([names[own] for own in batch.schema.names])
                offset += batch.num_rows


def _covering(metadata: pq.FileMetaData, start: int, stop: int) -> tuple[list[int], int]:
    """The row groups that hold rows [start, stop), and the number of the first row in them."""
    groups: list[int] = []
    first, offset = start, 0
    for i in range(metadata.num_row_groups):
        rows = metadata.row_group(i).num_rows
        if offset < stop and offset + rows > start:
            first = offset if not groups else first
            groups.append(i)
        offset += rows
    return groups, first


READER = ParquetReader
