"""What tests of the pipelines share: a small fitted model, a tracking database, a tracking server on loopback."""

from __future__ import annotations

import datetime as dt
import decimal
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from genai_core.artifact import read_header
from pipelines import tracking
from pipelines.settings import TrackSettings

HASH = "sha256:" + "ab" * 32


def track_settings(**fields: Any) -> TrackSettings:
    """Of an experiment that tests write to."""
    return TrackSettings.model_validate({"experiment": "flights", **fields})


def log_a_model(small_model: Path, **fields: Any) -> tuple[tracking.Run, tracking.ModelVersion]:
    """What a train job does at its end."""
    with tracking.Run.start(track_settings(**fields), name="flights", kind="train") as run:
        version = run.log_model(small_model, read_header(small_model), metrics={"nats": 3.0})
    assert version is not None
    return run, version


@pytest.fixture(scope="session")
def small_table() -> pa.Table:
    """600 rows of the types that JSON and pandas know only roughly."""
    random = np.random.default_rng(0)
    start, n = dt.datetime(2013, 1, 1), 600
    hours = [start + dt.timedelta(hours=int(h)) for h in random.integers(0, 5000, n)]
    return pa.table(
        {
            "origin": pa.array(random.choice(["JFK", "LGA", "EWR"], n)),
            "delay": pa.array(random.normal(5, 20, n)),
            "seats": pa.array(
                [None if i % 9 == 0 else int(x) for i, x in enumerate(random.integers(50, 400, n))]
            ),
            "late": pa.array(random.random(n) < 0.3),
            "hour": pa.array(hours, pa.timestamp("us")),
            "hour_utc": pa.array(hours, pa.timestamp("us", tz="UTC")),
            "day": pa.array([hour.date() for hour in hours]),
            "price": pa.array([decimal.Decimal(int(x)) / 100 for x in random.integers(100, 9999, n)]).cast(
                pa.decimal128(10, 2)
            ),
            "carrier": pa.array(random.choice(["AA", "UA"], n)).dictionary_encode(),
        }
    )


@pytest.fixture(scope="session")
def small_model(small_table: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of an artifact with the provenance that a train job writes."""
    from genai_core import fit

    fitted = fit(small_table, max_epochs=1, seed=1, model={"context": 16, "hidden": 8, "embedding": 4})
    data = {"path": "lake/flights", "filter": "month <= 9", "digest": HASH, "rows": small_table.num_rows}
    fitted.provenance |= {"job_id": "train-0123456789abcdef0123", "name": "flights", "data": data}
    directory = tmp_path_factory.mktemp("artifact") / "model"
    fitted.save(directory)
    return directory


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's tables, made once: its first use of a file takes a second."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    tracking._client(f"sqlite:///{path}")
    return path


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory in which nothing of this machine is seen: no server, no cache."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GENAI_SPOOL", str(tmp_path / ".spool"))
    monkeypatch.setenv("GENAI_CACHE", str(tmp_path / ".cache"))
    return tmp_path


@pytest.fixture
def tracked(workplace: Path, empty_database: Path) -> Path:
    """The same with an empty mlflow.db, the default."""
    shutil.copy(empty_database, workplace / "mlflow.db")
    return workplace


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_server(command: list[str], url: str, log: Path, **environment: str) -> subprocess.Popen[bytes]:
    """A process group of its own, which answers at `url` when this returns."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            stdout=file,
            stderr=file,
            start_new_session=True,
            env=os.environ | {"PATH": path, "MLFLOW_DISABLE_TELEMETRY": "true"} | environment,
        )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return process
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.2)
    stop_server(process)
    raise RuntimeError(f"{command} did not start:\n{log.read_text()[-2000:]}")


def stop_server(process: subprocess.Popen[bytes]) -> None:
    """End the group that was started, by its id."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(20)


@pytest.fixture(scope="session")
def mlflow_server(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real tracking server with a database and files of its own."""
    home, port = tmp_path_factory.mktemp("server"), free_port()
    shutil.copy(empty_database, home / "server.db")
    command = ["mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += [
        "--backend-store-uri",
        f"sqlite:///{home}/server.db",
        "--artifacts-destination",
        str(home / "files"),
    ]
    url, no_jobs = f"http://127.0.0.1:{port}", {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    process = start_server(command, f"{url}/health", home / "server.log", **no_jobs)
    yield url
    stop_server(process)
