"""From `models:/flights@latest` to the directory of an artifact, without importing mlflow where that can be done.

Accepted are models:/NAME (the newest version), models:/NAME@ALIAS, models:/NAME/VERSION, models:/m-ID,
runs:/RUN/NAME and a directory. `@latest` always means the newest version: MLflow reserves that alias and
refuses to set it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from genai_core.errors import InvalidInput, nearest
from pipelines.masking import mask_text
from pipelines.stores.storage import local_path
from pipelines.tracked.model_files import ACCEPTED, HEADER, artifact_directory, cache_directory, cached
from pipelines.tracked.registry import Logged, Registered, Registry, Unknown, is_server, tracking_uri
from pipelines.tracked.registry.sqlite import Sqlite, database_path

ARTIFACTS = "mlartifacts"  # beside the default database
_MODEL_ID = re.compile(r"m-[0-9a-f]{32}")


@dataclass(frozen=True)
class ModelRef:
    """What a model URI says; exactly one of path, model_id, run_id and name is given."""

    text: str
    path: Path | None = None
    model_id: str | None = None
    run_id: str | None = None
    name: str | None = None
    version: int | None = None
    alias: str | None = None


@dataclass(frozen=True)
class Located:
    """A model that exists: `uri` never moves (models:/NAME/3), `location` is where MLflow keeps the files."""

    uri: str
    directory: Path | None = None
    location: str | None = None
    name: str | None = None
    version: int | None = None
    model_id: str | None = None
    run_id: str | None = None


def parse(uri: str) -> ModelRef:
    """Read a model URI; InvalidInput says what is accepted."""
    if uri.startswith("models:"):
        return _parse_registered(uri)
    if uri.startswith("runs:"):
        run_id, _, name = uri.removeprefix("runs:").lstrip("/").partition("/")
        if not re.fullmatch(r"[0-9a-zA-Z_-]+", run_id) or not name:
            raise InvalidInput(f"{uri!r} is not runs:/RUN/NAME; accepted are {ACCEPTED}")
        return ModelRef(uri, run_id=run_id, name=name)
    if uri.startswith("file://"):
        return ModelRef(uri, path=Path(url2pathname(urlsplit(uri).path)))
    if re.match(r"[a-zA-Z][\w+.-]+:/", uri):
        raise InvalidInput(f"a model cannot be read from {mask_text(uri)!r}; accepted are {ACCEPTED}")
    return ModelRef(uri, path=local_path(uri))


def _parse_registered(uri: str) -> ModelRef:
    rest = uri.removeprefix("models:").strip("/")
    if _MODEL_ID.fullmatch(rest):
        return ModelRef(uri, model_id=rest)
    name, slash, suffix = rest.partition("/")
    if slash and suffix.isdigit() and int(suffix) > 0:
        return ModelRef(uri, name=name, version=int(suffix))
    if slash and suffix.lower() != "latest":
        raise InvalidInput(f"{uri!r}: {suffix!r} is no version number; accepted are {ACCEPTED}")
    name, _, alias = name.partition("@")
    if not name or ("@" in rest and not alias):
        raise InvalidInput(f"{uri!r} is not the URI of a model; accepted are {ACCEPTED}")
    return ModelRef(uri, name=name, alias=alias or "latest")


def locate(uri: str, tracking: str | None = None, registry: Registry | None = None) -> Located:
    """Where the model lies; `directory` is set when that is on this machine.

    InvalidInput: no such model. Unavailable: the server cannot be asked. Unknown: only mlflow itself can tell.
    """
    ref = parse(uri)
    if ref.path is not None:
        return Located(str(ref.path.absolute()), artifact_directory(ref.path))
    server = tracking_uri(tracking)
    registry = registry or registry_of(server)
    if ref.model_id:
        return _from_logged(ref, registry.logged(ref.model_id), server)
    if ref.run_id:
        return _from_logged(ref, registry.logged_by(ref.run_id, str(ref.name)), server)
    return _from_version(ref, registry, server)


def registry_of(uri: str) -> Registry:
    """The reader for a tracking URI; Unknown for stores that only mlflow can read."""
    other = os.environ.get("MLFLOW_REGISTRY_URI")
    if (other and other != uri) or os.environ.get("MLFLOW_WORKSPACE"):
        raise Unknown("the registry lies elsewhere")
    if is_server(uri):
        from pipelines.tracked.registry.rest import Rest

        return Rest(uri)
    if urlsplit(uri).scheme == "sqlite":
        return Sqlite(database_path(uri))
    raise Unknown("only mlflow reads this store")


def _from_version(ref: ModelRef, registry: Registry, server: str) -> Located:
    name = str(ref.name)
    model = registry.model(name)
    if model is None:
        raise InvalidInput(_no_model(name, registry, server))
    number = ref.version or _number(name, str(ref.alias), model, server)
    version = registry.version(name, number)
    if version is None:
        raise InvalidInput(
            f"model {name!r} has no version {number} in {mask_text(server)}; the newest is {model.newest}"
        )
    found = Located(f"models:/{name}/{number}", name=name, version=number, run_id=version.run_id)
    if not version.source.startswith("models:/m-"):
        return _with_location(found, version.source, server)
    model_id = version.source.removeprefix("models:/")
    logged = registry.logged(model_id)
    if logged is None:
        raise InvalidInput(
            f"{ref.text}: version {number} stands in the registry, but its files ({model_id}) are deleted"
        )
    return _with_location(
        replace(found, model_id=model_id, run_id=logged.run_id or version.run_id), logged.location, server
    )


def _number(name: str, alias: str, model: Registered, server: str) -> int:
    if alias in model.aliases:
        return model.aliases[alias]
    if alias.lower() != "latest":
        known = ", ".join(sorted({*model.aliases, "latest"}))
        hint = nearest(alias, model.aliases)
        raise InvalidInput(
            f"model {name!r} has no alias {alias!r} in {mask_text(server)}; its aliases are {known}{hint}"
        )
    if model.newest is None:
        raise InvalidInput(
            f"model {name!r} has no versions in {mask_text(server)}; run a train job with `register: {name}`"
        )
    return model.newest


def _no_model(name: str, registry: Registry, server: str) -> str:
    names = registry.names()
    listed = f"registered are {', '.join(sorted(names)[:8])}" if names else "nothing is registered there"
    where = mask_text(server)
    if isinstance(registry, Sqlite) and not registry.path.exists():
        listed = (
            f"{registry.path.absolute()} does not exist; go to where training ran, or set MLFLOW_TRACKING_URI"
        )
    return f"no model {name!r} in {where}: {listed}{nearest(name, names)}"


def _from_logged(ref: ModelRef, logged: Logged | None, server: str) -> Located:
    if logged is None:
        raise InvalidInput(
            f"{ref.text} is not in {mask_text(server)}; look at the run's models, or use models:/NAME@latest"
        )
    found = Located(f"models:/{logged.model_id}", model_id=logged.model_id, run_id=logged.run_id)
    return _with_location(found, logged.location, server)


def _with_location(found: Located, location: str, server: str) -> Located:
    path = _local_path(location)
    if path is not None and not path.exists():
        path = _moved(path, server)
    return replace(found, location=location, directory=artifact_directory(path) if path else None)


def _moved(path: Path, server: str) -> Path:
    """MLflow keeps absolute paths; a project that moved has its artifacts beside its database all the same."""
    if ARTIFACTS in path.parts and urlsplit(server).scheme == "sqlite":
        inside = path.parts[path.parts.index(ARTIFACTS) :]
        moved = database_path(server).absolute().parent.joinpath(*inside)
        return moved if moved.exists() else path
    return path


def _local_path(location: str) -> Path | None:
    """The path of a local location, or None when it is a store's."""
    if location.startswith("file:"):
        return Path(url2pathname(unquote(urlsplit(location).path)))
    return None if re.match(r"[a-zA-Z][\w+.-]+:/", location) else Path(location)


def peek_model(uri: str, tracking: str | None = None) -> Path | None:
    """A directory whose header can be read, cheaply; None when only the job itself can tell.

    Raises as `locate` does when the model is certainly not there. For a server only the small JSON files are fetched.
    """
    try:
        found = locate(uri, tracking)
        if found.directory is not None or found.model_id is None:
            return found.directory
        return _peek_server(found.model_id, tracking_uri(tracking))
    except Unknown:
        return None


def _peek_server(model_id: str, server: str) -> Path | None:
    """The JSON files of a model that lies behind a server."""
    if (cache_directory() / model_id).exists():
        return artifact_directory(cache_directory() / model_id)
    from pipelines.tracked.registry.rest import Rest

    if not is_server(server):
        return None
    rest = Rest(server)

    def fetch(directory: Path) -> None:
        _write_files(directory, (HEADER,), lambda name: rest.file(model_id, f"artifacts/model/{name}"))

    return cached(f"{model_id}.header", fetch)


def _write_files(directory: Path, names: Iterable[str], read: Callable[[str], bytes]) -> None:
    directory.mkdir(parents=True)
    for name in names:
        (directory / name).write_bytes(read(name))
