"""Impute: the rows of a source with their missing cells drawn from what a model has learnt, given the cells there are.

Every row and every column of the source comes out, in its order; cells that hold something are never touched. Several
draws of each row tell how sure what was filled in is (multiple imputation: Rubin 1987).
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
from pydantic import Field

from genai_core import artifact
from genai_core.artifact import Header
from genai_core.errors import MissingCapability
from genai_core.tables.given import columns_to_impute, imputed_schema
from pipelines.batch import Batch, run_batch
from pipelines.batch_job import WatermarkedJob, check_batch, describe, find_header, identity
from pipelines.context import Context
from pipelines.kept_constraints import counted
from pipelines.outputs.sink import Sink
from pipelines.plan import Plan, Shard, plan_scoring, shard_seed
from pipelines.provenance import watermarks
from pipelines.running.shard_work import Produce, ShardWork
from pipelines.source_rows import chunks, joined, refuse_overlap, rows_together, source_facts
from pipelines.sources import Source, SourceSettings, open_source
from pipelines.tracking import resolve_model

if TYPE_CHECKING:
    from genai_core.fitted import FittedModel


class ImputeJob(WatermarkedJob):
    """Fill the missing cells of a source into a directory of Parquet files."""

    job: Literal["impute"] = "impute"
    source: SourceSettings
    columns: list[str] | None = Field(
        None, min_length=1, description="whose missing cells are filled; default: all that the model knows"
    )
    draws: int = Field(
        1, ge=1, le=10_000, description="how often each row is completed; from 2 on `_draw` counts them"
    )
    imputed: bool = Field(
        False, description="a column `_imputed` with the names of the columns that were filled in a row"
    )
    seed: int = Field(0, ge=0, lt=2**63, description="the same seed gives the same values")


def check(job: ImputeJob, context: Context) -> list[str]:
    """Facts about a job that can run; raises InvalidInput for one that cannot."""
    refuse_overlap(job.source, job.sink)
    found = find_header(job, context)
    if isinstance(found, Header):
        _refuse_unable(job, found.kind, found.modality)
    elif found is not None:
        _refuse_unable(job, found.model.kind, found.modality.kind)
    facts = [describe(job, found)]
    if context.promised_output(job.source.path) is not None:
        facts.append(f"source: {job.source.path}, which a job above will write")
        return facts + check_batch(job, 0, None, None)
    source = open_source(job.source)
    source.require_rows()
    output, known, plan = None, None, plan_of(job, source)
    if isinstance(found, Header):
        output = _output(job, found, resolve_model(job.model, job.track.uri).directory, source)
        known = identity(job, "impute", found.digest, plan)
    facts.append(f"source: {source.rows:,} rows before the filter in {len(source.fragments())} file(s)")
    return facts + check_batch(job, plan.rows, output, known)


def _refuse_unable(job: ImputeJob, kind: str, modality: str) -> None:
    if kind != "autoregressive" or modality != "tabular":
        raise MissingCapability(
            f"this {kind} model of {modality} records cannot fill missing cells; train an autoregressive model of "
            "tables for that"
        )
    watermarks.require(job.watermark, kind, modality)


def _output(job: ImputeJob, header: Header, directory: Path, source: Source) -> pa.Schema:
    """The schema of the rows. Raises InvalidInput for columns that are not there, and names that are taken."""
    artifact.check_schema(header, source.schema)
    codec: Any = artifact.load_codec(directory)
    columns_to_impute(codec, source.schema, job.columns)
    watermarks.require_room(job.watermark, codec)
    return imputed_schema(source.schema, codec.schema, job.draws, job.imputed)


def plan_of(job: ImputeJob, source: Source) -> Plan:
    """Shards of rows to read, each of which is completed `draws` times."""
    found = plan_scoring(source, max(job.rows_per_shard // job.draws, 1)).shards
    return Plan(
        "impute",
        tuple(Shard(s.id, shard_seed(job.seed, s.id), s.rows * job.draws, s.payload) for s in found),
    )


def run(job: ImputeJob, context: Context) -> dict[str, Any]:
    """Impute, or finish what an interrupted run of the same job left."""
    refuse_overlap(job.source, job.sink)
    model = resolve_model(job.model, job.track.uri)
    header = artifact.verify(model.directory)
    _refuse_unable(job, header.kind, header.modality)
    source = open_source(job.source)
    source.require_rows()
    batch = Batch(
        verb="impute",
        job=job,
        model=model,
        header=header,
        plan=plan_of(job, source),
        producer=producer,
        output=_output(job, header, model.directory, source),
        synthetic=True,
        options={
            "columns": job.columns,
            "draws": job.draws,
            "mark": job.imputed,
            "watermark": watermarks.option(job.watermark),
        },
        reader=source.reader,
        source=source_facts(job.source, source),
        summarise=lambda sink, provenance: _summary(sink),
    )
    return run_batch(batch, context)


def _summary(sink: Sink) -> dict[str, Any]:
    """How many cells of each column were filled, over all draws."""
    found: Counter[str] = Counter()
    for record in sink.records():
        found.update(record.get("imputed", {}))
    return {"imputed": dict(sorted(found.items()))}


def producer(work: ShardWork, model: FittedModel) -> Produce:
    """What a worker does with a shard, chunk by chunk."""
    if work.reader is None:
        raise ValueError("imputing needs a reader")
    reader = work.reader
    options = {**work.options, "watermark": watermarks.of_option(work.options["watermark"])}
    schema = imputed_schema(reader.schema, model.schema, options["draws"], options["mark"])
    together = max(rows_together(model.codec) // options["draws"], 1)

    def produce(shard: Shard) -> tuple[pa.Table, dict[str, Any]]:
        parts: list[pa.Table] = []
        filled: Counter[str] = Counter()
        for number, chunk in enumerate(chunks(reader, shard, reader.schema.names, together)):
            parts.append(model.impute(chunk.table, seed=shard_seed(shard.seed, number), **options))
            for name in chunk.table.column_names:
                count = chunk.table[name].null_count * options["draws"] - parts[-1][name].null_count
                filled.update({name: count} if count else {})
        table = joined(parts, schema)
        return table, counted(model, table) | ({"imputed": dict(filled)} if filled else {})

    return produce
