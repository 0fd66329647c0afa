"""The same shards in this process, on a Ray of this machine, or on a cluster: the same bytes.

Ray Data sees one row per shard; the actor that gets it computes, writes and commits the shard, and gives back its
small record. Blocks, batches and their order decide nothing.
"""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from genai_core.errors import JobFailed, Unavailable
from pipelines.plan import Shard
from pipelines.settings import RUNNERS, ComputeSettings
from pipelines.shard_work import ShardWork, ShardWorker, one_thread, use_one_thread
from pipelines.watchdog import Watchdog

RAY_START_SECONDS = 30.0  # to import Ray, start it and its first actors: what `auto` must save to use it
SMALL = ("id", "rows", "bytes", "error")  # of a record, what the driver needs
OnRecord = Callable[[Mapping[str, Any]], None]
Log = Callable[[str], None]


def run_shards(
    work: ShardWork, shards: Sequence[Shard], compute: ComputeSettings, on_record: OnRecord, log: Log
) -> str:
    """Do all shards and hand every record to `on_record`; returns the runner used.

    Raises JobFailed when more than `compute.max_failed` shards are quarantined, Stalled when nothing commits,
    Unavailable when the CPUs or GPUs that were asked for are not there.
    """
    dog = Watchdog(compute.stall_seconds)
    tally = _Tally(compute.max_failed, dog, on_record)
    if compute.runner == "inline" or not shards:
        return _inline(work, shards, tally)
    if compute.runner == "auto":
        return _by_size(work, shards, compute, tally, log)
    return _ray(work, shards, compute, tally, log)


class _Tally:
    """Counts what failed, and feeds the watchdog."""

    def __init__(self, max_failed: int, dog: Watchdog, on_record: OnRecord) -> None:
        self.max_failed = max_failed
        self.dog = dog
        self.on_record = on_record
        self.failed = 0

    def add(self, record: Mapping[str, Any]) -> None:
        self.dog.fed()
        self.on_record(record)
        self.failed += "error" in record
        if self.failed > self.max_failed:
            raise JobFailed(
                f"shard {record['id']} failed: {record['error']}. {self.failed} failed, compute.max_failed is "
                f"{self.max_failed}. What was committed stays; the errors are in the output's _quarantine directory, "
                "and the same command tries those shards again"
            )


def _inline(work: ShardWork, shards: Sequence[Shard], tally: _Tally) -> str:
    def loop() -> None:
        with one_thread():
            worker = ShardWorker(work)
            for shard in shards:
                tally.add(worker(shard))

    tally.dog.run(loop)
    return "inline"


def _by_size(
    work: ShardWork, shards: Sequence[Shard], compute: ComputeSettings, tally: _Tally, log: Log
) -> str:
    """One worker needs no Ray; for several, the first shard's time says whether Ray's start pays."""
    if compute.workers == 1:
        log("runner: inline, since one worker needs no Ray")
        return _inline(work, shards, tally)
    started = time.monotonic()
    _inline(work, shards[:1], tally)
    seconds, left = time.monotonic() - started, len(shards) - 1
    saved = seconds * left * (1 - 1 / min(compute.workers, max(left, 1)))
    facts = (
        f"the first shard took {seconds:.1f} s, {left} are left, {compute.workers} workers save {saved:.0f} s"
    )
    if saved <= RAY_START_SECONDS:
        log(f"runner: inline ({facts}; Ray's start costs {RAY_START_SECONDS:.0f} s)")
        return _inline(work, shards[1:], tally)
    log(f"runner: ray ({facts})")
    return _ray(work, shards[1:], compute, tally, log)


def _ray(work: ShardWork, shards: Sequence[Shard], compute: ComputeSettings, tally: _Tally, log: Log) -> str:
    with _session(compute) as ray:
        cpus = _cpus_per_actor(ray.cluster_resources(), compute, min(compute.workers, len(shards)))
        free = ray.available_resources().get("CPU", 0)
        if free < cpus:
            log(f"runner: the cluster has {free:g} CPUs free now; the job waits for {cpus:g}")
        tally.dog.fed()
        try:
            for record in tally.dog.wait_for(lambda: _records(ray, work, shards, compute, cpus)):
                tally.add(record)
        except ray.exceptions.RayError as error:
            raise JobFailed(_why_ray_failed(error)) from error
    return "ray"


@contextmanager
def _session(compute: ComputeSettings) -> Iterator[Any]:
    """Ray, connected. What was started here is shut down here; a Ray that this process already uses stays."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if not _is_cluster(compute):
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its alarms are not for users
    import ray

    if ray.is_initialized():
        yield ray
        return
    with _handlers_kept(), _said_by_ray() as said:
        try:
            ray.init(**_start_options(compute))
        except Exception as error:
            raise Unavailable(_why_no_ray(compute, error, said())) from error
    try:
        yield ray
    finally:
        with _handlers_kept():
            ray.shutdown()


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
    if _is_cluster(compute):
        check_address(compute.runner)
        return {"address": compute.runner, **quiet}
    return {
        "address": "local",  # without it ray.init would join any Ray of this machine
        "num_cpus": math.ceil(compute.workers * compute.cpus_per_worker) + 1,
        "object_store_memory": int(compute.object_store_memory),
        "include_dashboard": False,
        **quiet,
    }


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


def _why_no_ray(compute: ComputeSettings, error: Exception, said: str = "") -> str:
    if isinstance(error, Unavailable):
        return str(error)
    text = str(error).strip()
    if any(mark in text + said for mark in ("401", "nauthenticated", "UNAUTHENTICATED", "AuthToken")):
        return (
            f"the Ray cluster at {compute.runner} refuses this client (401): it wants its token. Set RAY_AUTH_MODE=token "
            "and RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH) to the token that the cluster was started with; on its head "
            "it is in ~/.ray/auth_token"
        )
    if _is_cluster(compute):
        return f"the Ray cluster at {compute.runner} cannot be used: {_last_line(text)}. Is it a Ray of the same version?"
    return f"Ray could not be started: {_last_line(text)}. compute.runner: inline works without it"


def _cpus_per_actor(resources: Mapping[str, float], compute: ComputeSettings, workers: int) -> float:
    """CPUs that each actor holds. Together never all of them: then every other task would wait for ever."""
    wanted = {"CPU": compute.cpus_per_worker, "GPU": compute.gpus_per_worker}
    for kind, each in wanted.items():
        there = resources.get(kind, 0)
        if workers * each > there:
            fit = int(there / each)
            raise Unavailable(
                f"{workers} workers with {each:g} {kind} each need {workers * each:g}, Ray has {there:g}; "
                + (f"set compute.workers: {fit}" if fit else f"give it a machine with {kind}s")
            )
    return wanted["CPU"] if workers * wanted["CPU"] < resources["CPU"] else wanted["CPU"] * 0.9


def _is_cluster(compute: ComputeSettings) -> bool:
    return compute.runner not in RUNNERS


def _records(
    ray: Any, work: ShardWork, shards: Sequence[Shard], compute: ComputeSettings, cpus: float
) -> Iterator[dict[str, Any]]:
    from ray.data import ActorPoolStrategy, DataContext, from_items

    DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    files = ray.put(_model_files(Path(work.model))) if _is_cluster(compute) else None
    rows = [{"shard": json.dumps(shard.to_json())} for shard in shards]
    # from_items: a fifth less CPU than range(), whose rows cost a read task each (40 shards, 2 workers)
    records = from_items(rows, override_num_blocks=len(rows)).map_batches(
        _Actor,
        fn_constructor_args=(work, files),
        batch_size=1,
        compute=ActorPoolStrategy(size=min(compute.workers, len(rows))),
        num_cpus=cpus,
        num_gpus=compute.gpus_per_worker,
    )
    for batch in records.iter_batches(batch_size=None, prefetch_batches=0):
        for text in batch["record"]:
            yield json.loads(text)


def _model_files(directory: Path) -> dict[str, bytes]:
    """What other machines need of a model that lies on this one."""
    return {file.name: file.read_bytes() for file in directory.iterdir() if file.is_file()}


class _Actor:
    """A ShardWorker in a process of Ray's."""

    def __init__(self, work: ShardWork, files: Any) -> None:
        import ray

        use_one_thread()
        if files is None:
            self.worker = ShardWorker(work)
            return
        with tempfile.TemporaryDirectory() as here:
            for name, data in ray.get(files).items():
                (Path(here) / name).write_bytes(data)
            self.worker = ShardWorker(replace(work, model=here))

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        record = self.worker(Shard.from_json(json.loads(str(batch["shard"][0]))))
        return {"record": [json.dumps({key: record[key] for key in SMALL if key in record})]}


def _why_ray_failed(error: BaseException) -> str:
    text = str(error).strip()
    if "No module named" in text:
        return (
            f"a worker of the cluster lacks a package ({_last_line(text)}); install genai-core on all its machines, in "
            "the versions of this one"
        )
    return f"Ray ended the job: {_last_line(text)}. What was committed stays; the same command resumes"


def _last_line(text: str) -> str:
    return (text.splitlines() or ["no reason given"])[-1].strip()
