"""Score: how unusual each row of a source is to a fitted model, and which rows stand out.

Every shard gives one file: carried columns, source_file and source_row, the scores (higher = more anomalous),
p_value of the first score, and for the most anomalous rows `why`. When all are done `_anomalies.parquet` lists the
rows that are flagged, the most anomalous first.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
from pydantic import Field

from genai_core import artifact, catalog
from genai_core.artifact import Header
from genai_core.errors import MissingCapability, nearest
from pipelines.batch import Batch, run_batch
from pipelines.batch_job import BatchJob, check_batch, describe, find_header, identity
from pipelines.context import Context
from pipelines.lakes.findings import LakeFacts, find
from pipelines.pages.overviews import of_anomalies
from pipelines.plan import Plan, plan_scoring
from pipelines.running.shard_work import Produce, ShardWork
from pipelines.scoring.anomalies import Calibration, Question
from pipelines.scoring.feedback import digest_of, read_labels, weigh
from pipelines.scoring.scored_rows import Scorer, output_schema
from pipelines.source_rows import refuse_overlap, source_facts
from pipelines.sources import Source, SourceSettings, open_source
from pipelines.tracking import ResolvedModel, resolve_model

if TYPE_CHECKING:
    from genai_core.fitted import FittedModel
    from pipelines.train import TrainJob

TOP_K = 100  # rows listed when the job asks for neither fdr nor top_k


class ScoringJob(BatchJob):
    """What is to be scored, and what of it to be told."""

    source: SourceSettings
    scores: list[str] | None = Field(
        None, min_length=1, description="default: the first that the model can give; for tables an ensemble"
    )
    fdr: float | None = Field(
        None, gt=0, lt=1, description="flag as many rows as possible with at most this share of false alarms"
    )
    top_k: int | None = Field(
        None, ge=1, le=10_000_000, description="list only so many of the most anomalous rows"
    )
    keep: list[str] = Field(default_factory=list, description="columns of the source to carry to the output")

    unique: list[str] = Field(
        default_factory=list,
        description="columns that are a key together: rows that share one are listed in _duplicates.parquet",
    )
    calibration: Calibration = Field(
        "plain",
        description="weighted: rows of partitions whose columns moved are held against held-out rows weighted like "
        "the partition",
    )

    labels: str | None = Field(
        None,
        min_length=1,
        description="table of flagged rows that people have judged (source_file, source_row, label: accept or "
        "reject); sharpens the threshold",
    )

    @property
    def spec(self) -> dict[str, Any]:
        """With the content of the labels, which decides what is listed."""
        return super().spec | ({} if self.labels is None else {"labels_digest": digest_of(self.labels)})

    @property
    def carried(self) -> list[str]:
        """Columns of the source that the output has too."""
        return list(dict.fromkeys([*self.keep, *self.unique]))

    @property
    def listed(self) -> int | None:
        """How many rows are listed at the most; None: all that the false-discovery rate flags."""
        return self.top_k if self.top_k or self.fdr else TOP_K


class ScoreJob(ScoringJob):
    """Score the rows of a source into a directory of Parquet files."""

    job: Literal["score"] = "score"


def check(job: ScoreJob, context: Context) -> list[str]:
    """Facts about a job that can run; raises InvalidInput for one that cannot."""
    refuse_overlap(job.source, job.sink)
    found = find_header(job, context)
    kind = found.kind if isinstance(found, Header) else None if found is None else found.model.kind
    refuse_private(found)
    names = None if found is None or kind is None else score_names(job, kind, modality_of(found))
    facts = [describe(job, found)] + ([f"scores: {', '.join(names)}"] if names else [])
    if context.promised_output(job.source.path) is not None:
        return [
            *facts,
            f"source: {job.source.path}, which a job above will write",
            *check_batch(job, 0, None, None),
        ]
    source = open_source(job.source)
    modality = "tabular" if found is None else modality_of(found)
    output = output_schema(source.reader, job.carried, names or ["score"], modality)
    known = None
    if isinstance(found, Header):
        artifact.check_schema(found, source.schema)
        known = identity(job, "score", found.digest, plan_scoring(source, job.rows_per_shard))
    source.require_rows()
    facts += check_labels(job)
    facts.append(f"source: {source.rows:,} rows before the filter in {len(source.fragments())} file(s)")
    return facts + check_batch(job, source.rows, output, known)


def run(job: ScoreJob, context: Context) -> dict[str, Any]:
    """Score, or finish what an interrupted run of the same job left."""
    refuse_overlap(job.source, job.sink)
    model = resolve_model(job.model, job.track.uri)
    header = artifact.verify(model.directory)
    refuse_private(header)
    names = score_names(job, header.kind, header.modality)
    source = open_source(job.source)
    output = output_schema(source.reader, job.carried, names, header.modality)
    artifact.check_schema(header, source.schema)
    source.require_rows()
    check_labels(job)
    batch = scoring_batch(job, model, header, names, source, plan_scoring(source, job.rows_per_shard), output)
    return run_batch(batch, context)


def scoring_batch(
    job: ScoringJob,
    model: ResolvedModel,
    header: Header,
    names: list[str],
    source: Source,
    plan: Plan,
    output: pa.Schema,
    lake: LakeFacts | None = None,
) -> Batch:
    """The rows of a plan, scored into the sink of the job."""
    unique, calibration = tuple(job.unique), job.calibration
    question = Question(names[0], job.fdr, job.listed, output, unique=unique, calibration=calibration)
    return Batch(
        verb="score",
        job=job,
        model=model,
        header=header,
        plan=plan,
        producer=producer,
        output=output,
        synthetic=False,
        options={"scores": names, "fdr": job.fdr, "top_k": job.listed, "keep": job.carried},
        reader=source.reader,
        source=source_facts(job.source, source),
        summarise=lambda sink, provenance: (
            find(sink, provenance, _with_feedback(question, job, model), model.directory, lake)
            | of_anomalies(sink, header.modality, header.schema.names[0], names[0], source)
        ),
    )


def _with_feedback(question: Question, job: ScoringJob, model: ResolvedModel) -> Question:
    if job.labels is None:
        return question
    fitted = artifact.load(model.directory)
    return replace(question, feedback=weigh(job.labels, job.source, fitted, question.score, job.fdr))


def check_labels(job: ScoringJob) -> list[str]:
    """A fact about the labels, if there are any. InvalidData."""
    if job.labels is None:
        return []
    said = read_labels(job.labels).said
    return [f"labels: {sum(said.values()):,} accepted, {len(said) - sum(said.values()):,} rejected"]


def modality_of(found: Header | TrainJob) -> str:
    """Of a model, or of the one that an earlier job will train."""
    return found.modality if isinstance(found, Header) else found.modality.kind


def refuse_private(found: Header | TrainJob | None) -> None:
    """Raise MissingCapability for a model under differential privacy: no scores of held-out rows are kept with it."""
    private = found.provenance.get("privacy") if isinstance(found, Header) else found and found.fit.privacy
    if private:
        raise MissingCapability(
            "this model is trained with differential privacy: it keeps no scores of rows that were held out, so "
            "nothing could be flagged. Train one without fit.privacy to score with, which can stay where the data are"
        )


def score_names(job: ScoringJob, kind: str, modality: str) -> list[str]:
    """The scores to give, the first of them with p-values.

    MissingCapability when the family has no such score, or the modality no columns to weight by.
    """
    if job.calibration == "weighted" and modality != "tabular":
        raise MissingCapability(
            f"calibration: weighted is for tables, whose columns can be seen to move; this model is of {modality} "
            "records: leave it out, or say calibration: plain"
        )
    able = catalog.scores_of(kind, modality)
    for name in job.scores or ():
        if name not in able:
            raise MissingCapability(
                f"this {kind} model cannot give the score {name!r}{nearest(name, able)}; it can give: {', '.join(able)}"
            )
    return list(dict.fromkeys(job.scores or able[:1]))


def producer(work: ShardWork, model: FittedModel) -> Produce:
    """What a worker does with a shard."""
    if work.reader is None:
        raise ValueError("scoring needs a reader")
    return Scorer(work.options, work.reader, model)
