"""Generate: rows that a fitted model draws, with exactly the schema of its training data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from genai_core import artifact, catalog
from genai_core.artifact import Header
from genai_core.tables.conditions import check_sampling
from pipelines.batch import Batch, run_batch
from pipelines.batch_job import SyntheticJob, check_batch, describe, find_header, identity, require
from pipelines.context import Context
from pipelines.pages.overviews import of_rows
from pipelines.plan import Shard, plan_generation
from pipelines.provenance import watermarks
from pipelines.provenance.watermarks import WatermarkSettings
from pipelines.running.shard_work import Produce, ShardWork
from pipelines.tracking import resolve_model

if TYPE_CHECKING:
    import pyarrow as pa

    from genai_core.fitted import FittedModel


class GenerateJob(SyntheticJob):
    """Draw rows from a model into a directory of Parquet files."""

    job: Literal["generate"] = "generate"
    rows: int = Field(ge=1, le=10**12)
    seed: int = Field(0, ge=0, lt=2**63, description="the same seed gives the same rows")
    where: dict[str, Any] = Field(
        default_factory=dict,
        description="conditions that every row fulfils, such as {origin: JFK, month: [6, 7]}",
    )
    prompt: str | None = Field(None, min_length=1, description="what every text starts with")
    temperature: float = Field(
        1.0, gt=0, le=10, description="below 1: more typical rows, above: more varied ones"
    )
    top_p: float = Field(
        1.0,
        gt=0,
        le=1,
        description="draw from the most probable values only, which hold this much probability",
    )
    watermark: WatermarkSettings | None = Field(
        None, description="a keyed watermark in what is drawn: autoregressive models of tables and texts"
    )

    @property
    def spec(self) -> dict[str, Any]:
        """What decides the bytes: of a watermark the key's id, not the name of the variable that holds it."""
        plain = super().spec
        return plain | {"watermark": {"key_id": self.watermark.key_id}} if self.watermark else plain


def check(job: GenerateJob, context: Context) -> list[str]:
    """Facts about a job that can run; raises InvalidInput for one that cannot."""
    found = find_header(job, context)
    plan = plan_generation(job.rows, job.seed, job.rows_per_shard)
    output = known = None
    if isinstance(found, Header):
        _refuse_unable(job, found.kind, found.modality)
        output, known = found.schema, identity(job, "generate", found.digest, plan)
        _check_conditions(job, resolve_model(job.model, job.track.uri).directory)
    elif found is not None:
        _refuse_unable(job, found.model.kind, found.modality.kind)
    facts = [describe(job, found), f"{job.rows:,} rows in {len(plan.shards)} shard(s)"]
    facts += [f"watermark: key {job.watermark.key_id}"] if job.watermark else []
    return facts + check_batch(job, job.rows, output, known)


def _refuse_unable(job: GenerateJob, kind: str, modality: str) -> None:
    require("samples", kind, catalog.FAMILIES[kind].capabilities, "generate rows")
    check_sampling(kind, modality, job.where, job.prompt, job.temperature, job.top_p)
    if job.watermark is not None:
        watermarks.require(job.watermark, kind, modality)


def _check_conditions(job: GenerateJob, directory: Path) -> None:
    """Against what the model has seen: that needs more of it than the header."""
    if job.where or job.prompt is not None:
        artifact.load_codec(directory).given(job.where, job.prompt)


def run(job: GenerateJob, context: Context) -> dict[str, Any]:
    """Generate, or finish what an interrupted run of the same job left."""
    model = resolve_model(job.model, job.track.uri)
    header = artifact.verify(model.directory)
    _refuse_unable(job, header.kind, header.modality)
    _check_conditions(job, model.directory)
    batch = Batch(
        verb="generate",
        job=job,
        model=model,
        header=header,
        plan=plan_generation(job.rows, job.seed, job.rows_per_shard),
        producer=producer,
        output=header.schema,
        synthetic=True,
        options={
            "where": job.where,
            "prompt": job.prompt,
            "temperature": job.temperature,
            "top_p": job.top_p,
            "watermark": job.watermark.key_env if job.watermark else None,
        },
        summarise=of_rows(header.modality, header.schema.names[0]),
    )
    return run_batch(batch, context)


def producer(work: ShardWork, model: FittedModel) -> Produce:
    """What a worker does with a shard."""
    options = {**work.options, "watermark": watermarks.of_option(work.options.get("watermark"))}

    def produce(shard: Shard) -> tuple[pa.Table, dict[str, Any]]:
        return model.sample(shard.rows, seed=shard.seed, first=shard.payload["first"], **options), {}

    return produce
