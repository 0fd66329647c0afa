"""The directory of an artifact: inside an MLflow model, or fetched once into the user's cache."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from genai_core.artifact import HEADER
from genai_core.errors import InvalidArtifact, InvalidInput, Unavailable

ACCEPTED = (
    "models:/NAME@latest, models:/NAME@ALIAS, models:/NAME/3, models:/m-ID, runs:/RUN/NAME, or a directory"
)


def artifact_directory(path: Path) -> Path:
    """The artifact at a path, or inside an MLflow model there."""
    for candidate in (path, *sorted(path.glob(f"artifacts/*/{HEADER}"))):
        directory = candidate.parent if candidate.name == HEADER else candidate
        if (directory / HEADER).is_file():
            return directory
    if not path.exists():
        raise InvalidInput(f"no model at {path}; accepted are {ACCEPTED}")
    if (path / "MLmodel").exists():
        raise InvalidArtifact(f"{path} is an MLflow model, but not one of ours; train one with `genai run`")
    raise InvalidArtifact(
        f"{path} holds no {HEADER}, so it is not a model; give the directory that a train job wrote"
    )


def cache_directory() -> Path:
    """Where models of a server are kept once downloaded: GENAI_CACHE, else the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("GENAI_CACHE") or Path(cache) / "genai") / "models"


def cached(model_id: str, fetch: Callable[[Path], None]) -> Path:
    """The artifact directory of a LoggedModel, fetched once: a LoggedModel never changes.

    `fetch(directory)` fills an empty directory, which becomes visible only when it is complete.
    """
    final = cache_directory() / model_id
    if not final.exists():
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=final.parent, prefix=".") as temporary:
                fetch(Path(temporary) / "model")
                _publish(Path(temporary) / "model", final)
        except OSError as error:
            raise Unavailable(
                f"the model cannot be kept in {final.parent} ({error}); free space, or set GENAI_CACHE"
            ) from error
    return artifact_directory(final)


def _publish(complete: Path, final: Path) -> None:
    try:
        complete.rename(final)
    except OSError:
        if not final.exists():  # another process was quicker, and has the same files
            raise
        shutil.rmtree(complete)
