"""Whether the tracking store can be used, known within 2 s and without importing mlflow."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from urllib.parse import urlsplit

from genai_core.errors import Unavailable
from pipelines.settings import TrackSettings
from pipelines.tracked.registry import Unknown, is_server, tracking_uri
from pipelines.tracked.registry.rest import Rest
from pipelines.tracked.registry.sqlite import Sqlite, database_path


def check_reachable(track: TrackSettings) -> None:
    """Raise Unavailable when the tracking store cannot be used; other stores are tried when the run starts."""
    server = tracking_uri(track.uri)
    if not track.enabled:
        return
    if is_server(server):
        with contextlib.suppress(Unknown):
            Rest(server).probe()
    elif urlsplit(server).scheme == "sqlite":
        _check_database(database_path(server))


def _check_database(path: Path) -> None:
    where = path if path.exists() else path.absolute().parent
    if where.exists() and not os.access(where, os.W_OK):
        raise Unavailable(
            f"the tracking database {path} cannot be written; set MLFLOW_TRACKING_URI, or track: {{enabled: false}}"
        )
    if path.is_dir():
        raise Unavailable(
            f"{path} is a directory, not a tracking database; name a file, such as sqlite:///mlflow.db"
        )
    with contextlib.suppress(Unknown):
        Sqlite(path).names()
