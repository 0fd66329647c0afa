"""Translate: every record of a source as it would look in another domain, a value of the label that a model learnt.

Every shard gives one file: carried columns, source_file and source_row, the model's own columns with the translated
record and the new label, and `fault`, why a record could not be read. Records that are in that domain already stay as
they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
from pydantic import Field

from genai_core import artifact, catalog
from genai_core.artifact import Header
from genai_core.errors import InvalidInput
from pipelines.batch import Batch, run_batch
from pipelines.batch_job import SyntheticJob, check_batch, describe, find_header, identity, require
from pipelines.context import Context
from pipelines.pages.overviews import of_rows
from pipelines.plan import Shard, plan_scoring
from pipelines.running.shard_work import Produce, ShardWork
from pipelines.source_rows import (
    FAULT,
    FILE,
    PLACE,
    ROW,
    Chunk,
    chunks,
    joined,
    refuse_overlap,
    rows_together,
    source_facts,
    with_kept,
)
from pipelines.sources import Reader, SourceSettings, open_source
from pipelines.tracking import resolve_model

if TYPE_CHECKING:
    from genai_core.fitted import FittedModel


class TranslateJob(SyntheticJob):
    """Translate the records of a source into a directory of Parquet files."""

    job: Literal["translate"] = "translate"
    source: SourceSettings
    to: str | bool | int = Field(description="the domain to translate to: a value of the model's label")
    keep: list[str] = Field(default_factory=list, description="columns of the source to carry to the output")


def check(job: TranslateJob, context: Context) -> list[str]:
    """Facts about a job that can run; raises InvalidInput for one that cannot."""
    refuse_overlap(job.source, job.sink)
    found = find_header(job, context)
    if found is not None:
        _require_translation(found.kind if isinstance(found, Header) else found.model.kind)
    facts = [describe(job, found), f"to: {job.to}"]
    if isinstance(found, Header):
        _check_domain(job, resolve_model(job.model, job.track.uri).directory)
    if context.promised_output(job.source.path) is not None:
        facts.append(f"source: {job.source.path}, which a job above will write")
        return facts + check_batch(job, 0, None, None)
    source = open_source(job.source)
    output = known = None
    if isinstance(found, Header):
        artifact.check_schema(found, source.schema)
        output = output_schema(source.reader, job.keep, found.schema)
        known = identity(job, "translate", found.digest, plan_scoring(source, job.rows_per_shard))
    source.require_rows()
    facts.append(f"source: {source.rows:,} rows before the filter in {len(source.fragments())} file(s)")
    return facts + check_batch(job, source.rows, output, known)


def run(job: TranslateJob, context: Context) -> dict[str, Any]:
    """Translate, or finish what an interrupted run of the same job left."""
    refuse_overlap(job.source, job.sink)
    model = resolve_model(job.model, job.track.uri)
    header = artifact.verify(model.directory)
    _require_translation(header.kind)
    _check_domain(job, model.directory)
    source = open_source(job.source)
    artifact.check_schema(header, source.schema)
    output = output_schema(source.reader, job.keep, header.schema)
    source.require_rows()
    batch = Batch(
        verb="translate",
        job=job,
        model=model,
        header=header,
        plan=plan_scoring(source, job.rows_per_shard),
        producer=producer,
        output=output,
        synthetic=True,
        options={"to": job.to, "keep": job.keep},
        reader=source.reader,
        source=source_facts(job.source, source),
        summarise=of_rows(header.modality, header.schema.names[0]),
    )
    return run_batch(batch, context)


def _require_translation(kind: str) -> None:
    require("translates", kind, catalog.FAMILIES[kind].capabilities, "translate")


def _check_domain(job: TranslateJob, directory: Path) -> None:
    """Against what the model has seen: that needs more of it than the header."""
    codec = artifact.load_codec(directory)
    try:
        codec.given({codec.schema.names[-1]: job.to})
    except InvalidInput as error:
        raise InvalidInput(f"to: {error}") from None


def output_schema(reader: Reader, keep: Sequence[str], model: pa.Schema) -> pa.Schema:
    """Of the translated rows; InvalidInput for columns to keep that are not there, and for names taken twice."""
    own = pa.schema([*PLACE, pa.field(FAULT, pa.string())])
    taken = [name for name in model.names if name in own.names]
    if taken:
        raise InvalidInput(
            f"the model's column {taken[0]!r} has the name of one that the output has of its own; "
            "rename it and train again"
        )
    nullable = [field.with_nullable(True) for field in model]  # what could not be read is null
    return with_kept(reader, keep, [*PLACE, *nullable, own.field(FAULT)])


class Translator:
    """Translates the pieces of a shard, chunk by chunk."""

    def __init__(self, options: dict[str, Any], reader: Reader, model: FittedModel) -> None:
        self.model, self.reader = model, reader
        self.to = options["to"]
        self.schema = output_schema(reader, options["keep"], model.schema)
        self.columns = list(dict.fromkeys([*model.schema.names, *options["keep"]]))
        self.together = rows_together(model.codec)

    def __call__(self, shard: Shard) -> tuple[pa.Table, dict[str, Any]]:
        """The table, and how many records could not be read for which reason."""
        faults: Counter[str] = Counter()
        found = chunks(self.reader, shard, self.columns, self.together)
        table = joined((self._translated(chunk, faults) for chunk in found), self.schema)
        return table, {"faults": dict(faults)} if faults else {}

    def _translated(self, chunk: Chunk, faults: Counter[str]) -> pa.Table:
        translated, unread = self.model.translate(chunk.table, self.to)
        faults.update(reason.partition(":")[0] for reason in unread.values())
        made = {
            FILE: chunk.files,
            ROW: pa.array(chunk.rows),
            **{name: translated.column(name) for name in translated.column_names},
            FAULT: pa.array([unread.get(row) for row in range(len(chunk.rows))], pa.string()),
        }
        columns = [made[name] if name in made else chunk.table.column(name) for name in self.schema.names]
        return pa.Table.from_arrays(columns, schema=self.schema)


def producer(work: ShardWork, model: FittedModel) -> Produce:
    """What a worker does with a shard."""
    if work.reader is None:
        raise ValueError("translating needs a reader")
    return Translator(dict(work.options), work.reader, model)
