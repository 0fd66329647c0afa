"""The runner of this process: retries, quarantine, stalls, and the choice between runners."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from genai_core.errors import JobFailed, Stalled, Unavailable
from pipelines import runners
from pipelines.outputs.sink import Sink
from pipelines.plan import plan_generation
from pipelines.runners import run_shards
from pipelines.running import shard_work
from pipelines.running.ray_session import why_no_ray
from pipelines.running.shard_work import ShardWork, one_thread
from pipelines.settings import ComputeSettings
from tests.pipelines.shard_producers import misbehaving, plain

SHARDS = plan_generation(40, 7, 10).shards


class Recorder:
    """Collects what the runner reports."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []
        self.lines: list[str] = []

    def run(self, work: ShardWork, shards: Any = SHARDS, **compute: Any) -> str:
        settings = (
            ComputeSettings(runner="inline", **compute)
            if "runner" not in compute
            else ComputeSettings(**compute)
        )
        return run_shards(
            work, shards, settings, lambda record: self.records.append(dict(record)), self.lines.append
        )

    @property
    def done(self) -> list[int]:
        return [record["id"] for record in self.records if "error" not in record]


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_work, "RETRY_SECONDS", 0.0)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def work(path: Path, model: Path, how: str | None = None, times: int = 99, retries: int = 3) -> ShardWork:
    if how is None:
        return ShardWork(plain, str(model), str(path / "out"), {})
    (path / "counter").touch()
    options = {"bad": 1, "times": times, "how": how, "counter": str(path / "counter")}
    return ShardWork(misbehaving, str(model), str(path / "out"), {}, options, retries=retries)


def test_every_shard_is_committed_and_reported(tmp_path: Path, small_model: Path, recorder: Recorder) -> None:
    assert recorder.run(work(tmp_path, small_model)) == "inline"
    assert recorder.done == [0, 1, 2, 3]
    assert sum(record["rows"] for record in recorder.records) == 40
    assert [r["id"] for r in Sink(str(tmp_path / "out")).records()] == [0, 1, 2, 3]


def test_what_fails_by_chance_is_tried_again(tmp_path: Path, small_model: Path, recorder: Recorder) -> None:
    recorder.run(work(tmp_path, small_model, "by chance", times=3))
    assert recorder.done == [0, 1, 2, 3]
    assert len((tmp_path / "counter").read_bytes()) == 3
    assert not (tmp_path / "out" / "_quarantine").exists()


@pytest.mark.parametrize(("how", "attempts"), [("by chance", 4), ("bad data", 1)])
def test_what_fails_for_good_is_quarantined_and_the_job_fails(
    tmp_path: Path, small_model: Path, recorder: Recorder, how: str, attempts: int
) -> None:
    with pytest.raises(JobFailed, match=r"shard 1 failed: .*compute.max_failed is 0.*the same command tries"):
        recorder.run(work(tmp_path, small_model, how))
    assert recorder.done == [0]
    kept = json.loads((tmp_path / "out" / "_quarantine" / "00001.json").read_text())
    assert kept["attempts"] == attempts


def test_some_failures_may_be_accepted(tmp_path: Path, small_model: Path, recorder: Recorder) -> None:
    recorder.run(work(tmp_path, small_model, "bad data"), max_failed=1)
    assert recorder.done == [0, 2, 3]
    assert recorder.records[1]["error"] == "InvalidData: the file has changed"


def test_a_hanging_shard_ends_the_job(tmp_path: Path, small_model: Path, recorder: Recorder) -> None:
    with pytest.raises(Stalled, match=r"nothing was committed for 1 s.*the same command resumes"):
        recorder.run(work(tmp_path, small_model, "hang"), stall_seconds=1)
    assert recorder.done == [0]
    recorder.run(work(tmp_path, small_model), SHARDS[1:])
    assert recorder.done == [0, 1, 2, 3]


def test_torch_gets_its_threads_back() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 3
    torch.set_num_threads(before)


def test_one_worker_needs_no_ray(tmp_path: Path, small_model: Path, recorder: Recorder) -> None:
    assert recorder.run(work(tmp_path, small_model), runner="auto") == "inline"
    assert "one worker needs no Ray" in recorder.lines[0]


@pytest.mark.parametrize(("start_seconds", "runner"), [(30.0, "inline"), (0.0, "ray")])
def test_several_workers_use_ray_when_its_start_pays(
    tmp_path: Path,
    small_model: Path,
    recorder: Recorder,
    monkeypatch: pytest.MonkeyPatch,
    start_seconds: float,
    runner: str,
) -> None:
    sent: list[int] = []

    def ray(work: Any, shards: Any, compute: Any, tally: Any, log: Any) -> str:
        sent.extend(shard.id for shard in shards)
        return "ray"

    monkeypatch.setattr(runners, "_ray", ray)
    monkeypatch.setattr(runners, "RAY_START_SECONDS", start_seconds)
    assert recorder.run(work(tmp_path, small_model), runner="auto", workers=2) == runner
    assert "the first shard took" in recorder.lines[0]
    assert [*recorder.done, *sent] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("there", "asked", "held"),
    [
        ({"CPU": 4}, {"workers": 2}, 1.0),
        ({"CPU": 4}, {"workers": 4}, 0.9),  # never all of them: other tasks would wait for ever
        ({"CPU": 4}, {"workers": 4, "cpus_per_worker": 0.5}, 0.5),
        ({"CPU": 4, "GPU": 2}, {"workers": 2, "gpus_per_worker": 1}, 1.0),
    ],
)
def test_actors_never_hold_all_cpus(there: dict[str, float], asked: dict[str, Any], held: float) -> None:
    assert runners._cpus_per_actor(there, ComputeSettings(**asked), asked["workers"]) == pytest.approx(held)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"workers": 5}, r"5 workers with 1 CPU each need 5, Ray has 4; set compute.workers: 4"),
        (
            {"workers": 1, "gpus_per_worker": 1},
            r"1 workers with 1 GPU each need 1, Ray has 0; give it a machine",
        ),
    ],
)
def test_resources_that_are_not_there_are_named(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(Unavailable, match=message):
        runners._cpus_per_actor({"CPU": 4}, ComputeSettings(**asked), asked["workers"])


def test_an_address_where_nothing_listens(tmp_path: Path, small_model: Path, recorder: Recorder) -> None:
    with pytest.raises(Unavailable, match=r"no Ray cluster at 127.0.0.1:1 .*port 6379"):
        recorder.run(work(tmp_path, small_model), runner="127.0.0.1:1")


@pytest.mark.parametrize(
    ("runner", "answer", "said", "advice"),
    [
        ("head:6379", "RPC error: 401 Unauthorized", "", "RAY_AUTH_TOKEN"),
        # what Ray 2.60 says to a client without the token, and what it writes to the terminal meanwhile
        (
            "head:6379",
            "Failed to connect to Ray cluster at 10.0.0.1:6379",
            "gcs_client.cc:210: Unauthenticated: RPC error: InvalidAuthToken: Authentication token is missing",
            "RAY_AUTH_MODE=token",
        ),
        ("head:6379", "Failed to connect to Ray cluster", "", "Is it a Ray of the same version?"),
        ("ray", "Traceback ...\nValueError: no space in /dev/shm", "", "inline works without it"),
    ],
)
def test_what_ray_answers_is_explained(runner: str, answer: str, said: str, advice: str) -> None:
    assert advice in why_no_ray(ComputeSettings(runner=runner), RuntimeError(answer), said)
