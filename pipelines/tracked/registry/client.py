"""The model registry as mlflow itself reads it: for PostgreSQL, plugins and other stores.

Imports nothing of mlflow: `pipelines.tracking` hands its client over.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipelines.tracked.registry import (
    JOB_TAG,
    NAMES_OFFERED,
    RUNS_SHOWN,
    Logged,
    Registered,
    RunFacts,
    Version,
)


class ThroughClient:
    """`pipelines.tracked.registry.Registry`, answered by an MlflowClient."""

    def __init__(self, client: Any, errors: type[Exception]) -> None:
        self._client, self._errors = client, errors

    def names(self) -> list[str]:
        return [model.name for model in self._client.search_registered_models(max_results=NAMES_OFFERED)]

    def model(self, name: str) -> Registered | None:
        found = self._ask(lambda: self._client.get_registered_model(name))
        if found is None:
            return None
        newest = max((int(v.version) for v in found.latest_versions or ()), default=None)
        return Registered(newest, {alias: int(version) for alias, version in found.aliases.items()})

    def version(self, name: str, version: int) -> Version | None:
        found = self._ask(lambda: self._client.get_model_version(name, str(version)))
        return Version(int(found.version), found.source, found.run_id) if found else None

    def logged(self, model_id: str) -> Logged | None:
        found = self._ask(lambda: self._client.get_logged_model(model_id))
        return Logged(model_id, found.artifact_location, found.source_run_id) if found else None

    def logged_by(self, run_id: str, name: str) -> Logged | None:
        run = self._ask(lambda: self._client.get_run(run_id))
        if run is None:
            return None
        condition = f"source_run_id = '{run_id}' AND name = '{name}'"
        found = self._client.search_logged_models(
            [run.info.experiment_id], filter_string=condition, max_results=1
        )
        return Logged(found[0].model_id, found[0].artifact_location, run_id) if found else None

    def runs_of(self, job_id: str) -> list[RunFacts]:
        """The newest runs of a job first."""
        homes = {e.experiment_id: e.name for e in self._client.search_experiments(max_results=1000)}
        condition = f"tags.`{JOB_TAG}` = '{job_id}'"
        found = self._client.search_runs(list(homes), condition, max_results=RUNS_SHOWN)
        infos = [run.info for run in found]
        return [RunFacts(i.run_id, homes[i.experiment_id], i.status, i.start_time) for i in infos]

    def _ask(self, question: Callable[[], Any]) -> Any:
        """The answer, or None when there is no such thing."""
        try:
            return question()
        except self._errors as error:
            if getattr(error, "error_code", "") == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
