"""Evaluate: synthetic records beside those that a model was trained on, and beside real ones that it never saw.

    evaluation.json   every figure with its interval, and the same for real records in place of synthetic ones
    report.html       the same for people: sentences first, then pictures, then figures

`evaluation.json` is written last: a job whose file is there is not done again.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
from pydantic import Field

from genai_core import artifact, catalog
from genai_core.errors import InvalidData
from genai_core.hyperparameters import ModalitySettings, TabularSettings
from pipelines.batch_job import check_space, masked
from pipelines.comparison import (
    LINEAGE,
    Comparison,
    check_columns,
    evaluation_of,
    facts_of,
    opened,
    require_columns,
)
from pipelines.context import Context
from pipelines.outputs.sink import Sink
from pipelines.plan import job_id
from pipelines.settings import SinkSettings, TrackSettings
from pipelines.sources import Source, SourceSettings, open_source
from pipelines.stores import storage
from pipelines.tracking import ResolvedModel, Run, check_reachable, left_open, peek_model, resolve_model

if TYPE_CHECKING:
    from genai_core.evaluation import Evaluation

FILE, REPORT = "evaluation.json", "report.html"


class EvaluateJob(Comparison):
    """Judge synthetic records: fidelity, diversity, utility, privacy."""

    job: Literal["evaluate"] = "evaluate"
    name: str | None = Field(
        None, min_length=1, max_length=200, description="what the job is called in MLflow"
    )
    synthetic: SourceSettings = Field(description="synthetic records, such as the output of a generate job")
    modality: ModalitySettings = Field(
        TabularSettings(), description="how records are read, as for the training"
    )
    model: str | None = Field(
        None,
        min_length=1,
        description="the model that made them, for attacks with its likelihoods; may be left out",
    )
    sink: SinkSettings
    track: TrackSettings = TrackSettings()

    @property
    def title(self) -> str:
        return self.name or Path(storage.mask(self.sink.path)).name or "evaluate"


def check(job: EvaluateJob, context: Context) -> list[str]:
    """Facts about a job that can run; raises InvalidInput for one that cannot."""
    facts = [f"output: {storage.mask(job.sink.path)}", f"up to {job.rows:,} rows of each kind"]
    check_space(job.sink.path, 0, pa.schema([]))
    check_reachable(job.track)
    if job.model is not None and context.promised_model(job.model) is None:
        peek_model(job.model, job.track.uri)
    sources = opened(job, context)
    if context.promised_output(job.synthetic.path) is not None:
        return [*facts, f"synthetic: {job.synthetic.path}, which a job above will write"]
    sources["synthetic"] = open_source(job.synthetic)
    names = columns_of(job, sources["synthetic"].schema)
    check_columns(job, names, sources)
    if len(sources) == 3 and (job.model is None or context.promised_model(job.model) is None):
        if (model := _model(job)) is not None:
            _refuse_unread(model, sources)
        Sink(job.sink.path).check(_identity(job, sources, model))
    return [*facts, *(f"{label}: {source.rows:,} rows" for label, source in sources.items())]


def columns_of(job: EvaluateJob, schema: pa.Schema) -> list[str]:
    """The columns that are compared: those of the synthetic records that the modality learns."""
    codec = catalog.codec_class(job.modality.kind)
    names = [n for n in codec.learnt_columns(schema, job.modality).names if n != LINEAGE]
    if not names:
        raise InvalidData("synthetic: it has no column that could be compared")
    return names if job.modality.kind == "tabular" else names[:1]


def run(job: EvaluateJob, context: Context) -> dict[str, Any]:
    """Compare, write figures and report, tell MLflow; a job that is done is not done again."""
    started = time.monotonic()
    sources = opened(job, Context()) | {"synthetic": open_source(job.synthetic)}
    names = columns_of(job, sources["synthetic"].schema)
    check_columns(job, names, sources)
    model = _model(job)
    if model is not None:
        _refuse_unread(model, sources)
    sink, known = Sink(job.sink.path), _identity(job, sources, model)
    sink.prepare(known)
    done = read(sink)
    if (
        done is not None
        and done.get("job_id") == known["job_id"]
        and not left_open(job.track, known["job_id"])
    ):
        return _result(job, done, started) | {"reused": True}
    with _run(job, known["job_id"], context) as tracked:
        if done is None or done.get("job_id") != known["job_id"]:
            directory = model.directory if model else None
            found = evaluation_of(job, sources, job.modality.kind, names, directory, context.log)
            done = write(sink, found, known["job_id"], facts_of(sources), job.title)
        for label, facts in done["sources"].items():
            schema = sources[label].schema
            tracked.log_dataset(
                label, facts["path"], facts["digest"], schema, facts["rows"], label, facts["filter"]
            )
        tracked.log_model_input(model)
        tracked.log_metrics(numbers_of(done))
        if sink.filesystem.type_name == "local":
            for name in (REPORT, FILE):
                tracked.log_artifact(Path(sink.path(name)), name)
        for verdict in done["verdicts"]:
            context.log(f"{verdict['about']}: {verdict['text']}")
        return _result(job, done, started) | {"run_id": tracked.run_id}


def write(
    sink: Sink,
    found: Evaluation,
    identity: str,
    sources: dict[str, Any],
    title: str,
    names: tuple[str, str] = (FILE, REPORT),
) -> dict[str, Any]:
    """Figures and report, into a directory; returns what the file of figures says."""
    from genai_core.evaluation.verdicts import verdicts
    from pipelines.pages import evaluation_page

    said = [dict(vars(one)) for one in verdicts(found)]
    done = {**found.as_dict(), "job_id": identity, "sources": masked(sources), "verdicts": said}
    page = evaluation_page.page(done, title)
    with storage.explained(sink.uri):
        storage.put_bytes(sink.filesystem, sink.path(names[1]), page)
        text = json.dumps(done, indent=1, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")
        storage.put_bytes(sink.filesystem, sink.path(names[0]), text + b"\n")
    return done


def read(sink: Sink, name: str = FILE) -> dict[str, Any] | None:
    """The figures of a finished evaluation."""
    try:
        with storage.explained(sink.uri):
            found = json.loads(storage.read_bytes(sink.filesystem, sink.path(name)))
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("measures"), dict) else None


def numbers_of(done: dict[str, Any]) -> dict[str, float]:
    """Every figure, and that of real rows as `..._real`."""
    found = {}
    for name, measure in done["measures"].items():
        found[name] = measure["synthetic"]["value"]
        if measure["real"] is not None:
            found[f"{name}_real"] = measure["real"]["value"]
    return found


def _model(job: EvaluateJob) -> ResolvedModel | None:
    return resolve_model(job.model, job.track.uri) if job.model is not None else None


def _refuse_unread(model: ResolvedModel, sources: dict[str, Source]) -> None:
    """SchemaMismatch when the model reads a column that real records have not."""
    real = {label: source for label, source in sources.items() if label != "synthetic"}
    require_columns(artifact.read_header(model.directory).schema.names, real)


def _run(job: EvaluateJob, identity: str, context: Context) -> Run:
    return Run.start(
        job.track,
        name=job.title,
        kind="evaluate",
        spec_text=context.spec_text,
        params={"job": _spec(job), "job_id": identity},
        job_id=identity,
        log=context.log,
    )


def _spec(job: EvaluateJob) -> dict[str, Any]:
    found: dict[str, Any] = masked(job.model_dump(mode="json", exclude={"sink", "name", "track"}))
    return found


def _identity(job: EvaluateJob, sources: dict[str, Source], model: ResolvedModel | None) -> dict[str, Any]:
    digest = artifact.read_header(model.directory).digest if model else None
    parts = {"spec": _spec(job), "sources": {n: s.digest for n, s in sources.items()}, "model": digest}
    return {"job_id": job_id("evaluate", parts), "verb": "evaluate", "parts": parts}


def _result(job: EvaluateJob, done: dict[str, Any], started: float) -> dict[str, Any]:
    return {
        "output": storage.mask(job.sink.path),
        "report": storage.mask(storage.join(job.sink.path, REPORT)),
        "job_id": done["job_id"],
        "measures": {name: round(value, 4) for name, value in numbers_of(done).items()},
        "verdicts": {verdict["about"]: verdict["mark"] for verdict in done["verdicts"]},
        "seconds": round(time.monotonic() - started, 1),
    }
