"""The same shards in this process, on a Ray of this machine, or on a cluster: the same bytes.

Ray Data sees one row per shard; the actor that gets it computes, writes and commits the shard, and gives back its
small record. Blocks, batches and their order decide nothing.
"""

from __future__ import annotations

import gc
import json
import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from genai_core.errors import JobFailed, Unavailable
from pipelines.plan import Shard
from pipelines.running.ray_session import autoscales, is_cluster, last_line, ray_session
from pipelines.running.shard_work import ShardWork, ShardWorker, one_thread, use_one_thread
from pipelines.running.watchdog import Watchdog
from pipelines.settings import ComputeSettings

RAY_START_SECONDS = 30.0  # to import Ray, start it and its first actors: what `auto` must save to use it
SPARED = 0.9  # of a CPU, where the actors would take all of them: what is left is for every other task
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
    with ray_session(compute) as ray:
        cpus = _asked_cpus(ray, compute, min(compute.workers, len(shards)), log)
        free = ray.available_resources().get("CPU", 0)
        if free < cpus:
            log(f"runner: the cluster has {free:g} CPUs free now; the job waits for {cpus:g}")
        tally.dog.fed()
        why = ""
        try:
            for record in tally.dog.wait_for(lambda: _records(ray, work, shards, compute, cpus)):
                tally.add(record)
        except ray.exceptions.RayError as error:
            why = _why_ray_failed(error)
        if why:
            # Ray Data's failed executor stands in reference cycles, and holds an actor with its CPU until they are
            # collected. Not chained: the error's frames would hold it too.
            gc.collect()
            raise JobFailed(why)
    return "ray"


def _asked_cpus(ray: Any, compute: ComputeSettings, workers: int, log: Log) -> float:
    """CPUs that each actor asks for; more than there are only where an autoscaler may bring them."""
    try:
        return _cpus_per_actor(ray.cluster_resources(), compute, workers)
    except Unavailable as error:
        if not autoscales(ray):
            raise
        log(f"runner: {error}; the cluster's autoscaler is asked for more")
        return compute.cpus_per_worker * SPARED


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
    return wanted["CPU"] if workers * wanted["CPU"] < resources["CPU"] else wanted["CPU"] * SPARED


def _records(
    ray: Any, work: ShardWork, shards: Sequence[Shard], compute: ComputeSettings, cpus: float
) -> Iterator[dict[str, Any]]:
    from ray.data import ActorPoolStrategy, DataContext, from_items

    DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    files = ray.put(_model_files(Path(work.model))) if is_cluster(compute) else None
    rows = [{"shard": json.dumps(shard.to_json())} for shard in shards]
    with warnings.catch_warnings():
        # no other way yet to say max_task_retries; this one goes in Ray 2.64: see the bound in pyproject.toml
        warnings.filterwarnings("ignore", "`ray_remote_args` is deprecated")
        # from_items: a fifth less CPU than range(), whose rows cost a read task each (40 shards, 2 workers)
        records = from_items(rows, override_num_blocks=len(rows)).map_batches(
            _Actor,
            fn_constructor_args=(work, files),
            batch_size=1,
            # one at a time: by default a busy actor is given a second shard while another has none
            compute=ActorPoolStrategy(size=min(compute.workers, len(rows)), max_tasks_in_flight_per_actor=1),
            num_cpus=cpus,
            num_gpus=compute.gpus_per_worker,
            max_task_retries=compute.retries,  # of a shard whose worker died; Ray would try for ever
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
            f"a worker of the cluster lacks a package ({last_line(text)}); install genai-core on all its machines, in "
            "the versions of this one"
        )
    return f"Ray ended the job: {last_line(text)}. What was committed stays; the same command resumes"
