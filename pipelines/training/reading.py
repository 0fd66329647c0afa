"""A source's columns before the first step: which are learnt, what is odd about them, and the codec."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from genai_core import artifact, catalog
from genai_core.hyperparameters import TabularSettings
from pipelines.context import Context
from pipelines.sources.source import Source
from pipelines.training import continuing

if TYPE_CHECKING:
    from genai_core.codec import Codec
    from genai_core.privacy.gradients import PrivateFit
    from pipelines.train import TrainJob


def learnt_columns(job: TrainJob, source: Source) -> pa.Schema:
    """The schema of what is learnt. Raises InvalidData."""
    return catalog.codec_class(job.modality.kind).learnt_columns(source.schema, job.modality)


def identifiers(job: TrainJob, source: Source, schema: pa.Schema) -> list[str]:
    """Columns of the first rows that look like identifiers or personal data. InvalidData where they are refused."""
    if not isinstance(job.modality, TabularSettings) or job.modality.identifiers == "learn":
        return []
    from genai_core.tables.identifiers import WATCHED_ROWS, Watch, settle

    watch = Watch(schema)
    for batch in source.batches(schema.names, batch_rows=WATCHED_ROWS):
        watch.update(batch)
        if watch.rows >= WATCHED_ROWS:
            break
    return settle(watch.found(), job.modality.identifiers)[1]


def fit_codec(
    job: TrainJob, source: Source, context: Context, parent: continuing.Parent | None = None
) -> tuple[Codec, PrivateFit | None]:
    """Read the source once, telling how far; of a fit with `privacy` also what that has spent."""
    context.progress.start(source.rows, "rows", title="reading")
    learnt = learnt_columns(job, source) if parent is None else parent.header.schema

    def counted() -> Any:
        for batch in source.batches(learnt.names, batch_rows=codec.rows_together):
            context.progress.advance(batch.num_rows)
            yield batch

    codec = catalog.codec_class(job.modality.kind)
    if parent is not None:
        from genai_core.growth import extended

        return extended(artifact.load_codec(parent.model.directory), counted(), source.schema), None
    from genai_core.train import read

    reading = job.modality.for_job(job.model.kind, job.fit.seed)
    return read(counted(), source.schema, reading, job.model.kind, job.fit)
