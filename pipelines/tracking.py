"""The one file that imports mlflow: runs, logged models, the registry, serving.

Before work starts a tracking store that cannot be used is an error (Unavailable). Afterwards it never is one:
records go through a `Spool`, a model that cannot be logged stays where the job wrote it, and the log says so once.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import pyarrow as pa

from genai_core.errors import GenAIError, Unavailable
from pipelines.context import say
from pipelines.masking import mask_text
from pipelines.settings import TrackSettings
from pipelines.tracked import experiments, records
from pipelines.tracked.delivery import first_line, sender
from pipelines.tracked.environment import environment
from pipelines.tracked.logged_model import (
    ModelVersion,
    keep_locally,
    log_model,
    logged_before,
    register,
    served_model,
)
from pipelines.tracked.model_files import cached
from pipelines.tracked.model_uri import Located, locate, peek_model, registry_of
from pipelines.tracked.registry import Unknown, is_server, tracking_uri
from pipelines.tracked.registry.client import ThroughClient
from pipelines.tracked.registry.reachable import check_reachable
from pipelines.tracked.registry.sqlite import absolute, database_path
from pipelines.tracked.spool import Operation, Send, Spool, send_kept

if TYPE_CHECKING:
    from genai_core.artifact import Header

__all__ = [
    "ModelVersion",
    "ResolvedModel",
    "Run",
    "check_reachable",
    "finished_run",
    "left_open",
    "peek_model",
    "resolve_model",
    "serve",
]

QUIET = {  # settings of mlflow that a user may override
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",  # shown wherever tqdm is installed
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_DISABLE_AGENT_HINT": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # our last line there is JSON
    "MLFLOW_UV_AUTO_DETECT": "false",  # else the working directory's lock file is copied into models
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # the spool retries
}


@dataclass(frozen=True)
class ResolvedModel:
    """A model on this machine; `uri` never moves (models:/flights/3)."""

    directory: Path
    uri: str
    location: str | None = None
    name: str | None = None
    version: int | None = None
    model_id: str | None = None
    run_id: str | None = None


class Run:
    """A run in MLflow, or nothing at all when tracking is switched off. Use it as a context manager."""

    def __init__(
        self, client: Any, run_id: str | None, track: TrackSettings, log: Callable[[str], None]
    ) -> None:
        self.run_id = run_id
        self._client, self._track, self._log = client, track, log
        self._spool: Spool | None = None
        if client is not None and run_id is not None:
            self._spool = Spool(run_id, tracking_uri(track.uri), _sender(client), log)

    @classmethod
    def start(
        cls,
        track: TrackSettings,
        *,
        name: str,
        kind: str,
        spec_text: str = "",
        params: Mapping[str, Any] | None = None,
        job_id: str | None = None,
        log: Callable[[str], None] = say,
    ) -> Run:
        """Begin a run, or go on with the one that an interrupted job of this id left open. Raises Unavailable."""
        if not track.enabled:
            return cls(None, None, track, log)
        check_reachable(track)
        server = tracking_uri(track.uri)
        with _explained(server):
            client = _client(server)
            home = experiments.experiment(_mlflow(), client, track.experiment or name, server)
            run_id = experiments.open_run(client, home, job_id) or experiments.new_run(
                client, home, name, kind, job_id
            )
        with contextlib.suppress(OSError):
            send_kept(server, _sender(client))
        run = cls(client, run_id, track, log)
        run._describe(spec_text, params or {})
        return run

    def _describe(self, spec_text: str, params: Mapping[str, Any]) -> None:
        for batch in records.params(params):
            self._put({"op": "params", "params": batch})
        facts = environment()
        self.log_artifact(json.dumps(facts, indent=1), "environment.json")
        if facts["git_commit"]:
            self.set_tags({"mlflow.source.git.commit": facts["git_commit"]})
        if spec_text:
            self.log_artifact(spec_text, "job.yaml")

    def log_metrics(self, values: Mapping[str, float | None], step: int = 0) -> None:
        """Buffered; what is not a number is left out. Never raises."""
        if batch := records.metrics(values, step):
            self._put({"op": "metrics", "metrics": batch})

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Tags of the run, such as what a job found at its end. Never raises."""
        self._put({"op": "tags", "tags": records.tags(tags)})

    def log_dataset(
        self,
        name: str,
        uri: str,
        digest: str,
        schema: pa.Schema | None = None,
        rows: int | None = None,
        context: str = "training",
        row_filter: str | None = None,
    ) -> None:
        """A table that the run read (context "training", "scoring") or wrote ("output"). Never raises."""
        dataset = records.dataset(name, uri, digest, schema, rows, row_filter)
        self._put({"op": "dataset", "dataset": dataset, "context": context})

    def log_model_input(self, model: ResolvedModel | str | None) -> None:
        """The logged model that the run used; one that MLflow does not know is left out. Never raises."""
        model_id = model.model_id if isinstance(model, ResolvedModel) else model
        if model_id:
            self._put({"op": "model", "model_id": model_id.removeprefix("models:/")})

    def log_artifact(self, content: str | Path, name: str) -> None:
        """A text (secrets masked) or a file, shown in the run as `name`. Never raises."""
        if isinstance(content, Path):
            self._put({"op": "file", "path": str(content.absolute()), "name": name})
        else:
            self._put({"op": "text", "text": mask_text(content), "name": name})

    def log_model(
        self,
        directory: Path,
        header: Header,
        input_example: pa.Table | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> ModelVersion | None:
        """Log an artifact directory as a model, register it, move its aliases. None when tracking is off.

        Never raises: a model that MLflow cannot take is kept in .genai/models, and that is its `uri`.
        """
        if self._client is None or self.run_id is None:
            return None
        try:
            with _quiet():
                version = logged_before(_mlflow(), self._client, self.run_id, header) or log_model(
                    _mlflow(), self._client, self.run_id, directory, header, input_example
                )
        except Exception as error:  # the model is trained: tracking must not lose it
            kept = keep_locally(directory, header.digest)
            self._log(f"the model could not be logged in MLflow ({first_line(error)}); it is kept in {kept}")
            return ModelVersion(str(kept))
        self._put({"op": "metrics", "metrics": records.metrics(metrics or {}, 0, version.model_id)})
        return self._registered(version)

    def _registered(self, version: ModelVersion) -> ModelVersion:
        name, alias = self._track.register_as, self._track.alias
        if name is None:
            return version
        try:
            with _quiet(), _everywhere(tracking_uri(self._track.uri)):
                return register(_mlflow(), self._client, version, str(self.run_id), name, alias)
        except Exception as error:
            self._log(
                f"the model is logged as {version.uri}, but could not be registered ({first_line(error)})"
            )
            return version

    def flush(self) -> None:
        """Deliver what waits (at most 10 s), before something is done that a later run would not do again."""
        if self._spool is not None:
            self._spool.flush()

    def finish(self, status: str = "FINISHED") -> None:
        """Deliver what waits (at most 10 s) and end the run as FINISHED, FAILED or KILLED. Never raises."""
        self._put({"op": "end", "status": status, "time": records.now()})
        if self._spool is not None:
            self._spool.close()
            self._spool = None

    def _put(self, operation: Operation) -> None:
        if self._spool is not None:
            self._spool.put(operation)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.set_tags({"genai.error": f"{type(error).__name__}: {error}"})
        interrupted = kind is not None and not issubclass(kind, Exception)
        self.finish("FINISHED" if kind is None else "KILLED" if interrupted else "FAILED")


def resolve_model(uri: str, tracking: str | None = None) -> ResolvedModel:
    """The artifact behind a model URI, downloaded when it is not on this machine. Raises InvalidInput, Unavailable."""
    server = tracking_uri(tracking)
    try:
        found = locate(uri, tracking)
    except Unknown:
        with _explained(server):
            found = locate(uri, tracking, ThroughClient(_client(server), _mlflow().MlflowException))
    directory = found.directory or _download(found, server)
    return ResolvedModel(**asdict(replace(found, directory=directory)))


def _download(found: Located, server: str) -> Path:
    """The files of a model that lies in a store or behind a server; mlflow knows all of these."""

    def fetch(directory: Path) -> None:
        download = _mlflow().artifacts.download_artifacts
        with _quiet(), tempfile.TemporaryDirectory(dir=directory.parent) as temporary:
            Path(download(artifact_uri=found.location, dst_path=temporary, tracking_uri=server)).rename(
                directory
            )

    key = found.model_id or hashlib.sha256(str(found.location).encode()).hexdigest()[:32]
    with _explained(server):
        return cached(key, fetch)


def finished_run(track: TrackSettings, name: str, job_id: str) -> dict[str, Any] | None:
    """Where the model of a training job is that was finished before, or None. Raises Unavailable."""
    if not track.enabled:
        return None
    check_reachable(track)
    server = tracking_uri(track.uri)
    with _explained(server):
        client = _client(server)
        with contextlib.suppress(OSError):
            send_kept(server, _sender(client))  # the end of that run may be among it
        found = client.get_experiment_by_name(track.experiment or name)
        tags = found and experiments.finished_run(client, found.experiment_id, job_id)
    if not tags or not _still_there(tags["genai.model"], track):
        return None
    return {
        "model": tags["genai.model"],
        "model_digest": tags.get("genai.model_digest"),
        "run_id": tags["run_id"],
    }


def left_open(track: TrackSettings, job_id: str) -> bool:
    """Whether a run of this job has not ended in MLflow; without importing it, and False when it cannot be asked."""
    if not track.enabled:
        return False
    try:
        return any(run.status == "RUNNING" for run in registry_of(tracking_uri(track.uri)).runs_of(job_id))
    except (GenAIError, Unknown):
        return False


def _still_there(uri: str, track: TrackSettings) -> bool:
    """The model can be loaded, and under the name that the job asks for."""
    if track.register_as and not uri.startswith(f"models:/{track.register_as}/"):
        return False
    try:
        resolve_model(uri, track.uri)
    except GenAIError:
        return False
    return True


def serve() -> None:
    """What a logged model's code calls: hand MLflow a model that answers by `pipelines.tracked.serving.predict`."""
    with _quiet():
        _mlflow().models.set_model(served_model(_mlflow()))


def _sender(client: Any) -> Send:
    return sender(_mlflow(), client)


def _mlflow() -> Any:
    """The module, imported quietly: no telemetry, no notices."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    with warnings.catch_warnings(record=True):
        import mlflow
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    return mlflow


def _client(server: str) -> Any:
    """A client whose store is ready: the tables of a new SQLite file are made by one process at a time."""
    with _one_at_a_time(server), _quiet():
        uri = absolute(server)  # mlflow keeps one connection for a URI, whatever the working directory
        registry = os.environ.get("MLFLOW_REGISTRY_URI") or uri
        client: Any = _mlflow().MlflowClient(tracking_uri=uri, registry_uri=registry)
        if not is_server(server):
            client.search_experiments(max_results=1)
        return client


@contextlib.contextmanager
def _everywhere(server: str) -> Iterator[None]:
    """mlflow's SQL registry looks models up at the process-wide URI, whatever its client was made for."""
    mlflow, before = _mlflow(), os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(absolute(server))
    try:
        yield
    finally:
        mlflow.set_tracking_uri(None)  # which also forgets the user's variable
        if before is not None:
            os.environ["MLFLOW_TRACKING_URI"] = before


@contextlib.contextmanager
def _one_at_a_time(server: str) -> Iterator[None]:
    """mlflow#6490: several processes that start together on a new SQLite file lock each other out."""
    if urlsplit(server).scheme != "sqlite":
        yield
        return
    import fcntl

    key = hashlib.sha256(str(database_path(server).absolute()).encode()).hexdigest()[:16]
    with (Path(tempfile.gettempdir()) / f"genai-{os.getuid()}-{key}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No warnings of mlflow (missing examples, type hints) and no log lines below an error."""
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(record=True):  # filters do not do: mlflow sets its own while it works
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


@contextlib.contextmanager
def _explained(server: str) -> Iterator[None]:
    """Errors before work starts, as Unavailable: mlflow raises its own, requests' and SQLAlchemy's."""
    try:
        yield
    except (GenAIError, Unknown):
        raise
    except Exception as error:
        raise Unavailable(
            f"the tracking store {mask_text(server)} cannot be used: {first_line(error)}"
        ) from error
