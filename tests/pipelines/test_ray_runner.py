"""On a real local Ray: the same bytes as in this process, failures of every kind, and what is left afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from genai_core.errors import JobFailed, Stalled, Unavailable
from pipelines import generate, score
from pipelines.context import Context
from pipelines.generate import GenerateJob
from pipelines.outputs.sink import Sink
from pipelines.plan import plan_generation
from pipelines.runners import run_shards
from pipelines.running.shard_work import ShardWork
from pipelines.score import ScoreJob
from pipelines.settings import ComputeSettings
from tests.pipelines import shard_producers
from tests.pipelines.shard_producers import misbehaving, plain

pytestmark = pytest.mark.ray
ROOT = Path(__file__).parents[2]
SHARDS = plan_generation(60, 7, 10).shards


@pytest.fixture
def ray(local_ray: Any) -> Any:
    """The session's Ray; the producers of these tests travel by value, since workers cannot import tests."""
    local_ray.cloudpickle.register_pickle_by_value(shard_producers)
    yield local_ray
    assert local_ray.is_initialized(), "a Ray that the job did not start was shut down"
    local_ray.cloudpickle.unregister_pickle_by_value(shard_producers)


def files(path: Path) -> dict[str, bytes]:
    found = {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}
    found.pop("_RUN.json", None)  # run and time: the one file in which equal jobs differ
    return found


def test_the_same_bytes_inline_on_ray_and_on_a_cluster(
    ray: Any, workplace: Path, small_model: Path, small_table: Any
) -> None:
    pq.write_table(small_table, "rows.parquet", row_group_size=100)
    address = ray.get_runtime_context().gcs_address
    common: dict[str, Any] = {"model": str(small_model), "track": {"enabled": False}, "rows_per_shard": 100}
    source = {"kind": "parquet", "path": "rows.parquet", "filter": "delay > -10"}
    for name, compute in {
        "inline": {"runner": "inline"},
        "one": {"runner": "ray", "workers": 1},
        "two": {"runner": "ray", "workers": 2},
        "cluster": {
            "runner": address,
            "workers": 2,
        },  # the model travels too: a cluster's machines have other disks
    }.items():
        place = {"compute": compute, "sink": {"path": f"rows-{name}"}}
        made = GenerateJob.model_validate(
            {**common, **place, "rows": 450, "seed": 7, "where": {"origin": "JFK"}}
        )
        place = {"compute": compute, "sink": {"path": f"scores-{name}"}}
        scored = ScoreJob.model_validate(
            {**common, **place, "source": source, "fdr": 0.3, "keep": ["origin"]}
        )
        assert generate.run(made, Context())["runner"] == ("inline" if name == "inline" else "ray")
        score.run(scored, Context())
    for verb in ("rows", "scores"):
        inline = files(Path(f"{verb}-inline"))
        assert "_MANIFEST.json" in inline
        assert files(Path(f"{verb}-one")) == inline
        assert files(Path(f"{verb}-two")) == inline
        assert files(Path(f"{verb}-cluster")) == inline


def run(work: ShardWork, **compute: Any) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    settings = ComputeSettings(**{"runner": "ray", "workers": 2, **compute})
    run_shards(work, SHARDS, settings, lambda record: records.append(dict(record)), lambda text: None)
    return sorted(records, key=lambda record: int(record["id"]))


def failing(path: Path, model: Path, how: str, times: int, retries: int = 0) -> ShardWork:
    (path / "counter").touch()
    options = {"bad": 2, "times": times, "how": how, "counter": str(path / "counter")}
    return ShardWork(misbehaving, str(model), str(path / "out"), {}, options, retries=retries)


def all_cpus_are_free(ray: Any, within: float = 30) -> bool:
    deadline, everything = time.monotonic() + within, ray.cluster_resources()["CPU"]
    while ray.available_resources().get("CPU") != everything and time.monotonic() < deadline:
        time.sleep(0.2)
    return bool(ray.available_resources().get("CPU") == everything)


def test_a_worker_that_dies_is_replaced_and_every_shard_committed_once(
    ray: Any, tmp_path: Path, small_model: Path
) -> None:
    records = run(failing(tmp_path, small_model, "die", times=2), retries=5)
    assert [record["id"] for record in records] == [0, 1, 2, 3, 4, 5]
    assert (tmp_path / "counter").read_bytes() == b".."
    run_here = ShardWork(plain, str(small_model), str(tmp_path / "undisturbed"), {})
    run(run_here, runner="inline")
    assert files(tmp_path / "out") == files(tmp_path / "undisturbed")


def test_a_shard_that_kills_every_worker_ends_the_job(ray: Any, tmp_path: Path, small_model: Path) -> None:
    with pytest.raises(JobFailed, match=r"Ray ended the job: .*the same command resumes"):
        run(failing(tmp_path, small_model, "die", times=99), retries=1)
    assert all_cpus_are_free(ray)


def test_what_fails_for_good_is_quarantined(ray: Any, tmp_path: Path, small_model: Path) -> None:
    records = run(failing(tmp_path, small_model, "bad data", times=99), max_failed=1)
    assert [record.get("error") for record in records][2] == "InvalidData: the file has changed"
    assert len(list(Sink(str(tmp_path / "out")).records())) == 5
    with pytest.raises(JobFailed, match=r"shard 2 failed: InvalidData"):
        run(failing(tmp_path, small_model, "bad data", times=99))


def test_a_job_that_has_failed_leaves_the_cluster_to_others(
    ray: Any, tmp_path: Path, small_model: Path
) -> None:
    shards = plan_generation(4000, 7, 10).shards
    work = failing(tmp_path, small_model, "bad data", times=99)
    with pytest.raises(JobFailed):
        run_shards(
            work, shards, ComputeSettings(runner="ray", workers=2), lambda record: None, lambda text: None
        )
    assert all_cpus_are_free(ray)
    done = len(list(Sink(str(tmp_path / "out")).records()))
    assert done < 400
    time.sleep(1)
    assert len(list(Sink(str(tmp_path / "out")).records())) == done


def test_a_worker_that_hangs_ends_the_job(ray: Any, tmp_path: Path, small_model: Path) -> None:
    started = time.monotonic()
    with pytest.raises(Stalled, match="nothing was committed for 6 s"):
        run(failing(tmp_path, small_model, "hang", times=1), stall_seconds=6)
    assert time.monotonic() - started < 60
    assert 2 not in [record["id"] for record in Sink(str(tmp_path / "out")).records()]
    (tmp_path / "counter").unlink()  # let go of the CPU that other tests need


def test_more_workers_than_cpus_are_refused(ray: Any, tmp_path: Path, small_model: Path) -> None:
    with pytest.raises(
        Unavailable, match=r"6 workers with 1 CPU each need 6, Ray has 4; set compute.workers: 4"
    ):
        run(ShardWork(plain, str(small_model), str(tmp_path / "out"), {}), workers=6)
    assert not (tmp_path / "out").exists()


def test_all_cpus_asked_for_do_not_hang(ray: Any, tmp_path: Path, small_model: Path) -> None:
    records = run(ShardWork(plain, str(small_model), str(tmp_path / "out"), {}), workers=4, stall_seconds=120)
    assert len(records) == 6


@pytest.mark.slow
def test_a_ray_of_the_jobs_own_is_private_quiet_and_gone_afterwards(
    ray: Any, workplace: Path, small_model: Path
) -> None:
    code = f"""
import json, os, signal, sys
from pipelines import generate
from pipelines.context import Context
from pipelines.generate import GenerateJob
job = GenerateJob.model_validate(dict(model={str(small_model)!r}, rows=200, rows_per_shard=100, sink=dict(path="out"),
    track=dict(enabled=False), compute=dict(runner="ray", workers=1)))
before = signal.getsignal(signal.SIGTERM)
print(json.dumps(generate.run(job, Context())))
import ray, psutil
assert not ray.is_initialized()
assert signal.getsignal(signal.SIGTERM) == before
left = [p.cmdline() for p in psutil.Process().children(recursive=True) if p.status() != "zombie"]
assert not left, left
"""
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["runner"] == "ray"
    assert ended.stderr == ""
