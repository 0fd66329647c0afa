"""Runs and models on a real tracking server, and what happens when it is away, wrong, or dies."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from genai_core.artifact import read_header
from genai_core.errors import InvalidInput, Unavailable
from pipelines import tracking
from pipelines.tracked import spool
from pipelines.tracked.model_uri import peek_model
from tests.pipelines.conftest import free_port, log_a_model, track_settings

pytestmark = pytest.mark.mlflow
SECRET = "hunter2"


def test_a_server_holds_runs_and_models(
    workplace: Path,
    mlflow_server: str,
    small_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server)
    run, version = log_a_model(small_model, register="served")
    assert capfd.readouterr() == ("", ""), (
        "standard output is the job's; mlflow likes to print addresses there"
    )
    header = peek_model("models:/served@latest")
    assert header is not None and read_header(header).digest == read_header(small_model).digest
    assert not (header / "weights.safetensors").exists(), "only the header is fetched to look at a model"
    found = tracking.resolve_model("models:/served@newest")
    assert found.directory.is_relative_to(workplace / ".cache") and found.uri == version.uri
    from genai_core.artifact import load

    assert load(found.directory).digest == read_header(small_model).digest
    assert tracking.resolve_model(f"runs:/{run.run_id}/model").model_id == version.model_id
    for uri in ("models:/sreved", "models:/served/99", "models:/served@nope"):
        with pytest.raises(InvalidInput, match="served"):
            peek_model(uri)
    assert not (workplace / "mlflow.db").exists() and not (workplace / "mlruns").exists()


def test_a_server_that_is_away_is_said_before_work_starts(workplace: Path) -> None:
    track = track_settings(uri=f"http://user:{SECRET}@127.0.0.1:{free_port()}")
    started = time.monotonic()
    for act in (
        lambda: tracking.check_reachable(track),
        lambda: tracking.Run.start(track, name="x", kind="train"),
        lambda: tracking.resolve_model("models:/flights@latest", track.uri),
        lambda: peek_model("models:/flights@latest", track.uri),
    ):
        with pytest.raises(Unavailable, match="cannot be reached") as caught:
            act()
        assert SECRET not in str(caught.value)
    assert time.monotonic() - started < 5


class Answers(BaseHTTPRequestHandler):
    """A server that gives one answer to everything."""

    status = 401

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(b"<html>hello</html>")

    def log_message(self, *args: Any) -> None:
        pass


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "MLFLOW_TRACKING_USERNAME"),
        (403, "refuses"),
        (404, "no MLflow"),
        (500, "fails"),
        (200, "not as an MLflow"),
    ],
)
def test_what_a_wrong_server_or_login_means_is_explained(workplace: Path, status: int, message: str) -> None:
    handler = type("Handler", (Answers,), {"status": status})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(Unavailable, match=message):
            tracking.check_reachable(track_settings(uri=f"http://127.0.0.1:{server.server_port}"))
        server.shutdown()


def test_a_database_that_cannot_be_used_is_said(workplace: Path) -> None:
    Path("notes.txt").write_text("not a database")
    Path("folder").mkdir()
    for uri in ("sqlite:///notes.txt", "sqlite:///folder", f"postgresql://me:{SECRET}@127.0.0.1:1/mlflow"):
        with pytest.raises(Unavailable) as caught:
            tracking.Run.start(track_settings(uri=uri), name="x", kind="train")
        assert SECRET not in str(caught.value)


class Relay(BaseHTTPRequestHandler):
    """Passes every request on to a real server, so that the way to it can be cut."""

    backend = ""

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        connection = http.client.HTTPConnection(self.backend)
        headers = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "connection")}
        connection.request(self.command, self.path, self.rfile.read(length), headers)
        answer = connection.getresponse()
        body = answer.read()
        self.send_response(answer.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        connection.close()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    def log_message(self, *args: Any) -> None:
        pass


@contextmanager
def way_to(backend: str, port: int) -> Iterator[str]:
    handler = type("Handler", (Relay,), {"backend": backend.removeprefix("http://")})
    with ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{port}"
        server.shutdown()


def test_a_server_that_dies_neither_fails_nor_delays_the_job(
    workplace: Path, small_model: Path, mlflow_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gone in the middle: the job ends in time, the log says it once, the next run delivers what was kept."""
    monkeypatch.setattr(spool, "BACKOFF_SECONDS", (0.1, 0.1))
    monkeypatch.setattr(spool, "FLUSH_SECONDS", 0.1)
    port, messages = free_port(), []
    with way_to(mlflow_server, port) as url:
        run = tracking.Run.start(track_settings(uri=url), name="x", kind="train", log=messages.append)
        run.log_metrics({"loss": 3.0}, 0)
        time.sleep(1)
    started = time.monotonic()
    for step in range(1, 500):
        run.log_metrics({"loss": 1 / step}, step)
    assert time.monotonic() - started < 1
    kept = run.log_model(small_model, read_header(small_model))
    run.finish()
    assert time.monotonic() - started < 12
    assert kept is not None and tracking.resolve_model(kept.uri).directory.parent.name == "models"
    assert [m for m in messages if "wait in" in m] == messages[-1:] and len(messages) <= 3, messages
    with way_to(mlflow_server, port) as url:
        tracking.Run.start(track_settings(uri=url), name="x", kind="train").finish()
        stored = tracking._client(url).get_run(run.run_id)
        assert stored.info.status == "FINISHED"
        history = tracking._client(url).get_metric_history(run.run_id, "loss")
        assert {m.step for m in history} == set(range(500))
        assert list((workplace / ".spool").iterdir()) == []
