"""Training that goes on from a registered model: which one, whether it fits, and what is kept of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa

from genai_core import artifact
from genai_core.artifact import Header
from genai_core.errors import InvalidInput
from genai_core.hyperparameters import TabularSettings
from pipelines.context import Context
from pipelines.stores import storage
from pipelines.tracking import ResolvedModel, resolve_model

if TYPE_CHECKING:
    from pipelines.train import TrainJob


class Parent(NamedTuple):
    """The model that a job goes on from."""

    model: ResolvedModel
    header: Header

    @property
    def facts(self) -> dict[str, Any]:
        """What the new model keeps of it."""
        from genai_core.growth import parent_facts  # brings torch, which `genai check` does without

        return {
            "uri": storage.mask(self.model.uri),
            **parent_facts(self.header.provenance, self.header.digest),
        }


def promised(job: TrainJob, context: Context) -> bool:
    """Whether a job above in the same file will train the model to go on from."""
    return job.model.start is not None and context.promised_model(job.model.start) is not None


def parent_of(job: TrainJob, schema: pa.Schema) -> Parent | None:
    """The parent, its bytes checked; None for a job that starts anew. Raises InvalidInput and SchemaMismatch."""
    if job.model.start is None:
        return None
    model = resolve_model(job.model.start, job.track.uri)
    header = artifact.verify(model.directory)
    if header.modality != "tabular" or job.modality.kind != "tabular":
        raise InvalidInput(
            f"model.from: a job goes on from models of tables; {job.model.start} learnt {header.modality}"
        )
    if header.kind != job.model.kind:
        raise InvalidInput(
            f"model.from: {job.model.start} is a model of kind {header.kind}; write model: {{kind: {header.kind}, "
            f"from: {job.model.start}}}"
        )
    own = sorted(job.model.model_fields_set - {"kind", "start"})
    if own or job.modality != TabularSettings():
        named = f"model.{own[0]}" if own else "modality"
        raise InvalidInput(f"{named}: a job that goes on from a model keeps its settings; leave {named} out")
    artifact.check_schema(header, schema)
    return Parent(model, header)


def with_settings_of(job: TrainJob, parent: Parent | None) -> TrainJob:
    """The job with the parent's network settings."""
    if parent is None:
        return job
    settings = type(job.model).model_validate({**parent.header.settings, "from": job.model.start})
    return job.model_copy(update={"model": settings})
