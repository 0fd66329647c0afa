"""How far a job has come, told by its output and by MLflow alone."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import generate, train
from pipelines.context import Context
from pipelines.generate import GenerateJob
from pipelines.lake import LakeJob
from pipelines.lakes.lake_log import LakeLog
from pipelines.running.job_state import state_of
from pipelines.train import TrainJob


def generating(small_model: Path, **changes: Any) -> GenerateJob:
    fields = {"model": str(small_model), "rows": 25, "rows_per_shard": 10, "sink": {"path": "out"}}
    return GenerateJob.model_validate(fields | {"track": {"experiment": "e"}} | changes)


def test_an_output_tells_how_far_its_job_is(tracked: Path, small_model: Path) -> None:
    job = generating(small_model)
    assert state_of(job) == {"from": "output", "output": "out", "status": "not started"}
    result = generate.run(job, Context())
    done = state_of(job)
    assert (done["status"], done["rows"], done["shards"]) == ("done", 25, 3)
    assert done["job_id"] == result["job_id"] and done["manifest"] == result["manifest"]
    (run,) = done["runs"]
    assert (run["run_id"], run["status"], run["experiment"]) == (result["run_id"], "FINISHED", "e")
    (tracked / "out" / "_MANIFEST.json").unlink()
    (tracked / "out" / "_shards" / "00001.json").unlink()
    half = state_of(job)
    assert (half["status"], half["shards"], half["of"]) == ("unfinished", 2, 3)
    other = state_of(generating(small_model, seed=1))
    assert other["status"] == "not started" and result["job_id"] in other["note"]
    wider = state_of(generating(small_model, compute={"workers": 5}, name="x"))
    assert wider["status"] == "unfinished", "where a job runs is not what it makes"


def test_a_tracking_server_that_is_away_is_a_note(tracked: Path, small_model: Path) -> None:
    generate.run(generating(small_model, track={"enabled": False}), Context())
    found = state_of(generating(small_model, track={"uri": "http://127.0.0.1:9"}))
    assert found["status"] == "done" and "cannot be reached" in found["note"]


def test_a_training_s_run_tells_and_so_does_its_model(tracked: Path, small_table: pa.Table) -> None:
    pq.write_table(small_table.select(["delay", "origin"]), "data.parquet")
    job = TrainJob.model_validate(
        {
            "name": "small",
            "source": {"kind": "parquet", "path": "data.parquet"},
            "model": {"kind": "autoregressive", "context": 8, "hidden": 8, "embedding": 4},
            "fit": {"max_epochs": 1, "evaluations": 1},
            "sink": {"path": "model"},
        }
    )
    assert (state_of(job)["status"], state_of(job)["from"]) == ("not started", "MLflow")
    result = train.run(job, Context())
    found = state_of(job)
    assert (found["status"], found["from"]) == ("done", "output") and found["job_id"] == result["job_id"]
    shutil.rmtree(tracked / "model")
    found = state_of(job)
    assert (found["status"], found["from"]) == ("done", "MLflow")
    assert found["runs"][0]["run_id"] == result["run_id"]
    pq.write_table(small_table.select(["delay"]), "data.parquet")  # other data, another job
    assert state_of(job)["status"] == "not started"
    (tracked / "data.parquet").unlink()
    gone = state_of(job)
    assert gone["status"] == "unknown" and "data.parquet" in gone["note"]


def test_a_store_that_does_not_answer_is_unknown(
    workplace: Path, small_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "y")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    found = state_of(generating(small_model, sink={"path": "s3://lake/out"}))
    assert (found["status"], found["from"]) == ("unknown", "nothing") and "s3://lake/out" in found["note"]


def test_a_lake_s_committed_runs_are_counted(workplace: Path, small_model: Path) -> None:
    source = {"kind": "parquet", "path": "lake"}
    job = LakeJob.model_validate({"model": str(small_model), "source": source, "sink": {"path": "out"}})
    assert state_of(job)["status"] == "not started"
    LakeLog("out").commit(1, {"run": "run=000001-a"}, [])
    found = state_of(job)
    assert found["status"] == "done" and "the last is run=000001-a" in found["note"]
