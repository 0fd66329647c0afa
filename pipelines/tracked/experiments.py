"""Where a run belongs: its experiment, or the run that an interrupted job left open.

Imports nothing of mlflow: `pipelines.tracking` hands the module and its client over.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any
from urllib.parse import urlsplit

from genai_core.errors import InvalidInput
from pipelines.tracked.model_uri import ARTIFACTS
from pipelines.tracked.registry.sqlite import database_path


def experiment(mlflow: Any, client: Any, name: str, server: str) -> str:
    """Its id; made when missing, with its files beside a local database instead of in ./mlruns."""
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, artifact_location=_artifact_location(name, server)))
        except mlflow.MlflowException:
            found = client.get_experiment_by_name(name)  # another process made it meanwhile
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        restore = f"mlflow experiments restore --experiment-id {found.experiment_id}"
        raise InvalidInput(
            f"the experiment {name!r} is deleted in MLflow; `{restore}`, or set `track.experiment`"
        )
    return str(found.experiment_id)


def _artifact_location(name: str, server: str) -> str | None:
    if urlsplit(server).scheme != "sqlite":
        return None
    folder = re.sub(r"[^\w.-]+", "_", name)[:60]
    return str(
        database_path(server).absolute().parent
        / ARTIFACTS
        / f"{folder}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"
    )


def open_run(client: Any, experiment: str, job_id: str | None) -> str | None:
    """The id of the run that an interrupted job left open, if there is one."""
    if job_id is None:
        return None
    condition = f"tags.`genai.job_id` = '{job_id}' AND attributes.status = 'RUNNING'"
    found = client.search_runs([experiment], condition, max_results=1)
    return str(found[0].info.run_id) if found else None


def finished_run(client: Any, experiment: str, job_id: str) -> dict[str, str] | None:
    """Tags of the newest run that finished this job and kept its model, with its `run_id`."""
    condition = f"tags.`genai.job_id` = '{job_id}' AND attributes.status = 'FINISHED'"
    for run in client.search_runs([experiment], condition, max_results=5):
        if "genai.model" in run.data.tags:
            return {**run.data.tags, "run_id": str(run.info.run_id)}
    return None


def new_run(client: Any, experiment: str, name: str, kind: str, job_id: str | None) -> str:
    """The id of a new run."""
    tags = {"genai.job": kind, "mlflow.source.type": "JOB", "mlflow.source.name": "genai run"}
    if job_id:
        tags["genai.job_id"] = job_id
    return str(client.create_run(experiment, run_name=name, tags=tags).info.run_id)
