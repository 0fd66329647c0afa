"""Train: a source becomes a fitted model, kept as an artifact and tracked in MLflow."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
from pydantic import Field, model_validator

from genai_core import catalog
from genai_core.codec import MIN_ROWS
from genai_core.errors import InvalidData, InvalidInput, OutputExists, Unavailable
from genai_core.hyperparameters import (
    Autoregressive,
    FitSettings,
    ModalitySettings,
    ModelSettings,
    TabularSettings,
)
from pipelines.batch_job import check_space, masked
from pipelines.context import Context
from pipelines.pages.training_report import FILE, training_page
from pipelines.plan import code_fingerprint, job_id, versions
from pipelines.provenance import cards, rights
from pipelines.provenance.rights import RightsSettings
from pipelines.running.ray_session import check_compute
from pipelines.settings import ComputeSettings, Settings, SinkSettings, TrackSettings
from pipelines.sources import SourceSettings, open_source
from pipelines.stores import storage, whole_directories
from pipelines.training import continuing
from pipelines.training.fitting import Fitting
from pipelines.training.reading import fit_codec, identifiers, learnt_columns

if TYPE_CHECKING:
    from genai_core.fitted import FittedModel
    from pipelines.sources.source import Source
    from pipelines.tracking import Run


class TrainJob(Settings):
    """Fit a model and keep it: in MLflow, in a directory (sink), or both."""

    job: Literal["train"] = "train"
    name: str = Field(min_length=1, max_length=200)
    source: SourceSettings
    modality: ModalitySettings = TabularSettings()
    model: ModelSettings = Autoregressive()
    fit: FitSettings = FitSettings()
    compute: ComputeSettings = ComputeSettings()
    track: TrackSettings = TrackSettings()
    sink: SinkSettings | None = Field(None, description="directory for the artifact, beside MLflow")
    rights: RightsSettings = RightsSettings()
    checkpoints: str = Field(
        ".genai/checkpoints",
        min_length=1,
        description="where an interrupted fit resumes from; shared storage on a cluster",
    )

    @model_validator(mode="before")
    @classmethod
    def _kind_of_the_default(cls, given: Any) -> Any:
        """`model: {from: ...}` alone goes on from an autoregressive model, the default."""
        model = given.get("model") if isinstance(given, dict) else None
        if not isinstance(model, dict) or "from" not in model or "kind" in model:
            return given
        return {**given, "model": {"kind": "autoregressive", **model}}

    @model_validator(mode="after")
    def _kept_somewhere(self) -> TrainJob:
        if self.sink is None and not self.track.enabled:
            raise ValueError("the model would be lost: give a sink, or leave tracking enabled")
        return self

    @model_validator(mode="after")
    def _one_gpu_a_worker(self) -> TrainJob:
        if (gpus := self.compute.gpus_per_worker) > 1:
            raise ValueError(
                f"compute.gpus_per_worker: {gpus:g}: a worker trains on one GPU, the others would idle; "
                f"give one to each of {int(self.compute.workers * gpus)} compute.workers"
            )
        return self

    @model_validator(mode="after")
    def _a_record_for_each(self) -> TrainJob:
        parts = self.compute.workers * self.fit.accumulate
        if self.fit.batch_size and self.fit.scale_with_workers == "none" and self.fit.batch_size < parts:
            raise ValueError(
                f"fit.batch_size: {self.fit.batch_size} records a step are fewer than {self.compute.workers} "
                f"worker(s) times fit.accumulate: {self.fit.accumulate}"
            )
        return self

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the model: the job without where it runs and where it is kept."""
        found = self.model_dump(mode="json", include={"source", "modality", "model", "fit"})
        found["source"]["path"] = storage.mask(self.source.path)  # it goes into the artifact: no secrets
        found |= {"rights": masked(self.rights.stated)} if self.rights.stated else {}  # and so does this
        return found | {"workers": self.compute.crew}  # the batches of two workers are not those of one


def check(job: TrainJob, context: Context) -> list[str]:
    """Facts about a job that can run; raises InvalidInput for one that cannot."""
    from pipelines.tracking import check_reachable

    said = rights.check(job.rights, job.modality.kind)
    source = open_source(job.source)
    scores = catalog.scores_of(job.model.kind, job.modality.kind, job.fit.privacy is not None)
    parent = (
        None if (waits := continuing.promised(job, context)) else continuing.parent_of(job, source.schema)
    )
    schema = learnt_columns(job, source) if parent is None else parent.header.schema
    _check_privacy(job)
    source.require_rows()
    if source.rows < MIN_ROWS:
        raise InvalidData(
            f"{job.source.path} holds {source.rows} row(s); at least {MIN_ROWS} are needed to learn from"
        )
    check_reachable(job.track)
    if not waits:
        _check_sink(job, _id(job, source, parent))
    check_compute(job.compute)
    family = catalog.FAMILIES[job.model.kind]
    return [
        f"source: {source.rows:,} rows before the filter in {len(source.fragments())} file(s)",
        f"columns to learn: {len(schema)}",
        *([] if job.model.start or job.fit.privacy else identifiers(job, source, schema)),
        *([f"goes on from {job.model.start}"] if job.model.start else []),
        f"{job.model.kind}: {', '.join(family.capabilities)}; scores: {', '.join(scores)}",
        f"training runs {_place(job.compute)}",
        *said,
    ]


def _check_privacy(job: TrainJob) -> None:
    if job.fit.privacy is None:
        return
    from genai_core.privacy.checks import check_privacy

    check_privacy(job.model.kind, job.modality, job.fit, goes_on=job.model.start is not None)
    if not in_process(job.compute):
        raise InvalidInput(
            "fit.privacy: noise is added once, in one process; leave out compute.workers, compute.runner and GPUs"
        )


def run(job: TrainJob, context: Context) -> dict[str, Any]:
    """Train, keep and track; a job that was done before is not done again."""
    from pipelines.tracking import Run, finished_run, resolve_model

    started = time.monotonic()
    for fact in rights.check(job.rights, job.modality.kind):
        context.log(f"{job.name}: {fact}")
    source = open_source(job.source)
    catalog.scores_of(job.model.kind, job.modality.kind)
    parent = continuing.parent_of(job, source.schema)
    job = continuing.with_settings_of(job, parent)
    if parent is None:
        learnt_columns(job, source)
    _check_privacy(job)
    this = _id(job, source, parent)
    _check_sink(job, this)
    if earlier := finished_run(job.track, job.name, this):
        context.log(f"{job.name}: the same job is done already: {earlier['model']}")
        if job.sink is not None and not Path(job.sink.path).exists():
            _publish(resolve_model(earlier["model"], job.track.uri).directory, Path(job.sink.path))
        return {"status": "done", "job_id": this, "reused": True, **earlier}
    context.log(f"{job.name}: training runs {_place(job.compute)}")
    params = {"job": job.identity, "job_id": this}
    with whole_directories.alone(job.checkpoints, this):
        with (
            Run.start(
                job.track,
                name=job.name,
                kind="train",
                spec_text=context.spec_text,
                params=params,
                job_id=this,
                log=context.log,
            ) as tracked,
            tempfile.TemporaryDirectory(prefix="genai-") as scratch,
        ):
            fitted = _fit(job, source, this, parent, tracked, Path(scratch), context)
            result = _keep(job, fitted, tracked, Path(scratch), source)
        _forget(job, this, context)
    facts = fitted.provenance["training"]
    if skipped := fitted.provenance["data"].get("skipped"):
        result["unreadable"] = skipped
        told = ", ".join(f"{count} {reason}" for reason, count in skipped.items())
        context.log(f"{job.name}: left out what could not be read: {told}")
    return {
        "status": "done",
        "job_id": this,
        **result,
        **facts,
        "seconds": round(time.monotonic() - started, 1),
    }


def _forget(job: TrainJob, this: str, context: Context) -> None:
    """The model is kept: its checkpoints are of no more use. A store that fails now does not fail the job."""
    from pipelines.training.checkpoints import Checkpoints  # brings torch, which `genai check` does without

    try:
        Checkpoints(job.checkpoints, this).clear()
    except Unavailable as error:
        context.log(f"{job.name}: the checkpoints of {this} were left: {error}")


def _id(job: TrainJob, source: Source, parent: continuing.Parent | None = None) -> str:
    own = {} if parent is None else {"parent": parent.header.digest}
    job = continuing.with_settings_of(job, parent)
    return job_id("train", {"job": job.identity, "data": source.digest, "code": code_fingerprint(), **own})


def id_of(job: TrainJob) -> str:
    """The id under which the job is tracked and resumed. Reads the source's heads; raises as they do."""
    source = open_source(job.source)
    return _id(job, source, continuing.parent_of(job, source.schema))


def _place(compute: ComputeSettings) -> str:
    if in_process(compute):
        return "in this process"
    where = (
        "on this machine's Ray"
        if compute.runner in ("auto", "ray")
        else f"on the Ray cluster {compute.runner}"
    )
    return f"{where} with {compute.crew} worker(s)"


def in_process(compute: ComputeSettings) -> bool:
    """One CPU worker needs no cluster: starting one costs more than many a fit."""
    if compute.runner == "inline":
        return True
    return compute.runner == "auto" and compute.workers == 1 and compute.gpus_per_worker == 0


def _fit(
    job: TrainJob,
    source: Source,
    this: str,
    parent: continuing.Parent | None,
    tracked: Run,
    scratch: Path,
    context: Context,
) -> FittedModel:
    codec, private = fit_codec(job, source, context, parent)
    for note in codec.notes:
        context.log(f"{job.name}: {note}")
    provenance = {
        "job_id": this,
        "name": job.name,
        "job": job.identity,
        "data": {
            "path": storage.mask(job.source.path),
            "filter": job.source.filter,
            "digest": source.digest,
            "rows": codec.rows,
            "notes": list(codec.notes),
        },
        "versions": versions(),
        **({} if parent is None else {"parent": parent.facts}),
        **({"rights": masked(job.rights.stated)} if job.rights.stated else {}),
    }
    tracked.log_model_input(None if parent is None else parent.model)
    tracked.log_dataset(
        job.name,
        storage.mask(job.source.path),
        source.digest,
        codec.schema,
        codec.rows,
        "training",
        job.source.filter,
    )

    def report(metrics: dict[str, float], step: int) -> None:
        tracked.log_metrics(metrics, step)
        health = ("fine", "warning", "alarm")[int(metrics.get("health_level", 0))]
        if "epsilon" in metrics:
            context.progress.advance(0, epsilon=metrics["epsilon"])
        else:
            context.progress.advance(0, loss=metrics["validation_loss"], health=health)

    context.progress.start(100, "%", title="training")
    fitting = Fitting(
        job,
        this,
        source,
        codec,
        provenance,
        scratch,
        report,
        context.progress,
        tell=lambda line: context.log(f"{job.name}: {line}"),
        show=lambda facts: tracked.log_artifact(training_page(job.name, facts), FILE),
        parent=None if parent is None else parent.model.directory,
        private=private,
    )
    if in_process(job.compute):
        from pipelines.training.local_training import fit_here

        fitted = fit_here(fitting)
    else:
        from pipelines.training.ray_training import fit_on_ray

        fitted = fit_on_ray(fitting)
    tracked.flush()  # a run that finds the model does not train, and has no metrics of its own
    return fitted


def _check_sink(job: TrainJob, this: str) -> None:
    """A local directory that is free, or holds this job's model; MLflow carries models to stores."""
    if job.sink is None:
        return
    if "://" in job.sink.path:
        raise InvalidInput(
            f"sink.path {storage.mask(job.sink.path)!r}: a train job writes to a local directory; leave the sink out, "
            "and MLflow keeps the model wherever its artifacts are"
        )
    check_space(job.sink.path, 0, pa.schema([]))
    if not Path(job.sink.path).exists():
        return
    from genai_core.artifact import HEADER, read_header

    path = Path(job.sink.path)
    if not path.is_dir() or (any(path.iterdir()) and not (path / HEADER).exists()):
        raise OutputExists(
            f"{job.sink.path} is there and holds no model; choose another directory for sink.path"
        )
    if (path / HEADER).exists() and read_header(path).provenance.get("job_id") != this:
        raise OutputExists(
            f"{job.sink.path} holds another job's model; choose another sink.path or remove it"
        )


def _keep(job: TrainJob, fitted: FittedModel, tracked: Run, scratch: Path, source: Source) -> dict[str, Any]:
    """Write the artifact, log and register it; the facts that the result names."""
    from genai_core.artifact import read_header

    directory = scratch / "artifact"
    digest = fitted.save(directory)
    cards.write_with_model(directory)
    result: dict[str, Any] = {"model_digest": digest, "rows": fitted.provenance["data"]["rows"]}
    private, training = fitted.provenance.get("privacy"), fitted.provenance["training"]
    if private:
        result["epsilon"], result["delta"] = private["epsilon"], private["delta"]
        facts = {name: float(private[name]) for name in ("epsilon", "delta")}
    else:
        facts = {"validation_loss": training["validation_loss"]}
    version = tracked.log_model(directory, read_header(directory), metrics=facts)
    if job.sink is not None:  # after MLflow: a disk that is full now does not cost the model
        _publish(directory, Path(job.sink.path))
        result["output"] = job.sink.path
    result["model"] = version.uri if version else result.get("output")
    result["run_id"] = tracked.run_id
    tracked.set_tags(
        {"genai.model": result["model"], "genai.model_digest": digest, "genai.training_data": source.digest}
    )
    return result


def _publish(directory: Path, target: Path) -> None:
    """Complete or not at all: a copy beside the target, then one rename."""
    beside = whole_directories.new_beside(target)
    shutil.copytree(directory, beside, dirs_exist_ok=True)
    whole_directories.replace(target, beside)
