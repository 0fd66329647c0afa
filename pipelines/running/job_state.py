"""How far a job has come, by what it left: the files of its output, and its runs in MLflow.

The answer when a cluster has forgotten the job, or cannot be reached.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from genai_core.artifact import HEADER, read_header
from genai_core.errors import GenAIError
from pipelines.batch_job import BatchJob
from pipelines.lakes.lake_log import LakeLog
from pipelines.masking import mask_text
from pipelines.outputs.sink import RECORDS, Sink
from pipelines.stores import storage
from pipelines.tracked.model_uri import registry_of
from pipelines.tracked.registry import RunFacts, Unknown, tracking_uri

NOTHING, UNFINISHED, DONE, UNKNOWN = "not started", "unfinished", "done", "unknown"


def state_of(job: Any) -> dict[str, Any]:
    """{"status", "from", ...}: one of the words above, where it is known from, and what else was found.

    Never raises for what is not there: what could not be asked is a `note`.
    """
    try:
        found = _LOOK.get(job.job, _of_output)(job)
    except (GenAIError, OSError) as error:
        return {"status": UNKNOWN, "from": "nothing", "note": mask_text(str(error))}
    if "job_id" in found:
        found |= _runs(job, found["job_id"])
    if found["status"] == UNKNOWN and "runs" in found:
        found |= _by_runs(found["runs"])
    return found


def _by_runs(runs: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """A run that was killed with its cluster still says RUNNING."""
    if not runs:
        note = "MLflow has no run of this job with this data and this version of the code"
        return {"status": NOTHING, "from": "MLflow", "note": note}
    return {"status": DONE if runs[0]["status"] == "FINISHED" else UNFINISHED, "from": "MLflow"}


def _of_output(job: BatchJob) -> dict[str, Any]:
    """_JOB.json says whose output it is, _shards what is committed, _MANIFEST.json that it is finished."""
    sink = Sink(job.sink.path)
    shown = {"from": "output", "output": storage.mask(job.sink.path)}
    with storage.explained(sink.uri):
        owner = sink.job()
        if owner is None:
            return shown | {"status": NOTHING}
        if owner.get("parts", {}).get("spec") != job.spec:
            return shown | {
                "status": NOTHING,
                "note": f"the output there is another job's: {owner.get('job_id')}",
            }
        facts = shown | {"job_id": owner["job_id"]}
        if manifest := sink.manifest():
            done = {"rows": manifest["rows"], "shards": len(manifest["shards"]), "manifest": manifest["hash"]}
            return facts | done | {"quarantined": len(manifest["quarantined"]), "status": DONE}
        return facts | _committed(sink, job) | {"status": UNFINISHED}


def _committed(sink: Sink, job: BatchJob) -> dict[str, int]:
    """Shards with a record, by one listing; how many there will be only where the job itself says it."""
    records = storage.list_files(sink.filesystem, sink.path(RECORDS))
    shards = {"shards": sum(info.path.endswith(".json") for info in records)}
    rows = getattr(job, "rows", None)
    return shards if rows is None else shards | {"of": -(-rows // job.rows_per_shard)}


def _of_lake(job: BatchJob) -> dict[str, Any]:
    """Runs that count; whether the lake has changed since is for the next run to find out."""
    log = LakeLog(job.sink.path)
    shown = {"from": "output", "output": storage.mask(job.sink.path)}
    records = log.records()
    if not records:
        return shown | {"status": NOTHING}
    return shown | {
        "status": DONE,
        "note": f"{len(records)} run(s) are committed, the last is {records[-1]['run']}",
    }


def _of_training(job: Any) -> dict[str, Any]:
    """A model is finished when its directory holds it; where there is none, when its run is."""
    from pipelines.train import id_of

    this = {"job_id": id_of(job), "status": UNKNOWN, "from": "nothing"}
    if job.sink is None or not storage.exists(*storage.resolve(storage.join(job.sink.path, HEADER))):
        return this
    header = read_header(Path(job.sink.path))
    if header.provenance.get("job_id") != this["job_id"]:
        return this | {"note": f"{job.sink.path} holds another job's model"}
    return this | {"status": DONE, "from": "output", "output": job.sink.path}


def _runs(job: Any, job_id: str) -> dict[str, Any]:
    """The newest runs of the job first."""
    if not job.track.enabled:
        return {}
    server = tracking_uri(job.track.uri)
    try:
        runs: list[RunFacts] = registry_of(server).runs_of(job_id)
    except Unknown:
        return {"note": f"{mask_text(server)} was not asked: only mlflow itself reads it"}
    except GenAIError as error:
        return {"note": str(error)}
    return {"runs": [asdict(run) for run in runs]}


_LOOK = {"lake": _of_lake, "train": _of_training}
