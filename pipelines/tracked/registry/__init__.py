"""Reading MLflow's model registry: sqlite.py (read-only) and rest.py without importing mlflow (1.3 CPU-seconds),
client.py through mlflow's own client for every other store. All answer the same questions.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import urlsplit

DEFAULT_TRACKING = "sqlite:///mlflow.db"
NAMES_OFFERED = 200
RUNS_SHOWN = 5
JOB_TAG = "genai.job_id"


class Unknown(Exception):
    """This reader cannot tell; mlflow may."""


@dataclass(frozen=True)
class Registered:
    """A registered model: its newest version, and the versions that aliases point at."""

    newest: int | None
    aliases: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Version:
    """A model version; `source` is models:/m-... for a LoggedModel, else where the files lie."""

    version: int
    source: str
    run_id: str | None


@dataclass(frozen=True)
class Logged:
    """A LoggedModel and where its files lie."""

    model_id: str
    location: str
    run_id: str | None


@dataclass(frozen=True)
class RunFacts:
    """A run that did a job; `started` in milliseconds since 1970."""

    run_id: str
    experiment: str
    status: str
    started: int | None


class Registry(Protocol):
    """What resolving a model URI and lineage need to know."""

    def names(self) -> list[str]: ...
    def model(self, name: str) -> Registered | None: ...
    def version(self, name: str, version: int) -> Version | None: ...
    def logged(self, model_id: str) -> Logged | None: ...
    def logged_by(self, run_id: str, name: str) -> Logged | None: ...
    def runs_of(self, job_id: str) -> list[RunFacts]: ...


def tracking_uri(configured: str | None = None) -> str:
    """The job's own setting, else MLFLOW_TRACKING_URI, else a database in the working directory."""
    return configured or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_TRACKING


def is_server(uri: str) -> bool:
    """An MLflow server, spoken to over HTTP."""
    return urlsplit(uri).scheme in ("http", "https")
