"""What chaos kills beside drivers: an S3 store that keeps its data, an MLflow server, a Ray cluster of two nodes"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

START_SECONDS = 180.0
ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Service:
    """A server process in a group of its own, which can be killed, frozen and started again on the same port."""

    def __init__(self, home: Path) -> None:
        self.home, self.port = home, free_port()
        home.mkdir(parents=True, exist_ok=True)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def launch(self, command: Sequence[str], path: str = "/", **environment: str) -> None:
        """Start it and wait until it answers."""
        with (self.home / "log.txt").open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, **environment},
                cwd=ROOT,
            )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(OSError, urllib.error.URLError):
                urllib.request.urlopen(self.url + path, timeout=10).close()
                return
            time.sleep(0.1)
        raise RuntimeError(f"{command[:4]} did not start: {(self.home / 'log.txt').read_text()[-2000:]}")

    def kill(self) -> None:
        """The whole group, by SIGKILL."""
        self.signal(signal.SIGKILL)
        if self.process is not None:
            self.process.wait()

    def signal(self, number: int) -> None:
        """To the whole group; SIGSTOP freezes it, SIGCONT lets it go on."""
        if self.process is not None and self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)


class Store(Service):
    """See benchmarks.chaos_store: what it has acknowledged it still has after a SIGKILL."""

    def start(self) -> None:
        """With the data that it had."""
        journal = self.home / "journal"
        self.launch([sys.executable, "-m", "benchmarks.chaos_store", str(self.port), str(journal)])

    @property
    def environment(self) -> dict[str, str]:
        """With which a driver reaches it."""
        secret = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
        return {"AWS_ENDPOINT_URL": self.url, "AWS_DEFAULT_REGION": "us-east-1", **secret}


class TrackingServer(Service):
    """A real MLflow server over SQLite."""

    @property
    def database(self) -> Path:
        return self.home / "server.db"

    def start(self) -> None:
        """On the database and the files that are there."""
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        places = ["--backend-store-uri", f"sqlite:///{self.database}"]
        places += ["--artifacts-destination", str(self.home / "files")]
        path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
        self.launch(
            [*command, "--workers", "1", *places],
            "/health",
            MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false",
            MLFLOW_DISABLE_TELEMETRY="true",
            PATH=path,
        )


class Cluster:
    """Ray's head, which does no work, and one node that does."""

    def __init__(self, home: Path) -> None:
        self.home, self.port = home, free_port()
        home.mkdir(parents=True, exist_ok=True)
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}
        self.environment = {"RAY_USAGE_STATS_ENABLED": "0", **token}  # of its nodes and of drivers
        self.head: subprocess.Popen[bytes] | None = None
        self.node: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """What is not there; returns when both answer."""
        if self.head is None or self.head.poll() is not None:
            self._end(self.node)
            self._end(self.head)
            before = self._started()
            self.head, self.node = self._ray("--head", f"--port={self.port}", "--num-cpus=0"), None
            self._wait(self.head, lambda: self._started() > before)
        if self.node is None or self.node.poll() is not None:
            self._end(self.node)
            before = self._started()
            self.node = self._ray(f"--address={self.address}", "--num-cpus=3")
            self._wait(self.node, lambda: self._started() > before)
            time.sleep(3)  # until the head counts its CPUs

    def _started(self) -> int:
        """How many nodes have said so."""
        log = self.home / "log.txt"
        return log.read_text().count("Ray runtime started") if log.exists() else 0

    def _ray(self, *options: str) -> subprocess.Popen[bytes]:
        common = ["--include-dashboard=false", "--disable-usage-stats", "--object-store-memory=100000000"]
        if options[0] != "--head":
            common = common[2:]
        with (self.home / "log.txt").open("ab") as log:
            return subprocess.Popen(
                [str(BIN / "ray"), "start", "--block", *options, *common],
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, **self.environment, "PYTHONPATH": str(ROOT)},
            )

    def _wait(self, process: subprocess.Popen[bytes], ready: object) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and process.poll() is None:
            if callable(ready) and ready():
                return
            time.sleep(0.2)
        raise RuntimeError(f"Ray did not start: {(self.home / 'log.txt').read_text()[-2000:]}")

    def find(self, name: str, below: subprocess.Popen[bytes] | None) -> list[psutil.Process]:
        """Processes of a node whose command line holds `name`, the oldest first."""
        if below is None or below.poll() is not None:
            return []
        found: Iterator[psutil.Process] = iter(psutil.Process(below.pid).children(recursive=True))
        return sorted((p for p in found if _is(p, name)), key=lambda p: p.pid)

    def workers(self) -> list[psutil.Process]:
        """Processes that do a job's work: actors of Ray Data, workers of Ray Train."""
        return [p for name in ("MapWorker", "RayTrainWorker") for p in self.find(f"ray::{name}", self.node)]

    def lost_node(self) -> None:
        """What is left of a node whose raylet has died ends too."""
        self._end(self.node)

    def lost_head(self) -> None:
        """The same of the head."""
        self._end(self.head)

    def stop(self) -> None:
        """Both nodes, by SIGKILL to the groups that were started here."""
        self._end(self.node)
        self._end(self.head)

    def _end(self, process: subprocess.Popen[bytes] | None) -> None:
        if process is None:
            return
        for child in psutil.Process(process.pid).children(recursive=True) if process.poll() is None else ():
            with contextlib.suppress(psutil.Error):
                child.kill()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _is(process: psutil.Process, name: str) -> bool:
    try:
        line = process.cmdline()
    except psutil.Error:
        return False
    return any(name in word for word in line[:1]) or (len(line) == 1 and name in line[0])


def clean(folder: Path) -> Path:
    """An empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
