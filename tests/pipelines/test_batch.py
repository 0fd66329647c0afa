"""What generate and score share: tracking, progress, resuming, and what happens when the disk fills up."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from genai_core.errors import JobFailed, Unavailable
from pipelines import generate, score
from pipelines.context import Context
from pipelines.generate import GenerateJob
from pipelines.progress import Progress
from pipelines.running import shard_work
from pipelines.score import ScoreJob
from pipelines.stores import storage


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_work, "RETRY_SECONDS", 0.0)


@pytest.fixture
def spec(small_model: Path) -> dict[str, Any]:
    return {"model": str(small_model), "rows": 300, "seed": 7, "rows_per_shard": 100, "sink": {"path": "out"}}


def untracked(spec: dict[str, Any]) -> GenerateJob:
    return GenerateJob.model_validate({**spec, "track": {"enabled": False}})


def quiet(**settings: Any) -> Context:
    return Context(log=lambda text: None, **settings)


def fill_disk(monkeypatch: pytest.MonkeyPatch, from_name: str) -> None:
    """From the file on whose path holds `from_name`, nothing more can be written."""
    put_bytes, full = storage.put_bytes, [False]

    def put(filesystem: Any, path: str, data: bytes, **options: Any) -> bool:
        full[0] = full[0] or from_name in path
        if full[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        return put_bytes(filesystem, path, data, **options)

    monkeypatch.setattr(storage, "put_bytes", put)


@pytest.mark.parametrize("place", ["part-00001", "_shards/00001", "_MANIFEST"])
def test_a_disk_that_fills_up_ends_the_job_which_can_go_on_later(
    spec: dict[str, Any], workplace: Path, place: str
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        fill_disk(patched, place)
        with pytest.raises(JobFailed, match=r"no space left.*the same command"):
            generate.run(untracked(spec), quiet())
    result = generate.run(untracked(spec), quiet())
    assert result["resumed_shards"] == {"part-00001": 1, "_shards/00001": 1, "_MANIFEST": 3}[place]
    assert result["rows"] == pq.read_table("out/data").num_rows == 300
    generate.run(untracked({**spec, "sink": {"path": "undisturbed"}}), quiet())
    names = [sorted(p.name for p in Path(out).rglob("*.parquet")) for out in ("out", "undisturbed")]
    assert names[0] == names[1]


def test_an_output_that_cannot_be_begun_is_bad_input(
    spec: dict[str, Any], workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_disk(monkeypatch, "_JOB.json")
    with pytest.raises(Unavailable, match="no space left"):
        generate.run(untracked(spec), quiet())


def test_progress_counts_shards_and_rows_and_what_was_done_before(
    spec: dict[str, Any], workplace: Path
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        fill_disk(patched, "part-00002")
        with pytest.raises(JobFailed):
            generate.run(untracked(spec), quiet())
    progress = Progress.silent()
    generate.run(untracked(spec), quiet(progress=progress))
    assert progress.describe().startswith("generate: 3/3 shards, 100 rows")


@pytest.mark.mlflow
def test_runs_tell_what_went_in_and_what_came_out(
    spec: dict[str, Any], tracked: Path, small_table: pa.Table
) -> None:
    import mlflow

    # absolute: MLflow keeps connections by URI, and a relative one may be another test's
    track = {"uri": f"sqlite:///{tracked}/mlflow.db"}
    pq.write_table(small_table, "rows.parquet")
    source = {"kind": "parquet", "path": "rows.parquet", "filter": "delay > 0"}
    made = generate.run(
        GenerateJob.model_validate({**spec, "name": "more-flights", "track": track}),
        quiet(spec_text="job: generate"),
    )
    job = {"model": spec["model"], "source": source, "fdr": 0.5, "sink": {"path": "scores"}, "track": track}
    scored = score.run(ScoreJob.model_validate(job), quiet())
    client = mlflow.MlflowClient(tracking_uri=track["uri"])
    runs = {run_id: client.get_run(run_id) for run_id in (made["run_id"], scored["run_id"])}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    first, second = runs.values()
    assert first.data.params["job.rows"] == "300"
    assert first.data.metrics["rows"] == 300
    assert first.data.tags["genai.manifest"] == made["manifest"]
    assert client.get_experiment(first.info.experiment_id).name == "more-flights"
    contexts = {tag.value: one.dataset for one in first.inputs.dataset_inputs for tag in one.tags}
    assert set(contexts) == {"output"}
    contexts = {tag.value: one.dataset for one in second.inputs.dataset_inputs for tag in one.tags}
    assert set(contexts) == {"scoring", "output"}
    assert "rows.parquet" in contexts["scoring"].source
    assert second.data.metrics["flagged"] == scored["flagged"]


@pytest.mark.mlflow
def test_a_failed_run_is_marked_and_the_job_goes_on_in_a_new_one(spec: dict[str, Any], tracked: Path) -> None:
    import mlflow

    track = {"uri": f"sqlite:///{tracked}/mlflow.db"}
    client = mlflow.MlflowClient(tracking_uri=track["uri"])
    job = GenerateJob.model_validate({**spec, "name": "x", "track": track})
    with pytest.MonkeyPatch.context() as patched:
        fill_disk(patched, "part-00001")
        with pytest.raises(JobFailed):
            generate.run(job, quiet())
    experiment = client.get_experiment_by_name("x")
    (failed,) = client.search_runs([experiment.experiment_id])
    assert failed.info.status == "FAILED"
    assert "no space left" in failed.data.tags["genai.error"]
    result = generate.run(job, quiet())
    assert client.get_run(result["run_id"]).info.status == "FINISHED"
    assert json.loads(Path("out/_MANIFEST.json").read_text())["rows"] == 300
    assert len(client.search_runs([experiment.experiment_id])) == 2
    generate.run(job, quiet())
    assert len(client.search_runs([experiment.experiment_id])) == 2, "a finished job needs no run"
