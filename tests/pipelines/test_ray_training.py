"""The same loop on two Ray Train workers: replicas stay equal, and a killed worker costs nothing but time."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest

import genai_core as genai
from pipelines import train
from pipelines.context import Context
from pipelines.train import TrainJob
from tests.contract.spaces import small_table

pytestmark = pytest.mark.ray


@pytest.fixture(autouse=True)
def data(tracked: Path) -> None:
    pq.write_table(small_table(4000), tracked / "data.parquet")


def job(name: str, **changes: Any) -> TrainJob:
    fields = {
        "job": "train",
        "name": name,
        "source": {"kind": "parquet", "path": "data.parquet"},
        "model": {"kind": "autoregressive", "context": 16, "hidden": 16, "embedding": 4},
        "fit": {"max_epochs": 16, "evaluations": 12, "patience": 1000},
        "compute": {"runner": "ray", "workers": 2},
        "track": {"enabled": False},
        "sink": {"path": name},
    }
    return TrainJob.model_validate(fields | changes)


def kill_a_worker_after_the_first_checkpoint(checkpoints: Path, killed: list[int]) -> None:
    """With SIGKILL, as a lost machine would; waits at most two minutes."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not list(checkpoints.glob("*/checkpoint_*/facts.json")):
        time.sleep(0.05)
    for process in psutil.Process().children(recursive=True):
        if "RayTrainWorker" in " ".join(process.cmdline()):
            os.kill(process.pid, signal.SIGKILL)
            killed.append(process.pid)
            return


def test_two_workers_one_of_them_killed(local_ray: Any) -> None:
    undisturbed = train.run(job("undisturbed", checkpoints="checkpoints/undisturbed"), Context())
    assert undisturbed["workers"] == 2
    killed: list[int] = []
    killer = threading.Thread(
        target=kill_a_worker_after_the_first_checkpoint, args=(Path("checkpoints/killed"), killed)
    )
    killer.start()
    result = train.run(job("killed", checkpoints="checkpoints/killed"), Context())
    killer.join()
    assert killed, "no worker was found to kill"
    # replicas: the hash of the weights, which _assemble has found equal on both workers
    assert result["replicas"] == undisturbed["replicas"]
    assert result["validation_loss"] == undisturbed["validation_loss"]
    assert result["steps"] == undisturbed["steps"]
    model = genai.load("killed")
    assert model.sample(10).num_rows == 10
    assert model.calibration_size("negative_log_likelihood") > 200
