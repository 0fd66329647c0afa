"""Augment: the rows of a source, and synthetic rows of the classes that there are too few of; then, whether they help.

The output holds every row of the source once, as it is, and the synthetic rows, told apart by the column `_synthetic`.
Classifiers that learn with and without the synthetic rows are compared on real rows that the model has not learnt
from (`pipelines.scoring.uplift`); what came out stands in the result, the manifest and the report.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pyarrow as pa
from pydantic import Field, model_validator

from genai_core import artifact, catalog
from genai_core.artifact import Header
from genai_core.errors import InvalidData, InvalidInput, nearest
from genai_core.tables.conditions import check_sampling
from pipelines.batch import Batch, run_batch
from pipelines.batch_job import WatermarkedJob, check_batch, describe, find_header, require
from pipelines.context import Context
from pipelines.kept_constraints import counted
from pipelines.outputs.sink import Sink
from pipelines.plan import Plan, Shard, plan_scoring, shard_seed
from pipelines.provenance import watermarks
from pipelines.provenance.watermarks import SYNTHETIC
from pipelines.running.shard_work import Produce, ShardWork
from pipelines.scoring.uplift import Holdout, check_uplift, count_classes, find_holdout
from pipelines.source_rows import refuse_overlap, source_facts
from pipelines.sources import Source, SourceSettings, open_source, schemas
from pipelines.tracking import resolve_model

if TYPE_CHECKING:
    from genai_core.fitted import FittedModel

Rows = Annotated[int, Field(ge=1, le=10**12)]
Share = Annotated[float, Field(gt=0, lt=1)]


class AugmentJob(WatermarkedJob):
    """Add synthetic rows of rare classes to a source, and check that they help."""

    job: Literal["augment"] = "augment"
    source: SourceSettings
    target: str = Field(min_length=1, description="column with the classes")
    classes: dict[str, Rows] = Field(
        default_factory=dict, description="class -> synthetic rows to add, such as {yes: 5000}"
    )
    balance: dict[str, Share] = Field(
        default_factory=dict, description="class -> its share of the output, such as {yes: 0.5}"
    )
    at_least: Share | None = Field(
        None,
        description="share of the output that every class is brought up to; default, without classes and balance: half "
        "of an even share (of two classes a quarter)",
    )
    seed: int = Field(0, ge=0, lt=2**63, description="the same seed gives the same rows")
    holdout: SourceSettings | None = Field(
        None, description="real rows to test on; the model must not have learnt from them"
    )
    holdout_share: float = Field(
        0.2, gt=0, le=0.5, description="of the source's rows, to test on where no holdout is given or known"
    )
    check_rows: int = Field(
        100_000,
        ge=100,
        le=10_000_000,
        description="real rows that the check learns from and tests on, at most",
    )
    check_seeds: int = Field(3, ge=1, le=100, description="classifiers that are compared, each with a seed")
    on_no_gain: Literal["refuse", "skip", "warn"] = Field(
        "warn",
        description="when no gain is shown: warn, or refuse (nothing is published, the job fails); skip: no check",
    )

    @model_validator(mode="after")
    def _asked_once(self) -> AugmentJob:
        given = [n for n in ("classes", "balance", "at_least") if getattr(self, n)]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} say twice how many rows to add; keep one of them")
        if sum(self.balance.values()) >= 1:
            raise ValueError("the shares of balance leave nothing for the other classes; together below 1")
        return self


def rows_to_add(counts: Mapping[str, int], job: AugmentJob) -> dict[str, int]:
    """Class -> synthetic rows to add, from the real rows of each class. InvalidInput: no such class, or it has more."""
    for name in [*job.classes, *job.balance]:
        if name not in counts:
            raise InvalidInput(
                f"{job.target!r} has no class {name!r} in the source{nearest(name, list(counts))}; "
                f"its classes: {', '.join(counts)}"
            )
    if job.classes:
        return dict(job.classes)
    if job.balance:
        return _added(counts, job.balance, exact=True)
    least = job.at_least or 1 / (2 * len(counts))
    if least * len(counts) > 1:
        raise InvalidInput(
            f"at_least: {least:g}: {len(counts)} classes cannot all have that share; give less"
        )
    shares: dict[str, float] = {}
    while True:  # rows that are added make the shares of all others smaller
        added = _added(counts, shares)
        total = sum(counts.values()) + sum(added.values())
        short = {n: least for n, c in counts.items() if n not in shares and c < least * total - 1}
        if not short or len(shares) + len(short) == len(counts):
            return {name: rows for name, rows in added.items() if rows}
        shares |= short


def _added(counts: Mapping[str, int], shares: Mapping[str, float], exact: bool = False) -> dict[str, int]:
    rest = sum(count for name, count in counts.items() if name not in shares)
    total = rest / (1 - sum(shares.values()))
    found = {name: round(total * share) - counts[name] for name, share in shares.items()}
    for name, rows in found.items():
        if exact and rows <= 0:
            raise InvalidInput(
                f"balance.{name}: the source has {counts[name]:,} row(s) of it already, a share of "
                f"{shares[name]:g} or more; rows are added and none taken away"
            )
    return {name: max(rows, 0) for name, rows in found.items()}


def plan_augmentation(source: Source, job: AugmentJob, wanted: Mapping[str, int]) -> Plan:
    """Shards that read the source's rows, then shards that draw rows of each class."""
    real = plan_scoring(source, job.rows_per_shard).shards
    shards = [replace(s, payload={**s.payload, "footer": {"synthetic": False}}) for s in real]
    before = source.rows  # numbers in a row go on after the real ones
    for name, rows in sorted(wanted.items()):
        for first in range(0, rows, job.rows_per_shard):
            number = len(shards)
            facts = {"where": {job.target: name}, "first": before + first, "footer": {"synthetic": True}}
            at_most = min(job.rows_per_shard, rows - first)
            shards.append(Shard(number, shard_seed(job.seed, number), at_most, facts))
        before += rows
    return Plan("augment", tuple(shards))


def output_schema(source: Source, model: pa.Schema) -> pa.Schema:
    """The source's columns, then `_synthetic`; columns that the model does not know are null in synthetic rows."""
    if SYNTHETIC in source.schema.names:
        raise InvalidInput(f"the source has a column {SYNTHETIC!r} already; leave it out with source.columns")
    fields = [f if f.name in model.names else f.with_nullable(True) for f in source.schema]
    return pa.schema([*fields, pa.field(SYNTHETIC, pa.bool_(), nullable=False)], source.schema.metadata)


def check(job: AugmentJob, context: Context) -> list[str]:
    """Facts about a job that can run; raises InvalidInput for one that cannot."""
    refuse_overlap(job.source, job.sink)
    found = find_header(job, context)
    facts = [describe(job, found)]
    if isinstance(found, Header):
        _refuse_unable(job, found.kind, found.modality)
    elif found is not None:
        _refuse_unable(job, found.model.kind, found.modality.kind)
    if context.promised_output(job.source.path) is not None:
        facts.append(f"source: {job.source.path}, which a job above will write")
        return [*facts, *check_batch(job, 0, None, None)]
    source = open_source(job.source)
    source.require_rows()
    _refuse_no_target(job, source.schema)
    output = None
    if isinstance(found, Header):
        artifact.check_schema(found, source.schema)
        output = output_schema(source, found.schema)
        _check_model(job, resolve_model(job.model, job.track.uri).directory, [*job.classes, *job.balance])
        facts.append(f"test rows: {find_holdout(job, source, found).said}")
    facts.append(f"source: {source.rows:,} rows before the filter in {len(source.fragments())} file(s)")
    return facts + check_batch(job, source.rows + sum(job.classes.values()), output, None)


def _refuse_unable(job: AugmentJob, kind: str, modality: str) -> None:
    require("samples", kind, catalog.FAMILIES[kind].capabilities, "augment a source")
    if modality != "tabular":
        raise InvalidInput(f"this model learnt {modality} records; a job augment adds rows to tables")
    check_sampling(kind, modality, {job.target: None})
    watermarks.require(job.watermark, kind, modality)


def _refuse_no_target(job: AugmentJob, schema: pa.Schema) -> None:
    if job.target not in schema.names:
        raise InvalidInput(
            f"target names {job.target!r}, which is no column of the source{nearest(job.target, schema.names)}"
        )


def _check_model(job: AugmentJob, directory: Any, classes: list[str]) -> None:
    """InvalidInput for a class that the model has never seen, and for a watermark that has no room."""
    codec = artifact.load_codec(directory)
    watermarks.require_room(job.watermark, codec)
    if classes:
        codec.given({job.target: classes})


def run(job: AugmentJob, context: Context) -> dict[str, Any]:
    """Augment and check, or finish what an interrupted run of the same job left."""
    refuse_overlap(job.source, job.sink)
    model = resolve_model(job.model, job.track.uri)
    header = artifact.verify(model.directory)
    _refuse_unable(job, header.kind, header.modality)
    source = open_source(job.source)
    source.require_rows()
    _refuse_no_target(job, source.schema)
    artifact.check_schema(header, source.schema)
    codec: Any = artifact.load_codec(model.directory)
    drawn = codec.written  # with columns that are made
    output = output_schema(source, drawn)
    holdout = find_holdout(job, source, header)
    counts = count_classes(job, source, holdout)
    wanted = rows_to_add(counts.all, job)
    if not wanted:
        raise InvalidInput(f"no class of {job.target!r} is below the share asked for: {counts.said}")
    _check_model(job, model.directory, list(wanted))
    counts.refuse_few(wanted, holdout)
    for line in _told(job, counts.all, wanted, holdout, output, drawn):
        context.log(f"{job.title}: {line}")
    batch = Batch(
        verb="augment",
        job=job,
        model=model,
        header=header,
        plan=plan_augmentation(source, job, wanted),
        producer=producer,
        output=output,
        synthetic=True,
        options={
            "schema": output,
            "columns": source.schema.names,
            "watermark": watermarks.option(job.watermark),
        },
        reader=source.reader,
        source=source_facts(job.source, source),
        summarise=lambda sink, provenance: _summary(job, source, holdout, header, wanted, sink, context),
    )
    return run_batch(batch, context)


def _told(
    job: AugmentJob,
    counts: Mapping[str, int],
    wanted: Mapping[str, int],
    holdout: Holdout,
    output: pa.Schema,
    drawn: pa.Schema,
) -> list[str]:
    added = ", ".join(f"{rows:,} of {name} to {counts[name]:,} real ones" for name, rows in wanted.items())
    lines = [f"adding {added}"]
    if job.on_no_gain != "skip":
        lines.append(f"test rows: {holdout.said}")
    unknown = [name for name in output.names[:-1] if name not in drawn.names]
    if unknown:
        lines.append(f"the model does not know {', '.join(unknown)}: null in synthetic rows")
    return lines


def _summary(
    job: AugmentJob,
    source: Source,
    holdout: Holdout,
    header: Header,
    wanted: Mapping[str, int],
    sink: Sink,
    context: Context,
) -> dict[str, Any]:
    facts: dict[str, Any] = {"synthetic_rows": sum(wanted.values()), "added": dict(wanted)}
    if job.on_no_gain == "skip":
        return facts | {"uplift": "not checked: on_no_gain is skip"}
    known = [name for name in source.schema.names if name in header.schema.names]
    return facts | check_uplift(job, source, holdout, known, list(wanted), sink, context)


def producer(work: ShardWork, model: FittedModel) -> Produce:
    """What a worker does with a shard: read its rows, or draw them."""
    if work.reader is None:
        raise ValueError("augmenting needs a reader")
    schema, columns, reader = work.options["schema"], list(work.options["columns"]), work.reader
    mark = watermarks.of_option(work.options["watermark"])

    def produce(shard: Shard) -> tuple[pa.Table, dict[str, Any]]:
        if not shard.pieces:
            of = shard.payload
            asked = {"where": of["where"], "first": of["first"], "watermark": mark}
            made = model.sample(shard.rows, seed=shard.seed, **asked)
            facts = {"synthetic": made.num_rows, **counted(model, made)}
            return mixed(made, schema, synthetic=True), facts
        parts = [reader.read_with_rows(piece, columns)[0] for piece in shard.pieces]
        facts = {"synthetic": 0, **counted(model, model.schema.empty_table())}
        return mixed(pa.concat_tables(parts), schema, synthetic=False), facts

    return produce


def mixed(table: pa.Table, schema: pa.Schema, synthetic: bool) -> pa.Table:
    """The table in the output's schema. InvalidData: a value does not fit the type of the source's column."""
    arrays = []
    for field in schema:
        if field.name == SYNTHETIC:
            arrays.append(pa.repeat(pa.scalar(synthetic), table.num_rows))
        elif field.name not in table.column_names:
            arrays.append(pa.nulls(table.num_rows, field.type))
        else:
            column = table.unify_dictionaries().column(field.name).combine_chunks()
            try:
                arrays.append(schemas.cast(column, field.type))
            except pa.ArrowException as error:
                raise InvalidData(
                    f"column {field.name!r}: what the model draws does not fit {field.type}: {error}"
                ) from error
    return pa.Table.from_arrays(arrays, schema=schema)
