"""Where one row comes from: by its value in the column `_lineage`, in its output or wherever it was copied"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from genai_core.errors import InvalidData, InvalidInput
from pipelines.outputs.sink import Sink
from pipelines.provenance.lineage_column import NAME, RowLineage, parse
from pipelines.stores import storage

MOST_JOBS = 20  # that one file's rows name


def in_output(path: str, value: str) -> tuple[str, dict[str, Any]]:
    """The data file of an output that holds a row, and the row. Raises InvalidInput when it is not of that output."""
    wanted = parse(value)
    manifest = Sink(path).manifest()
    if manifest is None:
        raise InvalidInput(
            f"{storage.mask(path)} is no finished output; --row wants the directory of the job's output"
        )
    made_by = manifest["provenance"]["job_id"]
    if wanted.job_id != made_by:
        raise InvalidInput(
            f"{value} was made by another job; {storage.mask(path)} is the output of {made_by}"
        )
    shard = next((one for one in manifest["shards"] if one["id"] == wanted.shard), None)
    if shard is None or wanted.row >= shard["rows"]:
        raise InvalidInput(f"{storage.mask(path)} holds no row {wanted.row} of shard {wanted.shard}")
    return storage.join(path, shard["file"]), _row(Sink(path), shard, wanted, value)


def _row(sink: Sink, shard: Mapping[str, Any], wanted: RowLineage, value: str) -> dict[str, Any]:
    with sink.filesystem.open_input_file(sink.path(shard["file"])) as stream, pq.ParquetFile(stream) as file:
        place = wanted.row
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if place < rows:
                row = dict(file.read_row_group(group).slice(place, 1).to_pylist()[0])
                if row.pop(NAME, value) != value:
                    raise InvalidData(
                        f"{shard['file']} was changed: its row {wanted.row} says another origin"
                    )
                return row
            place -= rows
    raise InvalidData(f"{shard['file']} was changed: it has fewer rows than its manifest says")


def jobs_in(path: str) -> dict[str, int] | None:
    """The jobs that the rows of any Parquet file name, and how many rows each; None when it has no such column."""
    filesystem, inside = storage.resolve(path)
    with filesystem.open_input_file(inside) as stream, pq.ParquetFile(stream) as file:
        kind = file.schema_arrow.field(NAME).type if NAME in file.schema_arrow.names else None
        if kind is None or not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            return None
        counts: Counter[str] = Counter()
        for batch in file.iter_batches(columns=[NAME]):
            counts.update(
                value.partition("/")[0] for value in batch.column(0).to_pylist() if value is not None
            )
    return dict(counts.most_common(MOST_JOBS))
