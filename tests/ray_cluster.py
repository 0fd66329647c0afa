"""A Ray cluster on loopback as an administrator starts one: a head with its dashboard, workers, a token.

Everything is ended by the ids of the processes that were started here; `ray stop` would end every Ray of the machine.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

START_SECONDS = 240  # a machine with other work to do takes its time
CPUS_PER_WORKER = 2
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_event_stats": "0",
    "RAY_raylet_start_wait_time_s": str(START_SECONDS),
}
PORTS = (
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "metrics-export-port",
    "runtime-env-agent-port",
    "node-manager-port",
    "object-manager-port",
)


class RayCluster:
    """Processes of `ray start --block`; `address` is the dashboard's, `token` what it asks for."""

    def __init__(self, workers: int) -> None:
        self.token = secrets.token_hex(24)
        self._home = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # sockets want a short path
        self._nodes: list[psutil.Process] = []
        try:
            self._start(workers)
        except BaseException:
            self.end()
            raise

    def environment(self, **others: str) -> dict[str, str]:
        """Of a user of this cluster who knows the token."""
        kept = {
            n: v for n, v in os.environ.items() if not n.startswith(("RAY_", "MLFLOW_", "AWS_", "PYTHONPATH"))
        }
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # the cluster's `python`
        mine = {"PATH": path, "RAY_AUTH_TOKEN": self.token, "RAY_API_SERVER_ADDRESS": self.address}
        return kept | mine | others

    def cpu_seconds(self) -> float:
        """Of all processes that live now."""
        times = [times_of(process) for node in self._nodes for process in tree(node)]
        return sum(times)

    def named(self, word: str) -> list[psutil.Process]:
        """The processes of the cluster that call themselves so, such as the actors of a job."""
        found = [process for node in self._nodes for process in tree(node)]
        return [process for process in found if word in title(process)]

    def kill_head(self) -> None:
        """As a machine that fails."""
        kill(tree(self._nodes.pop(0)))

    def end(self) -> None:
        """The workers first: they would wait for the head."""
        for node in reversed(self._nodes):
            kill(tree(node))
        self._nodes.clear()
        shutil.rmtree(self._home, ignore_errors=True)

    def _start(self, workers: int) -> None:
        port, dashboard, client = free_ports(3)
        self.address = f"http://127.0.0.1:{dashboard}"
        head = ["--head", "--port", port, "--dashboard-host", "127.0.0.1", "--dashboard-port", dashboard]
        head += ["--ray-client-server-port", client, "--temp-dir", self._home, "--num-cpus", 0]
        log = self._node(head)
        self._wait_for_token_check()
        found = [line for line in log.read_text().splitlines() if "ray start --address=" in line]
        gcs = found[0].partition("--address='")[2].partition("'")[0]
        logs = [self._node(["--address", gcs, "--num-cpus", CPUS_PER_WORKER]) for _ in range(workers)]
        for one in logs:
            self._wait_for_words(one, "Ray runtime started")

    def _node(self, options: Sequence[Any]) -> Path:
        log = self._home / f"node-{len(self._nodes)}.log"
        first = free_block(60)
        words = [*options, "--block", "--disable-usage-stats", "--include-log-monitor", "false"]
        words += [
            "--object-store-memory",
            100_000_000,
            "--min-worker-port",
            first,
            "--max-worker-port",
            first + 59,
        ]
        words += [w for name, p in zip(PORTS, free_ports(len(PORTS)), strict=True) for w in (f"--{name}", p)]
        environment = self.environment() | QUIET | {"RAY_AUTH_MODE": "token"}
        del environment["RAY_API_SERVER_ADDRESS"]
        with log.open("wb") as file:
            process = subprocess.Popen(
                [Path(sys.executable).with_name("ray"), "start", *map(str, words)],
                stdout=file,
                stderr=file,
                env=environment,
                cwd=self._home,
                start_new_session=True,
            )
        self._nodes.append(psutil.Process(process.pid))
        self._wait_for_words(log, "Ray runtime started" if "--head" in options else "Local node IP")
        return log

    def _wait_for_words(self, log: Path, words: str) -> None:
        for _ in ticks():
            if words in log.read_text():
                return
            if any(not node.is_running() or node.status() == psutil.STATUS_ZOMBIE for node in self._nodes):
                break
        raise RuntimeError(f"{log.name} ended, or took too long:\n{log.read_text()[-2000:]}")

    def _wait_for_token_check(self) -> None:
        """The dashboard answers those who know the token."""
        request = urllib.request.Request(
            f"{self.address}/api/version", headers={"Authorization": f"Bearer {self.token}"}
        )
        for _ in ticks():
            with contextlib.suppress(OSError), urllib.request.urlopen(request, timeout=5):
                return
        raise RuntimeError("the dashboard did not answer")


def ticks() -> Iterator[None]:
    """Until START_SECONDS have passed."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        yield
        time.sleep(0.2)


def tree(process: psutil.Process) -> list[psutil.Process]:
    """A process and all below it that live."""
    with contextlib.suppress(psutil.Error):
        return [process, *process.children(recursive=True)]
    return []


def times_of(process: psutil.Process) -> float:
    """CPU-seconds of a process and of what it has waited for."""
    with contextlib.suppress(psutil.Error):
        found = process.cpu_times()
        return float(found.user + found.system + found.children_user + found.children_system)
    return 0.0


def title(process: psutil.Process) -> str:
    """What it is called in a list of processes; empty when it has just ended."""
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def kill(processes: Sequence[psutil.Process]) -> None:
    """At once, and wait."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(processes, timeout=20)


def free_ports(count: int) -> list[int]:
    """Different ones, which nobody uses now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("", 0))
        return [one.getsockname()[1] for one in sockets]


def free_block(count: int) -> int:
    """The first of so many ports in a row, below those that the system hands out by itself."""
    for first in range(11_000 + 60 * (os.getpid() % 300), 31_000, count):
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in range(first, first + count):
                stack.enter_context(socket.socket()).bind(("", port))
            if first not in TAKEN:
                TAKEN.add(first)
                return first
    raise RuntimeError(f"no {count} free ports in a row")


TAKEN: set[int] = set()  # promised to a node that has not bound them yet
