"""Generate: rows that a fitted model draws, with exactly the schema of its training data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from genai_core import artifact, catalog
from genai_core.artifact import Header
from genai_core.tables.conditions import check_sampling, conditions_of, sharpening
from genai_core.tables.given import check_given, given_schema
from pipelines.batch import Batch, run_batch
from pipelines.batch_job import WatermarkedJob, check_batch, describe, find_header, identity, require
from pipelines.context import Context
from pipelines.kept_constraints import counted
from pipelines.pages.overviews import of_rows
from pipelines.plan import Plan, Shard, plan_generation, plan_scoring, shard_seed
from pipelines.provenance import watermarks
from pipelines.running.shard_work import Produce, ShardWork
from pipelines.source_rows import chunks, joined, refuse_overlap, rows_together, source_facts
from pipelines.sources import Source, SourceSettings, open_source
from pipelines.tracking import resolve_model

if TYPE_CHECKING:
    import pyarrow as pa

    from genai_core.fitted import FittedModel


Temperature = Annotated[float, Field(gt=0, le=10)]
Share = Annotated[float, Field(gt=0, le=1)]
Probability = Annotated[float, Field(ge=0, le=1)]


class GenerateJob(WatermarkedJob):
    """Draw rows from a model into a directory of Parquet files."""

    job: Literal["generate"] = "generate"
    rows: int | None = Field(None, ge=1, le=10**12)
    given: SourceSettings | None = Field(
        None,
        description="in place of rows: a table with some of the columns; the others are drawn for every row",
    )
    per_row: int = Field(1, ge=1, le=1_000_000, description="rows drawn for each row of `given`")
    seed: int = Field(0, ge=0, lt=2**63, description="the same seed gives the same rows")
    where: dict[str, Any] = Field(
        default_factory=dict,
        description="conditions that every row fulfils, such as {origin: JFK, month: [6, 7], delay: {min: 60}}",
    )
    balance: dict[str, dict[str, Probability]] = Field(
        default_factory=dict,
        description="shares of the rows that values of a column shall have, such as {late: {yes: 0.5}}",
    )
    prompt: str | None = Field(None, min_length=1, description="what every text starts with")
    temperature: Temperature | dict[str, Temperature] = Field(
        1.0,
        description="below 1: more typical rows, above: more varied ones; or one of each column, {age: 0.8}",
    )
    top_p: Share | dict[str, Share] = Field(
        1.0,
        description="draw from the most probable values only, which hold this much probability; or {age: 0.9}",
    )

    @model_validator(mode="after")
    def _rows_or_given(self) -> GenerateJob:
        if (self.rows is None) == (self.given is None):
            raise ValueError(
                "give rows, how many to draw, or given, a table whose rows are completed; one of them"
            )
        if self.given is None and self.per_row != 1:
            raise ValueError("per_row goes with given; how many rows there shall be is `rows`")
        if self.given is not None and (self.watermark is not None or self.prompt is not None):
            raise ValueError("given goes with neither watermark nor prompt")
        return self


def check(job: GenerateJob, context: Context) -> list[str]:
    """Facts about a job that can run; raises InvalidInput for one that cannot."""
    found = find_header(job, context)
    if isinstance(found, Header):
        _refuse_unable(job, found.kind, found.modality)
    elif found is not None:
        _refuse_unable(job, found.model.kind, found.modality.kind)
    facts = [describe(job, found)]
    if job.given is not None and context.promised_output(job.given.path) is not None:
        facts.append(f"given: {job.given.path}, which a job above will write")
        return facts + check_batch(job, 0, None, None)
    source = _source(job)
    plan = plan_of(job, source)
    output = known = None
    if isinstance(found, Header):
        output = _output(job, found, resolve_model(job.model, job.track.uri).directory, source)
        known = identity(job, "generate", found.digest, plan)
    facts.append(f"{plan.rows:,} rows in {len(plan.shards)} shard(s)")
    return facts + check_batch(job, plan.rows, output, known)


def _refuse_unable(job: GenerateJob, kind: str, modality: str) -> None:
    require("samples", kind, catalog.FAMILIES[kind].capabilities, "generate rows")
    more = {"given": job.given, "balance": job.balance}
    check_sampling(kind, modality, job.where, job.prompt, job.temperature, job.top_p, **more)
    watermarks.require(job.watermark, kind, modality)


def _source(job: GenerateJob) -> Source | None:
    if job.given is None:
        return None
    refuse_overlap(job.given, job.sink)
    source = open_source(job.given)
    source.require_rows()
    return source


def _output(job: GenerateJob, header: Header, directory: Path, source: Source | None) -> pa.Schema:
    """The schema of the rows. Raises InvalidInput for what cannot be asked of what the model has seen."""
    codec: Any = artifact.load_codec(directory)
    conditions_of(codec, job.where, job.prompt, job.balance)
    sharpening(codec, job.temperature, job.top_p)
    watermarks.require_room(job.watermark, codec)
    written = codec.written if header.modality == "tabular" else header.schema
    if source is None:
        return written
    check_given(codec, source.schema, job.where, job.balance)
    return given_schema(source.schema, written)


def plan_of(job: GenerateJob, source: Source | None) -> Plan:
    """Shards of rows to draw, or of rows that are given, each of which makes `per_row` rows."""
    if source is None:
        return plan_generation(job.rows or 0, job.seed, job.rows_per_shard)
    shards, first = [], 0
    for shard in plan_scoring(source, max(job.rows_per_shard // job.per_row, 1)).shards:
        facts = {**shard.payload, "first": first}
        rows = shard.rows * job.per_row
        shards.append(Shard(shard.id, shard_seed(job.seed, shard.id), rows, facts))
        first += rows
    return Plan("generate", tuple(shards))


def run(job: GenerateJob, context: Context) -> dict[str, Any]:
    """Generate, or finish what an interrupted run of the same job left."""
    model = resolve_model(job.model, job.track.uri)
    header = artifact.verify(model.directory)
    _refuse_unable(job, header.kind, header.modality)
    source = _source(job)
    given = job.given is not None
    options = {"where": job.where, "temperature": job.temperature, "top_p": job.top_p, "balance": job.balance}
    drawn = {"prompt": job.prompt, "watermark": watermarks.option(job.watermark)}
    batch = Batch(
        verb="generate",
        job=job,
        model=model,
        header=header,
        plan=plan_of(job, source),
        producer=completing if given else producer,
        output=_output(job, header, model.directory, source),
        synthetic=True,
        options={**options, **({"per_row": job.per_row} if given else drawn)},
        reader=source.reader if source else None,
        source=source_facts(job.given, source) if job.given and source else None,
        summarise=of_rows(header.modality, header.schema.names[0]),
    )
    return run_batch(batch, context)


def producer(work: ShardWork, model: FittedModel) -> Produce:
    """What a worker does with a shard."""
    options = {**work.options, "watermark": watermarks.of_option(work.options.get("watermark"))}

    def produce(shard: Shard) -> tuple[pa.Table, dict[str, Any]]:
        table = model.sample(shard.rows, seed=shard.seed, first=shard.payload["first"], **options)
        return table, counted(model, table)

    return produce


def completing(work: ShardWork, model: FittedModel) -> Produce:
    """What a worker does with a shard of given rows, chunk by chunk."""
    if work.reader is None:
        raise ValueError("completing rows needs a reader")
    reader, options, per_row = work.reader, dict(work.options), work.options["per_row"]
    together = max(rows_together(model.codec) // per_row, 1)

    def produce(shard: Shard) -> tuple[pa.Table, dict[str, Any]]:
        parts, first = [], shard.payload["first"]
        for number, chunk in enumerate(chunks(reader, shard, reader.schema.names, together)):
            seed = shard_seed(shard.seed, number)
            parts.append(model.sample_given(chunk.table, seed=seed, first=first, **options))
            first += chunk.table.num_rows * per_row
        table = joined(parts, given_schema(reader.schema, model.written))
        return table, counted(model, table)

    return produce
