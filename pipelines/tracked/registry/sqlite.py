"""MLflow's SQLite database, read without mlflow and never written: 0.01 CPU-seconds where mlflow takes 2."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from genai_core.errors import Unavailable
from pipelines.tracked.registry import (
    JOB_TAG,
    NAMES_OFFERED,
    RUNS_SHOWN,
    Logged,
    Registered,
    RunFacts,
    Unknown,
    Version,
)

_LIVE = "coalesce(current_stage, '') <> 'Deleted_Internal'"


def database_path(uri: str) -> Path:
    """sqlite:///relative.db and sqlite:////absolute.db, as SQLAlchemy reads them."""
    return Path(unquote(uri.partition(":///")[2].partition("?")[0]))


def absolute(uri: str) -> str:
    """The same store from any working directory; URIs of other stores as they are."""
    if not uri.startswith("sqlite:///"):
        return uri
    _, question, query = uri.partition("?")
    path = str(database_path(uri).absolute()).replace("%", "%25").replace("?", "%3F")
    return f"sqlite:///{path}{question}{query}"


class Sqlite:
    """A local tracking database, opened read-only."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> list[str]:
        return [name for (name,) in self._rows("SELECT name FROM registered_models LIMIT ?", NAMES_OFFERED)]

    def model(self, name: str) -> Registered | None:
        if not self._rows("SELECT 1 FROM registered_models WHERE name = ?", name):
            return None
        newest = self._rows(f"SELECT max(version) FROM model_versions WHERE name = ? AND {_LIVE}", name)
        aliases = self._rows("SELECT alias, version FROM registered_model_aliases WHERE name = ?", name)
        return Registered(newest[0][0], dict(aliases))

    def version(self, name: str, version: int) -> Version | None:
        query = (
            f"SELECT version, source, run_id FROM model_versions WHERE name = ? AND version = ? AND {_LIVE}"
        )
        rows = self._rows(query, name, version)
        return Version(*rows[0]) if rows else None

    def logged(self, model_id: str) -> Logged | None:
        return self._logged("model_id = ?", model_id)

    def logged_by(self, run_id: str, name: str) -> Logged | None:
        return self._logged("source_run_id = ? AND name = ?", run_id, name)

    def runs_of(self, job_id: str) -> list[RunFacts]:
        """The newest runs of a job first."""
        rows = self._rows(
            "SELECT r.run_uuid, e.name, r.status, r.start_time FROM tags t "
            "JOIN runs r ON r.run_uuid = t.run_uuid JOIN experiments e ON e.experiment_id = r.experiment_id "
            "WHERE t.key = ? AND t.value = ? AND r.lifecycle_stage = 'active' ORDER BY r.start_time DESC LIMIT ?",
            JOB_TAG,
            job_id,
            RUNS_SHOWN,
        )
        return [RunFacts(*row) for row in rows]

    def _logged(self, condition: str, *values: str) -> Logged | None:
        columns = "model_id, artifact_location, source_run_id"
        order = "lifecycle_stage = 'active' ORDER BY creation_timestamp_ms DESC"
        rows = self._rows(f"SELECT {columns} FROM logged_models WHERE {condition} AND {order}", *values)
        return Logged(*rows[0]) if rows else None

    def _rows(self, query: str, *values: Any) -> list[Any]:
        if not self.path.exists():
            return []
        try:
            with closing(
                sqlite3.connect(f"file:{quote(str(self.path))}?mode=ro", uri=True, timeout=5)
            ) as connection:
                return connection.execute(query, values).fetchall()
        except sqlite3.DatabaseError as error:
            if _is_database(self.path):  # locked, or the tables of another MLflow
                raise Unknown(str(error)) from error
            raise Unavailable(
                f"{self.path} is not an SQLite database; move it away, or name another tracking store"
            ) from None


def _is_database(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(16) in (b"SQLite format 3\0", b"")
