"""What several floors' tests share: one local Ray for the whole session, and an S3 server on loopback."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # before torch is imported: two threads starve on a busy machine
RAY_CPUS = 4  # logical: the machine may have fewer
STORE_BYTES = 150_000_000


# Files with tests that need Ray or a tracking server, and what they share. In a run in several processes files that
# share something stay together, since there is one of it, and all these start first; of the others a file stays
# together, so that what it prepares is prepared once.
SERVERS = {
    "test_autoscaling.py": "ray",
    "test_interruptions.py": "",
    "test_lineage.py": "tracking server",
    "test_ray_jobs.py": "",
    "test_ray_runner.py": "ray",
    "test_ray_training.py": "ray",
    "test_tracking_server.py": "tracking server",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        shared = item.get_closest_marker("ray") or "mlflow_server" in getattr(item, "fixturenames", ())
        if shared and item.path.name not in SERVERS:
            raise pytest.UsageError(
                f"{item.nodeid} uses Ray or the tracking server: name its file in SERVERS"
            )
    items.sort(key=lambda item: item.path.name not in SERVERS)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """xdist's own groups (`--dist loadgroup`, 3.8) are of no effect with pytest 9.2, which keeps node ids elsewhere."""
    from xdist.scheduler.loadfile import LoadFileScheduling

    class Together(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0].rpartition("/")[2]
            return SERVERS.get(file) or file

    return Together(config, log)


@pytest.fixture(scope="session")
def local_ray() -> Iterator[Any]:
    """A Ray of this session's own; jobs that run in this process use it and leave it running."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    ray.init(
        address="local",
        num_cpus=RAY_CPUS,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=STORE_BYTES,
        logging_level="ERROR",
    )
    yield ray
    ray.shutdown()


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """The address of a real S3 protocol server; its data lives in its memory."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(port, server)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(10)


def _wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError("the S3 server did not start")


@pytest.fixture
def bucket(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """`s3://` URI of an empty bucket; this process and those it starts reach it by the usual variables."""
    import pyarrow.fs as pafs

    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    pafs.S3FileSystem(endpoint_override=s3_endpoint, allow_bucket_creation=True).create_dir(name)
    return f"s3://{name}"
