"""An MLflow server's registry by REST, with the standard library: 0.05 CPU-seconds where mlflow's client takes 1.3."""

from __future__ import annotations

import base64
import configparser
import json
import os
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlencode, urlsplit

from genai_core.errors import Unavailable
from pipelines.masking import mask_text
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

PROBE_SECONDS = 2.0


class Rest:
    """An MLflow server, by its REST API; a token or a user and password as mlflow itself takes them."""

    def __init__(self, uri: str, seconds: float = PROBE_SECONDS) -> None:
        parts = urlsplit(uri)
        self.shown, self.seconds = mask_text(uri), seconds
        self._base = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"
        self._login = (unquote(parts.username or ""), unquote(parts.password or ""))

    def probe(self) -> None:
        """Raises Unavailable when the server is away or refuses us."""
        self._get("experiments/search", max_results=1)

    def names(self) -> list[str]:
        found = self._get("registered-models/search", max_results=NAMES_OFFERED) or {}
        return [model["name"] for model in found.get("registered_models", [])]

    def model(self, name: str) -> Registered | None:
        found = self._get("registered-models/get", name=name)
        if found is None:
            return None
        model = found["registered_model"]
        versions = [int(v["version"]) for v in model.get("latest_versions", [])]
        aliases = {a["alias"]: int(a["version"]) for a in model.get("aliases", [])}
        return Registered(max(versions, default=None), aliases)

    def version(self, name: str, version: int) -> Version | None:
        found = self._get("model-versions/get", name=name, version=version)
        if found is None:
            return None
        entry = found["model_version"]
        return Version(int(entry["version"]), entry.get("source", ""), entry.get("run_id"))

    def logged(self, model_id: str) -> Logged | None:
        found = self._get(f"logged-models/{quote(model_id, safe='')}")
        if found is None:
            return None
        info = found["model"]["info"]
        return Logged(model_id, info["artifact_uri"], info.get("source_run_id"))

    def logged_by(self, run_id: str, name: str) -> Logged | None:
        raise Unknown("the REST search needs the experiment")

    def runs_of(self, job_id: str) -> list[RunFacts]:
        """The newest runs of a job first."""
        homes = {
            e["experiment_id"]: e["name"]
            for e in (self._get("experiments/search", max_results=1000) or {}).get("experiments", [])
        }
        condition = f"tags.`{JOB_TAG}` = '{job_id}'"
        asked = {"experiment_ids": list(homes), "filter": condition, "max_results": RUNS_SHOWN}
        infos = [run["info"] for run in (self._post("runs/search", asked) or {}).get("runs", [])]
        return [
            RunFacts(i["run_id"], homes[i["experiment_id"]], i["status"], i.get("start_time")) for i in infos
        ]

    def file(self, model_id: str, path: str) -> bytes:
        """One file of a LoggedModel, passed on by the server; Unknown when it does not."""
        where = f"ajax-api/2.0/mlflow/logged-models/{quote(model_id, safe='')}/artifacts/files"
        try:
            return self._read(where, {"artifact_file_path": path})
        except urllib.error.HTTPError as error:
            raise Unknown(f"HTTP {error.code}") from error

    def _get(self, endpoint: str, **query: Any) -> dict[str, Any] | None:
        return self._call(endpoint, query, None)

    def _post(self, endpoint: str, body: Mapping[str, Any]) -> dict[str, Any] | None:
        return self._call(endpoint, {}, json.dumps(body).encode())

    def _call(self, endpoint: str, query: Mapping[str, Any], body: bytes | None) -> dict[str, Any] | None:
        """The answer as a dict; None when there is no such thing."""
        try:
            answer = json.loads(self._read(f"api/2.0/mlflow/{endpoint}", query, body))
        except urllib.error.HTTPError as error:
            return self._refused(error)
        except ValueError:
            raise Unavailable(
                f"{self.shown} answers, but not as an MLflow server; check MLFLOW_TRACKING_URI"
            ) from None
        if not isinstance(answer, dict):
            raise Unknown("an answer of another form")
        return answer

    def _refused(self, error: urllib.error.HTTPError) -> dict[str, Any] | None:
        if error.code == 404 and _error_code(error) == "RESOURCE_DOES_NOT_EXIST":
            return None
        if error.code in (401, 403):
            raise Unavailable(
                f"the tracking server {self.shown} refuses these credentials (HTTP {error.code}); set "
                "MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            )
        if error.code == 404:
            raise Unavailable(
                f"{self.shown} answers, but is no MLflow server (HTTP 404); check MLFLOW_TRACKING_URI"
            )
        if error.code >= 500:
            raise Unavailable(f"the tracking server {self.shown} fails (HTTP {error.code}); see its log")
        raise Unknown(f"HTTP {error.code}")

    def _read(self, path: str, query: Mapping[str, Any], body: bytes | None = None) -> bytes:
        address = f"{self._base}/{path}" + (f"?{urlencode(query)}" if query else "")
        request = urllib.request.Request(
            address, body, {"Content-Type": "application/json", **self._headers()}
        )
        opened = partial(urllib.request.urlopen, request, timeout=self.seconds, context=_tls(self._base))
        with self._unreachable_explained(), opened() as answer:
            return bytes(answer.read())

    @contextmanager
    def _unreachable_explained(self) -> Iterator[None]:
        try:
            yield
        except urllib.error.HTTPError:
            raise
        except OSError as error:
            reason = getattr(error, "reason", error)
            raise Unavailable(
                f"the tracking server {self.shown} cannot be reached ({reason}); start it, correct "
                "MLFLOW_TRACKING_URI, or unset it to track in ./mlflow.db"
            ) from None

    def _headers(self) -> dict[str, str]:
        """mlflow's own order: user and password, else a token; what only mlflow can sign is Unknown."""
        if os.environ.get("MLFLOW_TRACKING_AUTH") or os.environ.get(
            "MLFLOW_TRACKING_AWS_SIGV4", ""
        ).lower() in ("true", "1"):
            raise Unknown("requests are signed by a plugin")
        user, password = self._login if self._login[0] else _stored_login()
        if user:
            return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}
        token = os.environ.get("MLFLOW_TRACKING_TOKEN")
        return {"Authorization": f"Bearer {token}"} if token else {}


def _stored_login() -> tuple[str, str]:
    """From the environment, else from mlflow's ~/.mlflow/credentials."""
    if user := os.environ.get("MLFLOW_TRACKING_USERNAME"):
        return user, os.environ.get("MLFLOW_TRACKING_PASSWORD", "")
    path = Path.home() / ".mlflow" / "credentials"
    if not path.exists():
        return "", ""
    parser = configparser.ConfigParser()
    parser.read(path)
    section = parser["mlflow"] if parser.has_section("mlflow") else {}
    return section.get("mlflow_tracking_username", ""), section.get("mlflow_tracking_password", "")


def _tls(base: str) -> ssl.SSLContext | None:
    if not base.startswith("https"):
        return None
    if os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1"):
        return ssl._create_unverified_context()  # asked for by mlflow's own setting
    return ssl.create_default_context(cafile=os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH"))


def _error_code(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.loads(error.read()).get("error_code", ""))
    except (ValueError, AttributeError):
        return ""
