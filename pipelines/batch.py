"""What the batch verbs share: take the output directory, do the shards, list the output, tell MLflow."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from genai_core import catalog
from genai_core.artifact import Header
from genai_core.errors import JobFailed, Unavailable
from pipelines import kept_constraints
from pipelines.batch_job import (
    BatchJob,
    check_place,
    gate_of,
    has_lineage,
    identity,
    is_marked,
    masked,
    output_schema,
    signing_key,
)
from pipelines.context import Context
from pipelines.gate import (
    check_gate,
    decide,
    decision_of,
    emptied,
    held_sink,
    may_pass,
    refuse_held,
    release,
    stopped,
)
from pipelines.gate_settings import GateSettings
from pipelines.outputs.sink import Sink
from pipelines.plan import Plan, canonical_hash, code_fingerprint, versions
from pipelines.provenance.content_credentials import SYNTHETIC
from pipelines.provenance.sealing import seal
from pipelines.runners import run_shards
from pipelines.running.shard_work import Produce, ShardWork
from pipelines.running.watchdog import Watchdog
from pipelines.sources import Reader
from pipelines.stores import storage
from pipelines.tracking import ResolvedModel, Run, left_open

T = TypeVar("T")
Summarise = Callable[[Sink, Mapping[str, Any]], dict[str, Any]]


def _nothing_more(_sink: Sink, _provenance: Mapping[str, Any]) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Batch:
    """One job, ready to run. `output` is the schema of the rows that it writes."""

    verb: str
    job: BatchJob
    model: ResolvedModel
    header: Header
    plan: Plan
    producer: Callable[[ShardWork, Any], Produce]
    output: pa.Schema
    synthetic: bool
    options: Mapping[str, Any] = field(default_factory=dict)
    reader: Reader | None = None
    source: Mapping[str, Any] | None = None
    summarise: Summarise = _nothing_more

    @cached_property
    def identity(self) -> dict[str, Any]:
        """See `batch_job.identity`."""
        return identity(self.job, self.verb, self.header.digest, self.plan)

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """Where the output comes from: in the manifest and in every file's footer."""
        known = self.header.provenance
        return {
            "format": 1,
            "job_id": self.identity["job_id"],
            "verb": self.verb,
            "synthetic": self.synthetic,
            **self._mark,
            "model": {
                "uri": storage.mask(self.model.uri),
                "digest": self.header.digest,
                "kind": self.header.kind,
            },
            "training_data": masked(known.get("data")),
            "training_job": known.get("job_id"),
            "rights": masked(known.get("rights")),
            **({"privacy": known["privacy"]} if "privacy" in known else {}),
            "source": masked(self.source),
            "spec": self.job.spec,
            "spec_hash": canonical_hash(self.job.spec),
            "versions": versions(),
            "code": code_fingerprint(),
        }

    @property
    def _mark(self) -> dict[str, Any]:
        """The mark of synthetic data in the word of C2PA; an output whose files go without says so here."""
        if not self.synthetic:
            return {}
        return (
            {"marked": True, "digital_source_type": SYNTHETIC} if is_marked(self.job) else {"marked": False}
        )


def run_batch(batch: Batch, context: Context) -> dict[str, Any]:
    """Do the job, or what is left of it; returns what the last line of standard output says."""
    started = time.monotonic()
    sink, this, job = Sink(batch.job.sink.path), batch.identity, batch.job
    if finished := _watched(job, lambda: _standing(sink, this)):
        context.log(f"{storage.mask(sink.uri)}: the same job is finished already")
        _sealed(batch, sink, finished, None, context)
        if gate_of(job) is not None:
            emptied(sink)
        if left_open(job.track, this["job_id"]):  # its driver, or the server, died before all was told
            with _run(batch, context) as run:
                _log_inputs(run, batch)
                _log_all(run, batch, sink, finished)
        return _result(batch, finished, started, reused=True)
    check_place(job, batch.plan.rows, batch.output)
    _check_gate(batch, sink)
    done = _watched(job, lambda: sink.prepare(this))
    with _run(batch, context) as run:
        _log_inputs(run, batch)
        if gate := gate_of(job):
            runner, summary = _through_gate(batch, gate, sink, done, run, context)
        else:
            runner, summary = _do(batch, sink, done, context), None
        manifest = _finished(batch, sink, summary)
        for words in kept_constraints.said(manifest["summary"]):
            context.log(f"{job.title}: {words}")
        if gate:
            emptied(sink)
        _sealed(batch, sink, manifest, run.run_id, context)
        run.log_metrics({"seconds": time.monotonic() - started})
        _log_all(run, batch, sink, manifest)
        return _result(batch, manifest, started, runner=runner, resumed_shards=len(done), run_id=run.run_id)


def _check_gate(batch: Batch, sink: Sink) -> None:
    if gate := gate_of(batch.job):
        check_gate(gate, batch.output, batch.header.kind, batch.header.modality)
    elif batch.synthetic:
        refuse_held(sink)


def _through_gate(
    batch: Batch, gate: GateSettings, sink: Sink, done: set[int], run: Run, context: Context
) -> tuple[str, dict[str, Any]]:
    """Make the shards where nobody reads them, judge them, and let them through. Raises JobFailed: they are held."""
    held, runner = held_sink(sink), "none"
    there = done | _watched(batch.job, lambda: held.prepare(batch.identity))
    decision = decision_of(sink)
    if decision is not None and not {shard.id for shard in batch.plan.shards} <= there:
        decision = None
    if decision is None or not may_pass(decision):
        if decision is None:
            runner = _do(batch, held, there, context)
        kept = _kept(batch, held) if decision is None else decision
        facts = {
            "schema": batch.output,
            "modality": batch.header.modality,
            "model": batch.model.directory,
            "title": batch.job.title,
        }
        decision = decide(gate, sink, kept, facts, context.log)
        run.log_metrics(decision["numbers"])
    run.set_tags({"genai.gate": "passed" if decision["passed"] else "; ".join(decision["failed"])})
    if not may_pass(decision):
        _log_overview(run, held, "report.html")
        raise stopped(sink, decision)
    if decision["override"]:
        run.set_tags({"genai.gate.override": decision["override"]})
        context.log(f"the gate is overridden ({decision['override']}): {'; '.join(decision['failed'])}")
    return runner, release(sink, decision)


def _kept(batch: Batch, held: Sink) -> dict[str, Any]:
    """What publishing needs to know, whenever that is."""
    sign, track = getattr(batch.job, "sign", None), batch.job.track
    spoken = track.uri is None or masked(track.uri) == track.uri  # a password is written nowhere
    return {
        "plan": {"kind": batch.plan.kind, "shards": [shard.to_json() for shard in batch.plan.shards]},
        "provenance": batch.provenance,
        "summary": _summary(batch, held),
        "track": track.model_dump(mode="json", by_alias=True, exclude=None if spoken else {"uri"}),
        "sign": sign.key if sign else None,
        "title": batch.job.title,
    }


def _watched(job: BatchJob, work: Callable[[], T]) -> T:
    """A store that has stopped answering ends the job here too, not only while shards are made."""
    found: list[T] = []
    Watchdog(job.compute.stall_seconds).run(lambda: found.append(work()))
    return found[0]


def _standing(sink: Sink, this: Mapping[str, Any]) -> dict[str, Any] | None:
    """The manifest of the same job that has finished."""
    sink.check(this)
    return sink.manifest()


def _run(batch: Batch, context: Context) -> Run:
    job_id = batch.identity["job_id"]
    return Run.start(
        batch.job.track,
        name=batch.job.title,
        kind=batch.verb,
        spec_text=context.spec_text,
        params={"job": batch.job.spec, "job_id": job_id},
        job_id=job_id,
        log=context.log,
    )


def _log_all(run: Run, batch: Batch, sink: Sink, manifest: Mapping[str, Any]) -> None:
    _log_output(run, batch, manifest)
    for page in ("overview", "report", "evaluation"):
        _log_overview(run, sink, manifest["summary"].get(page))


def _do(batch: Batch, sink: Sink, done: set[int], context: Context) -> str:
    todo = [shard for shard in batch.plan.shards if shard.id not in done]
    if done:
        context.log(f"resuming: {len(done)} of {len(batch.plan.shards)} shards are done")
    work = ShardWork(
        batch.producer,
        str(batch.model.directory),
        sink.uri if "://" in sink.uri else sink.root,  # a worker's working directory may be another
        batch.provenance if is_marked(batch.job) else None,
        batch.options,
        batch.reader,
        batch.job.compute.retries,
        batch.identity["job_id"] if has_lineage(batch.job) else None,
    )
    with context.progress as progress:
        progress.start(len(batch.plan.shards), "shards", done=len(done), title=batch.verb)
        return run_shards(
            work,
            todo,
            batch.job.compute,
            lambda record: progress.advance(1, rows=record.get("rows", 0)),
            context.log,
        )


def _summary(batch: Batch, sink: Sink) -> dict[str, Any]:
    with storage.explained(sink.uri):
        found = _unreadable(batch, sink) | kept_constraints.summed(sink, batch.plan)
        return found | batch.summarise(sink, batch.provenance)


def _finished(batch: Batch, sink: Sink, summary: Mapping[str, Any] | None) -> dict[str, Any]:
    """summary: what the manifest says beside; None: what the job's verb says of the output."""
    try:
        known = _summary(batch, sink) if summary is None else summary
        return _watched(batch.job, lambda: sink.finish(batch.plan, batch.provenance, known))
    except Unavailable as error:  # after the work: no longer a matter of bad input
        raise JobFailed(f"{error}. All shards are committed; the same command finishes the output") from error


def _sealed(batch: Batch, sink: Sink, manifest: dict[str, Any], run_id: str | None, context: Context) -> None:
    """Who ran it, when, and the signatures: of synthetic output, beside what equal jobs have in common."""
    if not batch.synthetic:
        return
    try:
        key = signing_key(batch.job)
        sealed = _watched(batch.job, lambda: seal(sink, manifest, key, run_id))
    except Unavailable as error:
        raise JobFailed(f"{error}. All rows are there; the same command signs them") from error
    if not is_marked(batch.job):
        context.log(
            f"{batch.job.title}: mark: false: the files do not say that they are synthetic; the manifest does"
        )
    elif sealed and key:
        context.log(
            f"{batch.job.title}: signed {len(sealed['signatures'])} file(s), certificate {key.fingerprint}"
        )


def _unreadable(batch: Batch, sink: Sink) -> dict[str, Any]:
    """How many records could not be read, by reason; of modalities whose records are read at all."""
    if batch.reader is None or catalog.codec_class(batch.header.modality).details is None:
        return {}
    found: Counter[str] = Counter()
    for record in sink.records():
        found.update(record.get("faults", {}))
    return {"unreadable": dict(sorted(found.items()))} if found else {}


def _log_inputs(run: Run, batch: Batch) -> None:
    run.log_model_input(batch.model)
    if batch.source is not None and batch.reader is not None:
        facts = batch.source
        name = Path(facts["path"]).name
        run.log_dataset(
            name,
            facts["path"],
            facts["digest"],
            batch.reader.schema,
            facts["rows"],
            f"{batch.verb.removesuffix('e')}ing",
            facts["filter"],
        )


def _log_output(run: Run, batch: Batch, manifest: Mapping[str, Any]) -> None:
    path = storage.mask(batch.job.sink.path)
    run.log_dataset(
        batch.job.title,
        path,
        manifest["hash"],
        output_schema(batch.job, batch.output),
        manifest["rows"],
        "output",
    )
    run.log_metrics({"rows": manifest["rows"], "bytes": manifest["bytes"]})
    numbers = {k: v for k, v in manifest["summary"].items() if isinstance(v, int | float)}
    run.log_metrics(numbers)
    run.set_tags({"genai.output": path, "genai.manifest": manifest["hash"]})


def _log_overview(run: Run, sink: Sink, name: str | None) -> None:
    """The page that a person looks at first, when it lies on this machine."""
    if name is not None and sink.filesystem.type_name == "local":
        run.log_artifact(Path(sink.path(name)), name.lstrip("_"))


def _result(batch: Batch, manifest: Mapping[str, Any], started: float, **facts: Any) -> dict[str, Any]:
    return {
        "status": "done",
        "job_id": manifest["provenance"]["job_id"],
        "output": storage.mask(batch.job.sink.path),
        "rows": manifest["rows"],
        "shards": len(manifest["shards"]),
        "quarantined": len(manifest["quarantined"]),
        "manifest": manifest["hash"],
        "model": storage.mask(batch.model.uri),
        **manifest["summary"],
        **facts,
        "seconds": round(time.monotonic() - started, 3),
    }
