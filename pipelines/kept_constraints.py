"""How many rows of an output break a constraint that the model's job declared: counted in every row that is written."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from genai_core.tables.constraints import broken
from pipelines.outputs.sink import Sink
from pipelines.plan import Plan

if TYPE_CHECKING:
    import pyarrow as pa

    from genai_core.fitted import FittedModel


def counted(model: FittedModel, table: pa.Table) -> dict[str, Any]:
    """Facts for a shard's record; none of models that keep no constraints."""
    constraints = getattr(model.codec, "constraints", ())  # of tables
    return {"constraints": broken(constraints, table)} if constraints else {}


def summed(sink: Sink, plan: Plan) -> dict[str, Any]:
    """For the manifest: rows that break each constraint, and all together."""
    first = sink.committed(plan.shards[0]) if plan.shards else None
    if (
        first is not None and "constraints" not in first
    ):  # then none has, and a hundred thousand need not be read
        return {}
    found: Counter[str] = Counter()
    for record in sink.records():
        found.update(record.get("constraints", {}))
    return {"constraints": dict(found), "constraints_broken": found.total()} if found else {}


def said(summary: dict[str, Any]) -> list[str]:
    """In words, for whoever runs the job: of constraints that could not be kept."""
    return [
        f"{rows:,} row(s) break {text}: what was asked for or given leaves no other value"
        for text, rows in summary.get("constraints", {}).items()
        if rows
    ]
