"""CSV files, gzipped or not: types from the first 16 MB, checked over the whole file when it is opened."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

import pyarrow as pa
import pyarrow.csv as pacsv
from pydantic import AfterValidator, Field

from genai_core.errors import InvalidData
from pipelines.sources.files import FileSettings
from pipelines.sources.reader import Head, Reader

BLOCK_BYTES = 1 << 24
# Parquet has no seconds: what is read here must survive being written there.
STORABLE = {pa.timestamp("s"): pa.timestamp("ms"), pa.time32("s"): pa.time32("ms")}


def arrow_types(types: dict[str, str]) -> dict[str, str]:
    """The same; ValueError names what is no Arrow type."""
    for column, name in types.items():
        try:
            pa.type_for_alias(name)
        except ValueError as error:
            raise ValueError(
                f"{name!r} of column {column!r} is no Arrow type, such as int64, float64, string, "
                "bool, date32 or timestamp[us]"
            ) from error
    return types


class CsvSource(FileSettings):
    """One CSV file, or a directory of them; the first line holds the column names."""

    kind: Literal["csv"] = "csv"
    delimiter: str = Field(",", min_length=1, max_length=1)
    quote: str = Field('"', min_length=1, max_length=1)
    encoding: str = "utf8"
    types: Annotated[dict[str, str], AfterValidator(arrow_types)] = Field(
        default_factory=dict,
        description="Arrow types of columns that would be guessed wrong, such as {zip: string}",
    )
    null_values: list[str] | None = Field(
        None,
        description="what stands for missing, in text columns too; default: '', NA, null, ... except in text",
    )


class CsvReader(Reader):
    """Reads whole files: where a row begins is known only from the rows before it."""

    suffixes = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
    divisible = False
    typed = False

    def head(self, path: str) -> Head:
        with self._open(path, self._given_types()) as reader:
            schema = reader.schema
            rows = sum(batch.num_rows for batch in reader)
        fields = [f.with_type(STORABLE.get(f.type, f.type)) for f in schema]
        return Head(pa.schema(fields), (rows,))

    def decode(
        self, path: str, columns: Sequence[str], start: int, stop: int, batch_rows: int
    ) -> Iterator[tuple[int, pa.RecordBatch]]:
        del start, stop  # the whole file: see `divisible`
        types = {f.name: f.type for f in self.full_schema if f.name not in self.partitions}
        offset = 0
        with self._open(path, types, columns) as reader:
            for block in reader:
                for batch in sliced(block, batch_rows):
                    yield offset, batch
                    offset += batch.num_rows

    def advice(self, error: Exception) -> str:
        if "conversion error" not in str(error):
            return ""
        return " (types are guessed from the first 16 MB; give the right one in `types`, such as {column: string})"

    def _given_types(self) -> dict[str, pa.DataType]:
        return {name: pa.type_for_alias(kind) for name, kind in self.settings.types.items()}

    def _open(
        self, path: str, types: dict[str, pa.DataType], columns: Sequence[str] | None = None
    ) -> pacsv.CSVStreamingReader:
        stream = self.filesystem.open_input_stream(path, compression="detect")
        nulls = self.settings.null_values
        convert = pacsv.ConvertOptions(
            column_types=types,
            include_columns=None if columns is None else list(columns),
            include_missing_columns=columns is not None,  # a file without one of the others' columns
            null_values=nulls,
            strings_can_be_null=nulls is not None,
        )
        try:
            return pacsv.open_csv(
                stream,
                pacsv.ReadOptions(block_size=BLOCK_BYTES, encoding=self.settings.encoding),
                pacsv.ParseOptions(delimiter=self.settings.delimiter, quote_char=self.settings.quote),
                convert,
            )
        except LookupError as error:
            raise InvalidData(
                f"encoding {self.settings.encoding!r} is unknown; utf8 and latin1 are common"
            ) from error


def sliced(block: pa.RecordBatch, rows: int) -> Iterator[pa.RecordBatch]:
    """A block in batches of at most so many rows."""
    for start in range(0, block.num_rows, rows):
        yield block.slice(start, rows)


READER = CsvReader
