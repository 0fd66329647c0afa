"""The keys that every batch job has, and what can be known of one before it runs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pyarrow as pa
from pydantic import Field, model_validator

from genai_core.artifact import Header, read_header
from genai_core.errors import MissingCapability, Unavailable
from pipelines.context import Context
from pipelines.gate_settings import GateSettings
from pipelines.masking import mask_text
from pipelines.outputs.sink import Sink
from pipelines.plan import ROWS_PER_SHARD, Plan, code_fingerprint, job_id, versions
from pipelines.provenance import keys, lineage_column
from pipelines.provenance.keys import SigningKey
from pipelines.provenance.watermarks import WatermarkSettings
from pipelines.running.ray_session import check_compute
from pipelines.settings import ComputeSettings, Settings, SinkSettings, TrackSettings
from pipelines.stores import storage
from pipelines.tracking import check_reachable, peek_model

if TYPE_CHECKING:
    from pipelines.train import TrainJob

PLACE = {
    "compute",
    "track",
    "sink",
    "name",
    "sign",
    "gate",
}  # of a job: where it runs, what it is called, who signs and who lets pass; not what it makes
TEXT_BYTES = 16  # assumed of a value without a fixed width
COMPRESSED = 0.5  # of the plain width, what Parquet takes at most in practice


class BatchJob(Settings):
    """The keys that every batch job has."""

    name: str | None = Field(
        None, min_length=1, max_length=200, description="what the job is called in MLflow"
    )
    model: str = Field(
        min_length=1, description="models:/NAME@ALIAS, models:/NAME/VERSION, or an artifact directory"
    )
    rows_per_shard: int = Field(
        ROWS_PER_SHARD, ge=1, le=10_000_000, description="rows made, written and resumed as one"
    )
    sink: SinkSettings
    compute: ComputeSettings = ComputeSettings()
    track: TrackSettings = TrackSettings()

    @property
    def spec(self) -> dict[str, Any]:
        """What decides the output's bytes, without secrets."""
        return masked(self.model_dump(mode="json", exclude=PLACE))

    @property
    def title(self) -> str:
        return self.name or Path(storage.mask(self.sink.path)).name or "batch"


class SignSettings(Settings):
    """Whose signature an output gets."""

    key: str = Field(min_length=1, description="directory that `genai keys init` made")


class SyntheticJob(BatchJob):
    """The keys of a batch job whose rows a model makes."""

    lineage: bool = Field(
        False, description="a column `_lineage` that says of every row which job, shard and row of it made it"
    )
    mark: bool = Field(
        True, description="say in every file's footer that it is synthetic, and where it comes from"
    )
    sign: SignSettings | None = Field(
        None, description="sign every file (C2PA); default: with the key in GENAI_SIGNING_KEY, if that is set"
    )

    gate: GateSettings | None = Field(
        None, description="what must hold before the rows are published; what fails is held, with a report"
    )

    @model_validator(mode="after")
    def _signed_is_marked(self) -> Self:
        if self.sign is not None and not self.mark:
            raise ValueError(
                "sign: a signature says that the files are synthetic; leave out `mark: false`, or `sign`"
            )
        return self


class WatermarkedJob(SyntheticJob):
    """The keys of a batch job that draws values one after the other, so that a key can decide them."""

    watermark: WatermarkSettings | None = Field(
        None, description="a keyed watermark in what is drawn: autoregressive models of tables and texts"
    )

    @property
    def spec(self) -> dict[str, Any]:
        """What decides the bytes: of a watermark the key's id, not the name of the variable that holds it."""
        plain = super().spec
        return plain | {"watermark": {"key_id": self.watermark.key_id}} if self.watermark else plain


def is_marked(job: BatchJob) -> bool:
    """Whether the files say where they come from; those of scores always do."""
    return not isinstance(job, SyntheticJob) or job.mark


def has_lineage(job: BatchJob) -> bool:
    """Whether every row says where it was made."""
    return isinstance(job, SyntheticJob) and job.lineage


def signing_key(job: BatchJob) -> SigningKey | None:
    """The key that signs the output; None: nobody's. Raises InvalidInput for one that cannot sign."""
    if not isinstance(job, SyntheticJob) or not job.mark:
        return None
    directory = keys.directory_for(job.sign.key if job.sign else None)
    return keys.load(directory) if directory else None


def gate_of(job: BatchJob) -> GateSettings | None:
    """What must hold before the output is published."""
    return job.gate if isinstance(job, SyntheticJob) else None


def output_schema(job: BatchJob, schema: pa.Schema) -> pa.Schema:
    """Of the files: the rows' own, and their lineage where it was asked for."""
    return lineage_column.with_column(schema) if has_lineage(job) else schema


def identity(job: BatchJob, verb: str, digest: str, plan: Plan) -> dict[str, Any]:
    """{"job_id", "verb", "parts"}: equal parts give equal bytes."""
    parts = {
        "model": digest,
        "plan": plan.hash,
        "spec": job.spec,
        "code": code_fingerprint(),
        "versions": versions(),
    }
    return {"job_id": job_id(verb, parts), "verb": verb, "parts": parts}


def check_batch(
    job: BatchJob, rows: int, output: pa.Schema | None, known: Mapping[str, Any] | None
) -> list[str]:
    """Facts about where a job runs and writes; `known` is its identity, if that can be known already.

    Raises Unavailable or OutputExists.
    """
    check_place(job, rows, output or pa.schema([]))
    key = signing_key(job)
    signed = [f"signed: with the certificate {key.fingerprint}"] if key else []
    unmarked = [] if is_marked(job) else ["mark: false: the files will not say that they are synthetic"]
    watermark = getattr(job, "watermark", None)
    return [
        *signed,
        *unmarked,
        *([f"watermark: key {watermark.key_id}"] if watermark else []),
        *_gate_facts(job, output),
        f"output: {storage.mask(job.sink.path)} ({_state(job, known)})",
        f"runner: {job.compute.runner}, {job.compute.workers} worker(s)",
    ]


def _gate_facts(job: BatchJob, output: pa.Schema | None) -> list[str]:
    """Of a gate that can work; the model's kind is known where the output's schema is."""
    from pipelines.gate import check_gate

    if (gate := gate_of(job)) is None:
        return []
    directory = peek_model(job.model, job.track.uri) if output is not None else None
    header = read_header(directory) if directory is not None else None
    return check_gate(gate, output, header.kind if header else None, header.modality if header else None)


def _state(job: BatchJob, known: Mapping[str, Any] | None) -> str:
    sink = Sink(job.sink.path)
    if known is not None:
        sink.check(known)
    with storage.explained(sink.uri):
        if sink.job() is None:
            sink.refuse_strangers()
            return "free"
        if known is None:
            return "holds a job's output, which the run resumes if it is this job's"
        return "this job is finished already" if sink.manifest() else "this job resumes"


def check_place(job: BatchJob, rows: int, output: pa.Schema) -> None:
    """Unavailable when the tracking store, the cluster or the space that the job needs is not there; InvalidInput when
    its key cannot sign, or rows cannot carry their lineage."""
    signing_key(job)
    output = output_schema(job, output)
    check_space(job.sink.path, rows, output)
    check_reachable(job.track)
    check_compute(job.compute)


def check_space(uri: str, rows: int, schema: pa.Schema) -> None:
    """Unavailable when the output certainly does not fit, or cannot be written."""
    filesystem, path = storage.resolve(uri)
    free = storage.free_bytes(uri)
    if free is None or filesystem.type_name != "local":
        return
    where = storage.nearest_directory(path)
    if not where.is_dir():
        raise Unavailable(f"{uri}: a file is in the way, {where}; choose another sink.path")
    if not os.access(where, os.W_OK | os.X_OK):
        raise Unavailable(
            f"{where} cannot be written into; choose another sink.path, or change its owner or mode"
        )
    needed = int(rows * COMPRESSED * sum(_width(f.type) for f in schema))
    if needed > free:
        raise Unavailable(
            f"{rows:,} rows need about {needed / 1e9:,.1f} GB, {where} has {free / 1e9:,.1f} GB free; free some, "
            "choose another sink.path, or make fewer rows"
        )


def _width(kind: pa.DataType) -> float:
    try:
        return float(kind.bit_width / 8)
    except ValueError:
        return TEXT_BYTES


def find_header(job: BatchJob, context: Context) -> Header | TrainJob | None:
    """For `check`: the model's header, the earlier job that will make it, or None when only the run can tell."""
    promised = context.promised_model(job.model)
    if promised is not None:
        return promised
    directory = peek_model(job.model, job.track.uri)
    return None if directory is None else read_header(directory)


def describe(job: BatchJob, found: Header | TrainJob | None) -> str:
    """A fact about the model."""
    if isinstance(found, Header):
        return f"model: {job.model} ({found.kind}, {len(found.schema)} columns, {found.digest[:19]})"
    if found is None:
        return f"model: {job.model} (its files lie where only the run can see them)"
    return f"model: {job.model} ({found.model.kind}), which the job {found.name} above will train"


def require(capability: str, kind: str, capabilities: tuple[str, ...], verb: str) -> None:
    """MissingCapability unless the family can do what the verb needs."""
    if capability not in capabilities:
        raise MissingCapability(f"this {kind} model cannot {verb}; it can give: {', '.join(capabilities)}")


def masked(value: Any) -> Any:
    """Without the secrets that paths and texts may spell out."""
    if isinstance(value, str):
        return mask_text(value)
    if isinstance(value, Mapping):
        return {key: masked(inner) for key, inner in value.items()}
    return [masked(inner) for inner in value] if isinstance(value, list | tuple) else value
