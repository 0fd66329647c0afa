"""What another machine cannot use of a job file: relative paths, a database in this folder, secrets spelt out."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from genai_core.errors import InvalidInput
from jobs.spec import Entry
from pipelines.masking import mask_text
from pipelines.stores.storage import PLAIN_QUERY
from pipelines.tracked.registry import is_server
from pipelines.tracked.registry.sqlite import database_path

TRACKING = "MLFLOW_TRACKING_URI"
TRAVELLING = (  # addresses, no credentials; whatever else a job needs is asked for by name
    TRACKING,
    "MLFLOW_REGISTRY_URI",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_DEFAULT_REGION",
    "AWS_REGION",
)
SECRET_NAME = re.compile(
    r"TOKEN|SECRET|PASSW|PWD|CREDENTIAL|(?<!PUBLIC_)KEY(?!_FILE)|SIGNATURE|_SAS\b", re.IGNORECASE
)
REGISTRY_SCHEMES = ("models:", "runs:")
SOURCES = ("source", "real", "holdout", "synthetic", "given")  # keys of jobs under which a source may stand


def require_portable(entries: Sequence[Entry]) -> None:
    """Raise InvalidInput, with every reason at once, for what a cluster could not use or should not see."""
    faults = [fault for entry in entries for fault in _faults(entry)]
    if faults:
        raise InvalidInput("\n".join(dict.fromkeys(faults)))


def places(job: Any) -> dict[str, str]:
    """The keys of a job that say where something lies."""
    track = getattr(job, "track", None)
    found = {
        **{f"{name}.path": getattr(getattr(job, name, None), "path", None) for name in (*SOURCES, "sink")},
        "model": job.model if isinstance(getattr(job, "model", None), str) else None,
        "checkpoints": getattr(job, "checkpoints", None),
        "track.uri": getattr(track, "uri", None),
    }
    return {key: value for key, value in found.items() if value}


def asks_tracking(job: Any) -> bool:
    """Whether a job needs the tracking store that the environment names."""
    registered = str(getattr(job, "model", "")).startswith(REGISTRY_SCHEMES)
    track = getattr(job, "track", None)  # not every job is recorded
    return registered if track is None else track.uri is None and (track.enabled or registered)


def variables(asked: Sequence[str]) -> dict[str, str]:
    """What travels of this environment: TRAVELLING, and NAME or NAME=VALUE of `--env`. Raises InvalidInput."""
    found = {name: os.environ[name] for name in TRAVELLING if os.environ.get(name)}
    for text in asked:
        name, equals, value = text.partition("=")
        if not re.fullmatch(r"[A-Za-z_]\w*", name):
            raise InvalidInput(
                f"--env {mask_text(text)!r}: write NAME, whose value is taken from here, or NAME=VALUE"
            )
        if not equals and name not in os.environ:
            raise InvalidInput(f"--env {name}: it is not set here; write --env {name}=VALUE")
        found[name] = value if equals else os.environ[name]
    for name, value in found.items():
        _refuse_variable(name, value)
    return found


def _refuse_variable(name: str, value: str) -> None:
    if SECRET_NAME.search(name) or spells_secret(value):
        raise InvalidInput(
            f"{name} looks like a secret, and everybody who may look at the cluster's jobs can read what is sent with "
            "one; set it on the cluster (an environment variable of its containers, a Kubernetes Secret, a role)"
        )
    if name == TRACKING and (fault := _database_fault(value)):
        raise InvalidInput(f"{name}={value}: {fault}")


def _faults(entry: Entry) -> Iterator[str]:
    for key, value in places(entry.job).items():
        where = f"{entry.place}: {key}"
        if spells_secret(value):
            yield (
                f"{where} spells out a secret, and a job file lies open on the cluster; leave it out, and give the "
                "cluster's machines credentials of their own"
            )
        elif key == "track.uri":
            if fault := _database_fault(value):
                yield f"{where} {value!r}: {fault}"
        elif _is_relative(value):
            yield f"{where} {value!r} is relative, and the cluster works in another folder; {_advice(key)}"


def _is_relative(value: str) -> bool:
    if value.startswith(REGISTRY_SCHEMES) or "://" in value:
        return False
    return not Path(value).is_absolute()


def _advice(key: str) -> str:
    if key == "model":
        return (
            "name a registered model (models:/NAME@latest), or the absolute path of a directory that it sees"
        )
    example = f"--set {key}=s3://bucket/folder"
    return f"give a URI ({example}), or an absolute path that every machine sees"


def _database_fault(uri: str) -> str | None:
    if is_server(uri) or not uri.startswith("sqlite:") or database_path(uri).is_absolute():
        return None
    return "a database in this folder, which the cluster does not see; give the address of an MLflow server"


def spells_secret(value: str) -> bool:
    """Whether a URI holds a password, or a query that signs or unlocks something. `container@account` is no secret."""
    _, separator, rest = value.partition("://")
    if not separator:
        return False
    address, _, query = rest.partition("?")
    host = address.partition("/")[0]
    login = address.rpartition("@")[0]
    if ":" in login and not (re.fullmatch(r"[^@:]+:\d+", host) and "@" not in host):
        return True
    return any(name not in PLAIN_QUERY and mask_text(f"{name}={text}") != f"{name}={text}"
               for name, text in parse_qsl(query))  # fmt: skip
