"""An artifact directory as an MLflow LoggedModel: two lines of code and our files, never a pickle.

Imports nothing of mlflow: `pipelines.tracking` hands the module and its client over.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from genai_core.errors import InvalidInput
from pipelines.settings import NEWEST
from pipelines.tracked.environment import requirements
from pipelines.tracked.serving import json_frame, predict, signature

if TYPE_CHECKING:
    from genai_core.artifact import Header

STUB = "from pipelines.tracking import serve\n\nserve()\n"
NAME = "model"
EXAMPLE_ROWS = 3
KEPT = Path(".genai/models")


@dataclass(frozen=True)
class ModelVersion:
    """A kept model; `name`, `version` are None when it is not registered, `model_id` when MLflow does not have it."""

    uri: str
    model_id: str | None = None
    name: str | None = None
    version: int | None = None


def log_model(
    mlflow: Any, client: Any, run_id: str, directory: Path, header: Header, example: pa.Table | None
) -> ModelVersion:
    """Save, upload, finalize, as mlflow's own log_model, which also predicts on the example and reads all metrics."""
    run = client.get_run(run_id)
    logged = client.create_logged_model(
        run.info.experiment_id,
        name=NAME,
        source_run_id=run_id,
        tags=_tags(header),
        params=dict(run.data.params),
        model_type=header.kind,
    )
    with tempfile.TemporaryDirectory() as temporary:
        saved = Path(temporary) / "saved"
        _save(mlflow, saved, directory, header, example, logged)
        client.log_model_artifacts(logged.model_id, str(saved))
    client.finalize_logged_model(logged.model_id, "READY")
    client.log_outputs(run_id, [mlflow.entities.LoggedModelOutput(logged.model_id, 0)])
    return ModelVersion(f"models:/{logged.model_id}", logged.model_id)


def logged_before(mlflow: Any, client: Any, run_id: str, header: Header) -> ModelVersion | None:
    """The same model, if an earlier life of this run has logged it; what that life began and did not end is removed."""
    run, found = client.get_run(run_id), None
    of_run = f"source_run_id = '{run_id}'"
    for model in client.search_logged_models([run.info.experiment_id], filter_string=of_run):
        if model.status != "READY":
            client.delete_logged_model(model.model_id)
        elif model.tags.get("genai.digest") == header.digest:
            found = ModelVersion(f"models:/{model.model_id}", model.model_id)
    linked = [output.model_id for output in run.outputs.model_outputs] if run.outputs else []
    if found is not None and found.model_id not in linked:
        client.log_outputs(run_id, [mlflow.entities.LoggedModelOutput(found.model_id, 0)])
    return found


def _tags(header: Header) -> dict[str, str]:
    facts = {
        "digest": header.digest,
        "kind": header.kind,
        "bound": header.bound,
        "can": ",".join(header.capabilities),
    }
    return {f"genai.{name}": str(value) for name, value in facts.items()}


def _save(
    mlflow: Any, target: Path, directory: Path, header: Header, example: pa.Table | None, logged: Any
) -> None:
    stub, copied = target.with_name("genai_model.py"), target.with_name(NAME)
    stub.write_text(STUB)
    shutil.copytree(directory, copied)  # its name becomes artifacts/model; MLflow refuses links
    ids = {"run_id": logged.source_run_id, "model_uuid": logged.model_id, "model_id": logged.model_id}
    mlflow.pyfunc.save_model(
        str(target),
        python_model=str(stub),
        artifacts={NAME: str(copied)},
        signature=mlflow.models.ModelSignature.from_dict(signature(header.schema, header.score_names)),
        input_example=json_frame(example.slice(0, EXAMPLE_ROWS)) if example is not None else None,
        pip_requirements=requirements(),
        mlflow_model=mlflow.models.Model(artifact_path=logged.artifact_location, **ids),
    )


def keep_locally(directory: Path, digest: str) -> Path:
    """A copy in the working directory of a model that would be lost."""
    kept = KEPT / digest.removeprefix("sha256:")[:12]
    shutil.copytree(directory, kept, dirs_exist_ok=True)
    return kept


def register(
    mlflow: Any, client: Any, model: ModelVersion, run_id: str, name: str, alias: str | None
) -> ModelVersion:
    """A new version of a registered model, made when it is the first; `newest` and `alias` point at it.

    A run has one version: an interrupted job that goes on with its run does not add another.
    """
    try:
        client.create_registered_model(name)
    except mlflow.MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    known = [int(v.version) for v in client.search_model_versions(f"run_id = '{run_id}'") if v.name == name]
    version = max(known, default=0) or int(
        client.create_model_version(name, model.uri, run_id=run_id, model_id=model.model_id).version
    )
    for mark in filter(None, (NEWEST, alias)):
        client.set_registered_model_alias(name, mark, str(version))
    return ModelVersion(f"models:/{name}/{version}", model.model_id, name, version)


def served_model(mlflow: Any) -> Any:
    """A PythonModel that loads our artifact, without Ray, and answers by `serving.predict`.

    Its `predict` has no type hints: MLflow would take them for a signature.
    """

    class Served(mlflow.pyfunc.PythonModel):
        def load_context(self, context: Any) -> None:
            from genai_core.artifact import load

            self.fitted = load(Path(context.artifacts[NAME]))

        def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
            try:
                return predict(self.fitted, model_input, params)
            except InvalidInput as error:  # HTTP 400 instead of 500
                raise mlflow.MlflowException.invalid_parameter_value(str(error)) from error

    return Served()
