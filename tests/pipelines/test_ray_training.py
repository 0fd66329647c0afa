"""The same loop on Ray Train workers: replicas stay equal, and lost workers and machines cost nothing but time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
import torch

import genai_core as genai
from genai_core.errors import JobFailed, Stalled
from pipelines import train
from pipelines.context import Context
from pipelines.settings import ComputeSettings
from pipelines.train import TrainJob
from pipelines.training import ray_training
from pipelines.training.checkpoints import Checkpoints
from pipelines.training.fitting import Fitting
from pipelines.training.ray_training import _Room, _room, _watched
from pipelines.training.reading import fit_codec
from tests.contract.spaces import small_table


@pytest.fixture(autouse=True)
def data(tracked: Path) -> None:
    pq.write_table(small_table(4600), tracked / "data.parquet")


def job(name: str, workers: Any = 2, retries: int = 0, **changes: Any) -> TrainJob:
    fields = {
        "job": "train",
        "name": name,
        "source": {"kind": "parquet", "path": "data.parquet"},
        "model": {"kind": "autoregressive", "context": 16, "hidden": 16, "embedding": 4},
        "fit": {"max_epochs": 16, "evaluations": 12, "patience": 1000},
        "compute": {"runner": "ray", "workers": workers, "retries": retries},
        "track": {"enabled": False},
        "sink": {"path": name},
    }
    return TrainJob.model_validate(fields | changes)


def fail(*_: Any) -> None:
    raise OSError("a driver that dies between the fit and its end")


def id_of(spec: TrainJob) -> str:
    return train._id(spec, train.open_source(spec.source))


def after_a_checkpoint(kept: Checkpoints, strike: Callable[[], None]) -> threading.Thread:
    """Strike when the first checkpoint is there; on a busy machine that takes minutes."""

    def watch() -> None:
        deadline = time.monotonic() + 400
        while time.monotonic() < deadline and kept.facts() is None:
            time.sleep(0.05)
        strike()

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def kill_a_worker(killed: list[int]) -> None:
    """With SIGKILL, as the kernel does when memory is short."""
    for process in psutil.Process().children(recursive=True):
        if "RayTrainWorker" in " ".join(process.cmdline()):
            os.kill(process.pid, signal.SIGKILL)
            killed.append(process.pid)
            return


def replica(rank: int, config: dict[str, Any], meeting: str) -> None:
    """What Ray Train does for a worker, without Ray."""
    torch.distributed.init_process_group("gloo", f"file://{meeting}", rank=rank, world_size=2)
    ray_training._worker(config)
    torch.distributed.destroy_process_group()


def undisturbed(spec: TrainJob) -> dict[str, Any]:
    """Facts of the same fit by two processes that no one kills."""
    source, context, scratch = train.open_source(spec.source), Context(), Path.cwd()
    codec, _ = fit_codec(spec, source, context)
    task = Fitting(spec, "undisturbed", source, codec, {}, scratch, lambda *_: None, context.progress)
    kept = Checkpoints(spec.checkpoints, "undisturbed")
    kept.announce()
    torch.multiprocessing.spawn(replica, (ray_training._config(task), str(scratch / "meeting")), nprocs=2)
    result = kept.result()
    assert result is not None
    return result[1]


@pytest.mark.ray
@pytest.mark.s3
@pytest.mark.timeout(900)
def test_a_fit_whose_worker_was_killed_goes_on_from_the_store(
    local_ray: Any, s3_endpoint: str, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the credentials travel in the URI: Ray's workers were started before this test set its variables
    store = f"s3://testing:testing@{bucket.removeprefix('s3://')}/fits?scheme=http&region=us-east-1"
    store += f"&endpoint_override={s3_endpoint.removeprefix('http://')}"
    spec = job("killed", checkpoints=store)
    kept, killed = Checkpoints(store, id_of(spec)), []
    killer = after_a_checkpoint(kept, lambda: kill_a_worker(killed))
    with pytest.raises(JobFailed, match="goes on from the last checkpoint"):
        train.run(spec, Context())
    killer.join()
    assert killed, "no worker was found to kill"
    assert kept.facts() is not None
    assert len(kept._states()) <= 2
    with monkeypatch.context() as patched:
        patched.setattr(train, "_keep", fail)
        with pytest.raises(OSError, match="a driver that dies between the fit and its end"):
            train.run(spec, Context())
    with monkeypatch.context() as patched:
        patched.setattr(ray_training, "_run", fail)  # nothing is trained again
        result = train.run(spec, Context())
    expected = undisturbed(job("undisturbed"))
    # replicas: the hash of the weights, which _assemble has found equal on both workers
    assert [result["replicas"]] * 2 == expected["replicas"]
    progress = expected["progress"]
    assert (result["validation_loss"], result["steps"]) == (progress["best"], progress["step"])
    assert result["workers_from_step"] == progress["worlds"] == [[0, 2]]
    model = genai.load("killed")
    assert model.sample(10).num_rows == 10
    assert model.calibration_size("negative_log_likelihood") > 200
    left = pafs.FileSelector(kept.folder, allow_not_found=True)
    assert kept.filesystem.get_file_info(left) == [], "checkpoints of a finished job are removed"


@pytest.mark.ray
@pytest.mark.timeout(900)
def test_a_fit_that_lost_a_machine_goes_on_with_fewer_workers() -> None:
    spec = job("elastic", workers="1..2", retries=3)
    Path("job.json").write_text(spec.model_dump_json(by_alias=True))
    script = Path(__file__).with_name("lost_machine.py")
    done = subprocess.run(
        [sys.executable, script, "job.json"],
        env=os.environ | {"PYTHONPATH": str(Path(train.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    (start, before), (lost_at, after) = result["workers_from_step"]
    assert (start, before, after) == (0, 2, 1)
    assert 0 < lost_at < result["steps"], "from the last checkpoint, not from the beginning"
    assert result["workers"] == 1
    model = genai.load("elastic")
    assert model.provenance["job"]["workers"] == "1..2"
    assert model.sample(10).num_rows == 10


class Machines:
    """What a cluster says of its machines."""

    def __init__(self, *cpus: float) -> None:
        self.cpus = list(cpus)

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": cpu > 0, "Resources": {"CPU": cpu} if cpu else {}} for cpu in self.cpus]


def test_room_is_counted_by_machine() -> None:
    nodes = Machines(3.0, 1.0, 0.0, 1.5).nodes()
    assert _room(nodes, {"CPU": 1.0}) == 5
    assert _room(nodes, {"CPU": 2.0}) == 1, "a worker does not stretch over two machines"
    assert _room(nodes, {"CPU": 1.0, "GPU": 1.0}) == 0


def test_a_fit_does_not_wait_for_ever_for_machines() -> None:
    machines = Machines(2.0, 2.0)
    compute = ComputeSettings(workers="3..4", stall_seconds=1)
    room, over = _Room(machines, compute), threading.Event()
    with pytest.raises(Stalled, match="had room for 2 of the 3 worker"):

        def look() -> None:
            room.look()
            machines.cpus[1] = 0.0

        _watched(lambda: over.wait(60), look)
    over.set()


def test_what_a_fit_raises_is_raised_where_it_is_waited_for() -> None:
    with pytest.raises(ZeroDivisionError):
        _watched(lambda: 1 / 0, lambda: None)
