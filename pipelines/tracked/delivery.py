"""What each operation of a `Spool` means to MLflow.

Imports nothing of mlflow: `pipelines.tracking` hands the module and its client over.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from pipelines.masking import mask_text
from pipelines.tracked.spool import Operation, Rejected, Send

MAY_WORK_LATER = (401, 403, 408, 429)


def sender(mlflow: Any, client: Any) -> Send:
    """Delivers operations; raises Rejected when a retry cannot help."""

    def send(run_id: str, operation: Operation) -> None:
        try:
            deliver(mlflow.entities, client, run_id, operation)
        except mlflow.MlflowException as error:
            code = error.get_http_status_code()
            if 400 <= code < 500 and code not in MAY_WORK_LATER:
                raise Rejected(first_line(error)) from error
            raise

    return send


def deliver(entities: Any, client: Any, run_id: str, operation: Operation) -> None:
    """One call of the client, or one file sent."""
    match operation["op"]:
        case "metrics":
            metrics = [entities.Metric(k, v, t, s, model_id=m) for k, v, t, s, m in operation["metrics"]]
            client.log_batch(run_id, metrics=metrics)
        case "params":
            client.log_batch(run_id, params=[entities.Param(k, v) for k, v in operation["params"].items()])
        case "tags":
            client.log_batch(run_id, tags=[entities.RunTag(k, v) for k, v in operation["tags"].items()])
        case "dataset":
            context = entities.InputTag("mlflow.data.context", operation["context"])
            dataset = entities.DatasetInput(entities.Dataset(**operation["dataset"]), [context])
            client.log_inputs(run_id, datasets=[dataset])
        case "model":
            client.log_inputs(run_id, models=[entities.LoggedModelInput(operation["model_id"])])
        case "text":
            client.log_text(run_id, operation["text"], operation["name"])
        case "file":
            _upload(client, run_id, Path(operation["path"]), operation["name"])
        case "end":
            client.set_terminated(run_id, operation["status"], operation["time"])


def _upload(client: Any, run_id: str, path: Path, name: str) -> None:
    """A file under a name of our choice: MLflow takes the name from the file."""
    if not path.is_file():
        raise Rejected(f"{path} is gone")
    folder, _, file = name.rpartition("/")
    with tempfile.TemporaryDirectory() as temporary:
        client.log_artifact(run_id, shutil.copy(path, Path(temporary) / file), folder or None)


def first_line(error: BaseException) -> str:
    """A short form of mlflow's long messages."""
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return mask_text(lines[0][:300]) if lines else type(error).__name__
