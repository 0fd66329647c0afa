"""Lake: score what is new or changed in a lake since the last run; the output keeps the lake's partitions.

Every run is one finished batch, `run=<number>-<id>`, that never changes; `_runs` says which file's scores are where:
see `pipelines.lakes.lake_log`. A new model, or other columns to keep, score every file again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from genai_core import artifact
from genai_core.artifact import Header
from pipelines.batch import run_batch
from pipelines.batch_job import check_batch, describe, find_header, identity, masked
from pipelines.context import Context
from pipelines.lakes.changed_files import Survey, survey
from pipelines.lakes.findings import LakeFacts, partitions_of
from pipelines.lakes.lake_log import Entry, LakeLog, overtaken, run_name, schema_text
from pipelines.lakes.schema_drift import Policy
from pipelines.outputs.sink import Sink
from pipelines.pages.report import FILE as REPORT
from pipelines.plan import Plan, canonical_hash, plan_scoring
from pipelines.score import ScoringJob, check_labels, score_names, scoring_batch
from pipelines.scoring.scored_rows import output_schema
from pipelines.settings import SinkSettings
from pipelines.source_rows import refuse_overlap
from pipelines.sources import Source, reader_of
from pipelines.stores import storage
from pipelines.tracking import resolve_model

RUNS_SHOWN = 60  # of the report's history
LISTED = 20  # skipped or drifted files in the answer; all of them stand in the list of files
PLACE = {"path", "version", "snapshot", "as_of"}  # of a source: where it lies, and as of when


class LakeJob(ScoringJob):
    """Score a lake again and again: every run takes the files that are new or have changed."""

    job: Literal["lake"] = "lake"
    schema_drift: Policy = Field(
        "fail",
        description="files with added, missing or retyped columns: fail, skip (leave out and report), or cast "
        "(read what can be read)",
    )


def check(job: LakeJob, context: Context) -> list[str]:
    """Facts about a job that can run; raises InvalidInput for one that cannot."""
    refuse_overlap(job.source, job.sink)
    found = find_header(job, context)
    if not isinstance(found, Header):
        return [describe(job, found), *check_batch(job, 0, None, None)]
    log = LakeLog(job.sink.path)
    work = _Work(job, found, log)
    counts = work.found.counts()
    facts = [describe(job, found), f"scores: {', '.join(work.names)}"]
    facts.append("source: " + ", ".join(f"{number:,} {name}" for name, number in counts.items()))
    if work.source is None:
        return [*facts, f"output: {storage.mask(job.sink.path)} (nothing to score)"]
    plan = work.plan(work.source)
    facts += work.labels
    return facts + check_batch(work.in_run(plan), plan.rows, work.output, work.identity(plan))


def run(job: LakeJob, context: Context) -> dict[str, Any]:
    """Score what is new, or finish what an interrupted run left; nothing is done twice."""
    started = time.monotonic()
    refuse_overlap(job.source, job.sink)
    model = resolve_model(job.model, job.track.uri)
    header = artifact.verify(model.directory)
    log = LakeLog(job.sink.path)
    work = _Work(job, header, log)
    facts = work.facts() | {
        "status": "done",
        "output": storage.mask(job.sink.path),
        "model": storage.mask(model.uri),
    }
    if not work.found.news:
        context.log(f"{storage.mask(job.sink.path)}: no file is new or has changed")
        return facts | {"rows": 0, "reused": True, "seconds": round(time.monotonic() - started, 3)}
    result: dict[str, Any] = {"rows": 0}
    run, failed = None, set[str]()
    if work.source is not None:
        plan = work.plan(work.source)
        inside = work.in_run(plan)
        lake = LakeFacts(
            work.history(), work.found.skipped(), {k: str(v) for k, v in work.found.drift.items()}
        )
        batch = scoring_batch(inside, model, header, work.names, work.source, plan, work.output, lake)
        result = run_batch(batch, context)
        run, failed = run_name(work.sequence, work.identity(plan)["job_id"]), _failed(inside, plan)
    log.commit(work.sequence, work.record(run, result, header), _placed(work.found, run, failed))
    _show_report(log, run)
    return facts | {key: value for key, value in result.items() if key not in facts} | {"run": run}


class _Work:
    """What one run has to do."""

    def __init__(self, job: LakeJob, header: Header, log: LakeLog) -> None:
        self.job, self.header, self.log = job, header, log
        self.names = score_names(job, header.kind, header.modality)
        self.before = log.newest()
        if self.before is None:
            log.refuse_strangers()
        self.basis = _basis(job, header.digest, self.names)
        same = self.before is not None and self.before["basis"] == self.basis
        self.why = "" if same or self.before is None else "the model, or what is asked of it, is another"
        self.sequence = 1 + (0 if self.before is None else int(self.before["sequence"]))
        self.found: Survey = survey(
            job.source,
            reader_of(job.source),
            job.schema_drift,
            log.entries(self.before) if same else {},
            self.before["columns"] if same and self.before else None,
        )
        artifact.check_schema(header, self.found.reader.schema)
        self.labels = check_labels(job)
        self.source: Source | None = self.found.source
        self.output = output_schema(self.found.reader, job.carried, self.names, header.modality)

    def plan(self, source: Source) -> Plan:
        return plan_scoring(source, self.job.rows_per_shard, self.found.folder)

    def identity(self, plan: Plan) -> dict[str, Any]:
        return identity(self.job, "score", self.header.digest, plan)

    def in_run(self, plan: Plan) -> LakeJob:
        """The job with the directory of its run as its sink."""
        path = storage.join(self.job.sink.path, run_name(self.sequence, self.identity(plan)["job_id"]))
        return self.job.model_copy(update={"sink": SinkSettings(path=path), "name": self.job.title})

    def history(self) -> dict[str, Any]:
        """What earlier runs said of their partitions, the oldest first."""
        runs = [record["run"] for record in self.log.records() if record["run"] is not None]
        return {run: partitions_of(Sink(storage.join(self.job.sink.path, run))) for run in runs[-RUNS_SHOWN:]}

    def facts(self) -> dict[str, Any]:
        """For the last line of standard output."""
        counts, found = self.found.counts(), self.found
        drift = {path: str(one) for path, one in list(found.drift.items())[:LISTED]}
        skipped = dict(list(found.skipped().items())[:LISTED])
        facts: dict[str, Any] = {"files": counts, "sequence": self.sequence - (not found.news)}
        facts |= {"again": self.why} if self.why else {}
        return facts | ({"schema_drift": drift} if drift else {}) | ({"skipped": skipped} if skipped else {})

    def record(self, run: str | None, result: Mapping[str, Any], header: Header) -> dict[str, Any]:
        """What the log says of this run."""
        return {
            "run": run,
            "manifest": result.get("manifest"),
            "job_id": result.get("job_id"),
            "model": header.digest,
            "basis": self.basis,
            "columns": schema_text(self.found.columns),
            "counts": self.found.counts(),
            "rows": result["rows"],
            "flagged": result.get("flagged", 0),
            **({"feedback": result["feedback"]} if "feedback" in result else {}),
            "source": masked({"path": self.job.source.path, **self.found.reader.version}),
            "schema_drift": {"policy": self.job.schema_drift, "files": len(self.found.drift)},
        }


def _basis(job: LakeJob, digest: str, names: list[str]) -> str:
    """Of what decides a file's scores: when it changes, every file is scored again."""
    source = job.source.model_dump(mode="json", exclude=PLACE)
    return canonical_hash({"model": digest, "scores": names, "keep": job.carried, "source": source})


def _failed(job: LakeJob, plan: Plan) -> set[str]:
    """Files of which a shard is quarantined: the next run tries them again."""
    manifest = Sink(job.sink.path).manifest()
    if manifest is None:
        raise overtaken(job.sink.path)  # by a run that has removed it
    numbers = {record["id"] for record in manifest["quarantined"]}
    return {piece.path for shard in plan.shards if shard.id in numbers for piece in shard.pieces}


def _show_report(log: LakeLog, run: str | None) -> None:
    """The newest run's report, also where people look first."""
    if run is not None:
        with storage.explained(log.uri):
            data = storage.read_bytes(log.filesystem, storage.join(log.root, run, REPORT))
            storage.put_bytes(log.filesystem, storage.join(log.root, REPORT), data)


def _placed(found: Survey, run: str | None, failed: set[str]) -> list[Entry]:
    """The files with the run that holds their scores."""
    return [
        entry.without_scores() if entry.path in failed else entry.in_run(run) if run else entry
        for entry in found.entries
    ]
