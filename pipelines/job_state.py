"""How far a job has come, by what it left: the files of its output, and its runs in MLflow.

The answer when a cluster has forgotten the job, or cannot be reached.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from genai_core.errors import GenAIError
from pipelines import storage
from pipelines.batch_job import BatchJob
from pipelines.masking import mask_text
from pipelines.model_uri import registry_of
from pipelines.registry import RunFacts, Unknown, tracking_uri
from pipelines.sink import RECORDS, Sink

NOTHING, UNFINISHED, DONE, UNKNOWN = "not started", "unfinished", "done", "unknown"
MLFLOW_STATES = {"FINISHED": DONE}  # a run that was killed with its cluster still says RUNNING


def state_of(job: Any) -> dict[str, Any]:
    """{"status", "from", ...}: one of the words above, where it is known from, and what else was found.

    Never raises for what is not there: what could not be asked is a `note`.
    """
    try:
        found = _of_output(job) if isinstance(job, BatchJob) else _of_training(job)
    except (GenAIError, OSError) as error:
        return {"status": UNKNOWN, "from": "nothing", "note": mask_text(str(error))}
    if "job_id" in found:
        found |= _runs(job, found["job_id"])
    if found["status"] == UNKNOWN and found.get("runs"):
        latest = found["runs"][0]["status"]
        found |= {"status": MLFLOW_STATES.get(latest, UNFINISHED), "from": "MLflow"}
    return found


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


def _of_training(job: Any) -> dict[str, Any]:
    """A model is finished when its run is."""
    from pipelines.train import id_of

    return {"job_id": id_of(job), "status": UNKNOWN, "from": "nothing"}


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
    if not runs and not isinstance(job, BatchJob):
        return {"status": NOTHING, "from": "MLflow"}
    return {"runs": [asdict(run) for run in runs]} if runs else {}
