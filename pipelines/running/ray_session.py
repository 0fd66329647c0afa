"""Ray, connected for the time of a block: a private one on this machine, or a cluster's."""

from __future__ import annotations

import logging
import math
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from genai_core.errors import Unavailable
from pipelines.settings import RUNNERS, ComputeSettings

# What Ray's own processes report to each other several times a second by default. With this, and with one shard in
# flight per actor, a shard of a local job cost 1.08 times that of a plain loop; before, 1.13 times. Not told apart.
QUIET = {
    "RAY_enable_metrics_collection": "0",
    "RAY_event_stats": "0",
    "RAY_metrics_report_interval_ms": "60000",
    "RAY_raylet_report_resources_period_milliseconds": "1000",
}
CROWDED = 8  # worker CPUs to a real one: more is a slip of the finger, and starts as many processes


@contextmanager
def ray_session(compute: ComputeSettings) -> Iterator[Any]:
    """Ray, connected. What was started here is shut down here; a Ray that this process already uses stays."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # else what outlives the shutdown starts another Ray
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
    if not is_cluster(compute):
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its alarms are not for users
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        _refuse_another(ray, compute)
        yield ray
        return
    with _handlers_kept(), _said_by_ray() as said:
        try:
            ray.init(**_start_options(compute))
        except Exception as error:
            raise Unavailable(why_no_ray(compute, error, said())) from error
    try:
        yield ray
    finally:
        with _handlers_kept():
            ray.shutdown()


def _refuse_another(ray: Any, compute: ComputeSettings) -> None:
    """A process can use one Ray: a job that asks for a cluster must not run quietly on the one that is there."""
    if not is_cluster(compute):
        return
    check_address(compute.runner)
    there = ray.get_runtime_context().gcs_address
    if there.rpartition(":")[2] != compute.runner.rpartition(":")[2]:
        raise Unavailable(
            f"this process already uses the Ray at {there}, the job asks for {compute.runner}; "
            "call ray.shutdown() first"
        )


@contextmanager
def _handlers_kept() -> Iterator[None]:
    """Ray takes SIGTERM for itself; how a job ends on it is the command line's affair."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


@contextmanager
def _said_by_ray() -> Iterator[Callable[[], str]]:
    """Ray's C++ side writes straight to file descriptor 2: why it is refused, and much that is of no use to users."""
    kept = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            yield lambda: os.pread(said.fileno(), 1 << 16, 0).decode(errors="replace")
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _start_options(compute: ComputeSettings) -> dict[str, Any]:
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if is_cluster(compute):
        check_address(compute.runner)
        return {"address": compute.runner, **quiet}
    check_compute(compute)
    return {
        "address": "local",  # without it ray.init would join any Ray of this machine
        "num_cpus": math.ceil(compute.workers * compute.cpus_per_worker) + 1,
        "object_store_memory": int(compute.object_store_memory),
        "include_dashboard": False,
        **quiet,
    }


def check_compute(compute: ComputeSettings) -> None:
    """Unavailable when the cluster does not answer, or this machine is asked for far more than it can bear."""
    if is_cluster(compute):
        check_address(compute.runner)
        return
    here = os.cpu_count() or 1
    if compute.workers > 1 and compute.workers * compute.cpus_per_worker > CROWDED * here:
        raise Unavailable(
            f"compute.workers: {compute.workers} processes at once are too many for this machine's {here} CPU(s); "
            "lower it, or name a cluster's HOST:PORT as compute.runner"
        )


def check_address(address: str) -> None:
    """Unavailable unless something listens there; ray.init itself would try for a minute."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError as error:
        raise Unavailable(
            f"no Ray cluster at {address} ({error.strerror or error}); give HOST:PORT of its head (`ray start --head` "
            "prints it, port 6379 by default), or compute.runner: ray for one on this machine"
        ) from error


def why_no_ray(compute: ComputeSettings, error: Exception, said: str = "") -> str:
    """What to do about a Ray that did not start, or did not let us in; `said`: what it wrote to the terminal."""
    if isinstance(error, Unavailable):
        return str(error)
    text = str(error).strip()
    if any(mark in text + said for mark in ("401", "nauthenticated", "UNAUTHENTICATED", "AuthToken")):
        return (
            f"the Ray cluster at {compute.runner} refuses this client (401): it wants its token. Set "
            "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH) to the token that the cluster was started "
            "with; on its head it is in ~/.ray/auth_token"
        )
    if is_cluster(compute):
        reason = last_line(text)
        return (
            f"the Ray cluster at {compute.runner} cannot be used: {reason}. Is it a Ray of the same version?"
        )
    return f"Ray could not be started: {last_line(text)}. compute.runner: inline works without it"


def autoscales(ray: Any) -> bool:
    """Whether an autoscaler reports to the connected Ray: what is missing now may still come."""
    from ray.autoscaler.v2.sdk import get_cluster_status

    version = get_cluster_status(ray.get_runtime_context().gcs_address).stats.autoscaler_version
    return int(version or 0) > 0


def is_cluster(compute: ComputeSettings) -> bool:
    """Whether the job goes to a Ray that runs elsewhere."""
    return compute.runner not in RUNNERS


def last_line(text: str) -> str:
    """Of a traceback, what it is about."""
    return (text.splitlines() or ["no reason given"])[-1].strip()
