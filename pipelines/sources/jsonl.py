"""JSON lines, gzipped or not: one object a line; objects inside objects become columns `outer.inner`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

import pyarrow as pa
import pyarrow.json as pajson
from pydantic import AfterValidator, Field

from pipelines.sources.csv import STORABLE, arrow_types, sliced
from pipelines.sources.files import FileSettings
from pipelines.sources.reader import Head, Reader

BLOCK_BYTES = 1 << 24


class JsonlSource(FileSettings):
    """One file of JSON lines, or a directory of them."""

    kind: Literal["jsonl"] = "jsonl"
    types: Annotated[dict[str, str], AfterValidator(arrow_types)] = Field(
        default_factory=dict,
        description="Arrow types of columns that would be guessed wrong, such as {zip: string}; not of inner ones",
    )


class JsonlReader(Reader):
    """Reads whole files: types are guessed from the first 16 MB and checked over the rest."""

    suffixes = (".jsonl", ".ndjson", ".json", ".jsonl.gz", ".ndjson.gz", ".json.gz")
    divisible = False
    typed = False

    def head(self, path: str) -> Head:
        schema, rows = pa.schema([]), 0
        for batch in self._batches(path):
            schema, rows = batch.schema, rows + batch.num_rows
        fields = [f.with_type(STORABLE.get(f.type, f.type)) for f in schema]
        return Head(pa.schema(fields), (rows,))

    def decode(
        self, path: str, columns: Sequence[str], start: int, stop: int, batch_rows: int
    ) -> Iterator[tuple[int, pa.RecordBatch]]:
        del start, stop  # the whole file: see `divisible`
        first = 0
        for block in self._batches(path):
            present = [name for name in columns if name in block.schema.names]
            for batch in sliced(block.select(present), batch_rows):
                yield first, batch
                first += batch.num_rows

    def advice(self, error: Exception) -> str:
        if "changed from" not in str(error) and "invalid value" not in str(error).lower():
            return ""
        return " (types are guessed from the first 16 MB; give the right one in `types`, such as {column: string})"

    def _batches(self, path: str) -> Iterator[pa.RecordBatch]:
        """Blocks of the file, flattened."""
        if self.filesystem.get_file_info(path).size == 0:  # no records, which Arrow calls an error
            return
        known = pa.schema([(name, pa.type_for_alias(kind)) for name, kind in self.settings.types.items()])
        stream = self.filesystem.open_input_stream(path, compression="detect")
        with pajson.open_json(
            stream,
            pajson.ReadOptions(block_size=BLOCK_BYTES),
            pajson.ParseOptions(explicit_schema=known if len(known) else None),
        ) as reader:
            for batch in reader:
                yield _flat(batch)


def _flat(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Structures as columns of their own, however deep; lists stay, for codecs to refuse or leave alone."""
    table = pa.Table.from_batches([batch])
    while any(pa.types.is_struct(field.type) for field in table.schema):
        table = table.flatten()
    return table.combine_chunks().to_batches()[0] if table.num_rows else batch.slice(0, 0)


READER = JsonlReader
