"""The column `_lineage`: of every row, which job, shard and row of that shard made it; it survives joins and copies."""

from __future__ import annotations

import re
from typing import NamedTuple

import pyarrow as pa

from genai_core.errors import InvalidInput
from pipelines.plan import Shard

NAME = "_lineage"
FIELD = pa.field(NAME, pa.string(), nullable=False)
FORM = re.compile(r"([a-z]+-[0-9a-f]{20})/(\d{5,12})/(\d{1,12})")


class RowLineage(NamedTuple):
    """Where a row was made: the job's id, the shard's, and the row's number in the shard's file."""

    job_id: str
    shard: int
    row: int


def with_column(schema: pa.Schema) -> pa.Schema:
    """The schema of an output whose rows carry their lineage. Raises InvalidInput when the name is taken."""
    if NAME in schema.names:
        raise InvalidInput(
            f"lineage: the model's table has a column {NAME!r} already: it was trained on rows that carry theirs. "
            "Train with `modality: {exclude: [_lineage]}`, or leave lineage out"
        )
    return schema.append(FIELD)


def add(table: pa.Table, job_id: str, shard: Shard) -> pa.Table:
    """The table with the column at its end."""
    start = f"{job_id}/{shard.name}/"
    values = pa.array([f"{start}{row}" for row in range(table.num_rows)], pa.string())
    return table.append_column(FIELD, values)


def parse(value: str) -> RowLineage:
    """Raises InvalidInput for what is no value of the column."""
    found = FORM.fullmatch(value)
    if found is None:
        raise InvalidInput(
            f"{value[:80]!r} is no value of {NAME}; accepted is JOB/SHARD/ROW, such as "
            "generate-0123456789abcdef0123/00000/17"
        )
    return RowLineage(found[1], int(found[2]), int(found[3]))
