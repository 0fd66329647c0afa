"""Runs, logged models and the registry, against a real MLflow: its SQLite file and its server."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError

from genai_core.artifact import read_header
from genai_core.errors import InvalidArtifact, InvalidInput, Unavailable
from pipelines import spool, tracking
from pipelines.model_uri import peek_model
from pipelines.settings import ComputeSettings, TrackSettings
from tests.pipelines.conftest import HASH, free_port, start_server, stop_server

pytestmark = pytest.mark.mlflow
SECRET = "hunter2"
SPEC = f"job: train\nsource: {{path: 's3://KEY:{SECRET}/x@bucket/lake'}}\npassword: {SECRET}\n"


def settings(**fields: Any) -> TrackSettings:
    return TrackSettings.model_validate({"experiment": "flights", **fields})


def log_a_model(small_model: Path, **fields: Any) -> tuple[tracking.Run, tracking.ModelVersion]:
    with tracking.Run.start(settings(**fields), name="flights", kind="train", spec_text=SPEC) as run:
        version = run.log_model(small_model, read_header(small_model), metrics={"nats": 3.0})
    assert version is not None
    return run, version


def client(uri: str = "sqlite:///mlflow.db") -> Any:
    return tracking._client(uri)


# ---------------------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"runner": "rya"}, "accepted are auto, inline, ray"),
        ({"runner": "ray://head:10001"}, "HOST:PORT"),
        ({"workers": 0}, "greater than or equal to 1"),
        ({"gpus_per_worker": 1.5}, "whole number"),
        ({"object_store_memory": "1MB"}, "80000000"),
        ({"wrokers": 2}, "wrokers"),
    ],
)
def test_compute_settings_refuse_what_ray_could_not_do(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ComputeSettings.model_validate(fields)


def test_compute_settings_read_sizes_and_addresses() -> None:
    compute = ComputeSettings.model_validate({"runner": "10.0.0.1:6379", "object_store_memory": "300MB"})
    assert (compute.runner, compute.object_store_memory) == ("10.0.0.1:6379", 300_000_000)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"register": "flights", "alias": "latest"}, "reserves"),
        ({"register": "flights", "alias": "v3"}, "cannot be an alias"),
        ({"register": "a/b"}, "cannot name"),
        ({"alias": "champion"}, "needs `register"),
        ({"uri": "./mlruns"}, "sqlite:///mlflow.db"),
    ],
)
def test_track_settings_refuse_what_mlflow_would(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TrackSettings.model_validate(fields)


# ------------------------------------------------------------------------------------------------------- runs


def test_a_run_holds_parameters_metrics_by_step_job_file_and_environment(tracked: Path) -> None:
    params = {"fit": {"seed": 7, "layers": [1, 2]}, "token": SECRET, "none": None}
    with tracking.Run.start(settings(), name="flights", kind="train", spec_text=SPEC, params=params) as run:
        for step in range(30):
            run.log_metrics({"loss": 1 / (step + 1), "nan": math.nan, "inf": math.inf, "none": None}, step)
    stored = client().get_run(run.run_id)
    assert stored.info.status == "FINISHED"
    assert stored.data.params == {"fit.seed": "7", "fit.layers": "[1, 2]", "token": "***"}
    history = client().get_metric_history(run.run_id, "loss")
    assert [(m.step, m.value) for m in history] == [(s, 1 / (s + 1)) for s in range(30)]
    folder = next((tracked / "mlartifacts").glob(f"*/{run.run_id}/artifacts"))
    assert (folder / "job.yaml").read_text().startswith("job: train")
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["packages"]["mlflow"] and environment["python"]
    assert sorted(p.name for p in tracked.iterdir() if not p.name.startswith(".")) == [
        "mlartifacts",
        "mlflow.db",
    ]


def test_no_secret_reaches_the_store(tracked: Path) -> None:
    with tracking.Run.start(settings(), name="flights", kind="train", spec_text=SPEC) as run:
        run.log_dataset("lake", f"s3://KEY:{SECRET}@bucket/lake", HASH)
        run.set_tags({"command": f"genai run --set source.password={SECRET}"})
        run.log_artifact(f"https://account.blob/x?sig={SECRET}", "note.txt")
    found = [p for p in tracked.rglob("*") if p.is_file() and SECRET.encode() in p.read_bytes()]
    assert found == []


def test_a_failed_job_and_an_interrupted_one_say_so(tracked: Path) -> None:
    for error, status in ((ValueError(f"password={SECRET}"), "FAILED"), (KeyboardInterrupt(), "KILLED")):
        with pytest.raises(type(error)), tracking.Run.start(settings(), name="x", kind="train") as run:
            raise error
        stored = client().get_run(run.run_id)
        assert stored.info.status == status
        assert SECRET not in stored.data.tags["genai.error"]


def test_a_resumed_job_goes_on_with_its_run(tracked: Path) -> None:
    lost = tracking.Run.start(
        settings(), name="x", kind="generate", job_id="generate-1"
    )  # killed: never finished
    with tracking.Run.start(settings(), name="x", kind="generate", job_id="generate-1") as again:
        assert again.run_id == lost.run_id
    with tracking.Run.start(settings(), name="x", kind="generate", job_id="generate-1") as anew:
        assert anew.run_id != lost.run_id


def test_tracking_switched_off_touches_nothing(workplace: Path, small_model: Path) -> None:
    with tracking.Run.start(settings(enabled=False), name="x", kind="train", spec_text=SPEC) as run:
        run.log_metrics({"loss": 1.0})
        assert run.log_model(small_model, read_header(small_model)) is None
    assert run.run_id is None and list(workplace.iterdir()) == []


def test_runs_are_found_by_the_digest_of_their_data(tracked: Path, small_table: pa.Table) -> None:
    digests = ["sha256:" + letter * 64 for letter in "abc"]
    with tracking.Run.start(settings(), name="x", kind="score") as run:
        for digest, context in zip(digests, ("training", "scoring", "output"), strict=True):
            run.log_dataset("lake", "lake/flights", digest, small_table.schema, 600, context, "month > 9")
    stored = client().get_run(run.run_id)
    assert {i.tags[0].value for i in stored.inputs.dataset_inputs} == {"training", "scoring", "output"}
    for digest in digests:
        short = digest.removeprefix("sha256:")[:32]
        found = client().search_runs([stored.info.experiment_id], f"dataset.digest = '{short}'")
        assert [r.info.run_id for r in found] == [run.run_id]
    import mlflow

    dataset = stored.inputs.dataset_inputs[0].dataset
    assert (
        json.loads(dataset.profile)["digest"] in digests
        and json.loads(dataset.source)["filter"] == "month > 9"
    )
    assert mlflow.data.get_source(dataset).uri == str(tracked / "lake/flights")


# ------------------------------------------------------------------------------------------- models, registry


def test_every_way_to_name_a_model_leads_to_its_directory(tracked: Path, small_model: Path) -> None:
    run, version = log_a_model(small_model, register="flights", alias="champion")
    assert version.uri == "models:/flights/1"
    digest = read_header(small_model).digest
    names = [
        "models:/flights@latest",
        "models:/flights@newest",
        "models:/flights@champion",
        "models:/flights/1",
    ]
    names += [
        "models:/flights",
        "models:/flights/latest",
        f"models:/{version.model_id}",
        f"runs:/{run.run_id}/model",
    ]
    for name in names:
        found = tracking.resolve_model(name)
        assert read_header(found.directory).digest == digest, name
        assert (found.model_id, found.run_id) == (version.model_id, run.run_id), name
        assert peek_model(name) == found.directory
    assert tracking.resolve_model(str(small_model)).directory == small_model
    assert tracking.resolve_model(small_model.as_uri()).directory == small_model


def test_latest_and_newest_follow_new_versions_and_an_alias_stays(tracked: Path, small_model: Path) -> None:
    log_a_model(small_model, register="flights", alias="champion")
    log_a_model(small_model, register="flights")
    found = {
        a: tracking.resolve_model(f"models:/flights@{a}").version for a in ("latest", "newest", "champion")
    }
    assert found == {"latest": 2, "newest": 2, "champion": 1}


def test_mlflow_itself_reserves_latest(tracked: Path, small_model: Path) -> None:
    log_a_model(small_model, register="flights")
    with pytest.raises(Exception, match="reserved"):
        client().set_registered_model_alias("flights", "latest", "1")


def test_a_logged_model_is_two_lines_of_code_and_no_pickle(tracked: Path, small_model: Path) -> None:
    run, version = log_a_model(small_model, register="flights")
    folder = next((tracked / "mlartifacts").glob("*/models/*/artifacts"))
    code = (folder / "genai_model.py").read_text().split("\n")
    assert [line for line in code if line] == ["from pipelines.tracking import serve", "serve()"]
    names = {p.name for p in folder.rglob("*") if p.is_file()}
    assert not [n for n in names if n.endswith((".pkl", ".pickle"))] and "weights.safetensors" in names
    assert "torch==" in (folder / "requirements.txt").read_text()
    logged = client().get_logged_model(version.model_id)
    assert logged.tags["genai.digest"] == read_header(small_model).digest
    assert logged.source_run_id == run.run_id
    outputs = client().get_run(run.run_id).outputs.model_outputs
    assert [o.model_id for o in outputs] == [version.model_id]


def test_the_model_that_a_run_used_is_its_input(tracked: Path, small_model: Path) -> None:
    _, version = log_a_model(small_model, register="flights")
    with tracking.Run.start(settings(), name="x", kind="generate") as run:
        run.log_model_input(tracking.resolve_model("models:/flights@latest"))
        run.log_model_input(tracking.resolve_model(str(small_model)))  # of no run: left out
    assert [m.model_id for m in client().get_run(run.run_id).inputs.model_inputs] == [version.model_id]


def test_a_finished_job_is_found_again_under_the_name_that_is_asked_for(
    tracked: Path, small_model: Path
) -> None:
    track = settings(register="flights")
    with tracking.Run.start(track, name="x", kind="train", job_id="train-1") as run:
        version = run.log_model(small_model, read_header(small_model))
        assert version is not None
        run.set_tags({"genai.model": version.uri, "genai.model_digest": "sha256:1"})
    found = tracking.finished_run(track, "x", "train-1")
    assert found == {"model": "models:/flights/1", "model_digest": "sha256:1", "run_id": run.run_id}
    assert tracking.finished_run(track, "x", "train-2") is None
    assert tracking.finished_run(settings(register="other"), "x", "train-1") is None


def test_a_project_that_moved_still_has_its_models(
    tracked: Path, small_model: Path, monkeypatch: Any
) -> None:
    log_a_model(small_model, register="flights")
    moved = tracked.with_name(tracked.name + "-moved")
    tracked.rename(moved)
    monkeypatch.chdir(moved)
    assert tracking.resolve_model("models:/flights@latest").directory.is_relative_to(moved)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("models:/flihts@latest", "did you mean 'flights'"),
        ("models:/flights/9", "the newest is 1"),
        ("models:/flights@champoin", "did you mean 'champion'"),
        ("models:/m-" + "0" * 32, "is not in sqlite"),
        ("runs:/0123/model", "is not in sqlite"),
        ("models:/", "accepted are"),
        ("models:/flights/Production", "no version number"),
        ("no/such/directory", "no model at"),
        ("s3://KEY:hunter2@bucket/model", r"s3://\*\*\*@bucket"),
    ],
)
def test_a_model_that_is_not_there_is_said_at_once(
    tracked: Path, small_model: Path, uri: str, message: str
) -> None:
    log_a_model(small_model, register="flights", alias="champion")
    for resolve in (tracking.resolve_model, peek_model):
        with pytest.raises(InvalidInput, match=message):
            resolve(uri)


def test_a_directory_without_a_model_is_said(tracked: Path) -> None:
    with pytest.raises(InvalidArtifact, match="holds no artifact.json"):
        tracking.resolve_model(".")


def test_resolving_from_the_default_database_imports_neither_mlflow_nor_torch(
    tracked: Path, small_model: Path
) -> None:
    log_a_model(small_model, register="flights")
    code = (
        "import sys; from pipelines.tracking import resolve_model; resolve_model('models:/flights@latest');"
        "print({'mlflow', 'torch', 'ray', 'pandas'} & set(sys.modules))"
    )
    root = Path(tracking.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(root)},
        check=True,
    )
    assert done.stdout.strip() == "set()"


def test_three_processes_share_a_new_database(workplace: Path) -> None:
    """mlflow#6490: without a lock some of them fail while the tables are made."""
    code = (
        "from pipelines.tracking import Run; from pipelines.settings import TrackSettings\n"
        "with Run.start(TrackSettings(), name='x', kind='train') as run: run.log_metrics({'a': 1.0})"
    )
    root = str(Path(tracking.__file__).parents[1])
    many = [
        subprocess.Popen([sys.executable, "-c", code], env={"PYTHONPATH": root}, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    errors = [process.communicate()[1].decode() for process in many]
    assert [process.returncode for process in many] == [0] * 3, errors
    assert errors == [""] * 3
    experiment = client().get_experiment_by_name("x")
    assert len(client().search_runs([experiment.experiment_id], "attributes.status = 'FINISHED'")) == 3


# ----------------------------------------------------------------------------------------- a tracking server


def test_a_server_holds_runs_and_models(
    workplace: Path, mlflow_server: str, small_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server)
    run, version = log_a_model(small_model, register="served")
    header = peek_model("models:/served@latest")
    assert header is not None and read_header(header).digest == read_header(small_model).digest
    assert not (header / "weights.safetensors").exists(), "only the header is fetched to look at a model"
    found = tracking.resolve_model("models:/served@newest")
    assert found.directory.is_relative_to(workplace / ".cache") and found.uri == version.uri
    from genai_core.artifact import load

    assert load(found.directory).digest == read_header(small_model).digest
    assert tracking.resolve_model(f"runs:/{run.run_id}/model").model_id == version.model_id
    for uri in ("models:/sreved", "models:/served/99", "models:/served@nope"):
        with pytest.raises(InvalidInput, match="served"):
            peek_model(uri)
    assert not (workplace / "mlflow.db").exists() and not (workplace / "mlruns").exists()


def test_a_server_that_is_away_is_said_before_work_starts(workplace: Path) -> None:
    track = settings(uri=f"http://user:{SECRET}@127.0.0.1:{free_port()}")
    started = time.monotonic()
    for act in (
        lambda: tracking.check_reachable(track),
        lambda: tracking.Run.start(track, name="x", kind="train"),
        lambda: tracking.resolve_model("models:/flights@latest", track.uri),
        lambda: peek_model("models:/flights@latest", track.uri),
    ):
        with pytest.raises(Unavailable, match="cannot be reached") as caught:
            act()
        assert SECRET not in str(caught.value)
    assert time.monotonic() - started < 5


class Answers(BaseHTTPRequestHandler):
    """A server that gives one answer to everything."""

    status = 401

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(b"<html>hello</html>")

    def log_message(self, *args: Any) -> None:
        pass


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "MLFLOW_TRACKING_USERNAME"),
        (403, "refuses"),
        (404, "no MLflow"),
        (500, "fails"),
        (200, "not as an MLflow"),
    ],
)
def test_what_a_wrong_server_or_login_means_is_explained(workplace: Path, status: int, message: str) -> None:
    handler = type("Handler", (Answers,), {"status": status})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(Unavailable, match=message):
            tracking.check_reachable(settings(uri=f"http://127.0.0.1:{server.server_port}"))
        server.shutdown()


def test_a_database_that_cannot_be_used_is_said(workplace: Path) -> None:
    Path("notes.txt").write_text("not a database")
    Path("folder").mkdir()
    for uri in ("sqlite:///notes.txt", "sqlite:///folder", f"postgresql://me:{SECRET}@127.0.0.1:1/mlflow"):
        with pytest.raises(Unavailable) as caught:
            tracking.Run.start(settings(uri=uri), name="x", kind="train")
        assert SECRET not in str(caught.value)


@pytest.mark.slow
def test_a_server_that_dies_neither_fails_nor_delays_the_job(
    workplace: Path,
    small_model: Path,
    server_command: Callable[[int], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Killed in the middle: the job ends in time, the log says it once, the next run delivers what was kept."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    log, messages = workplace / "server.log", []
    no_jobs = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    process = start_server(server_command(port), f"{url}/health", log, **no_jobs)
    monkeypatch.setattr(spool, "BACKOFF_SECONDS", (0.1, 0.1))
    try:
        run = tracking.Run.start(settings(uri=url), name="x", kind="train", log=messages.append)
        run.log_metrics({"loss": 3.0}, 0)
        time.sleep(2 * spool.FLUSH_SECONDS)
    finally:
        stop_server(process)
    started = time.monotonic()
    for step in range(1, 500):
        run.log_metrics({"loss": 1 / step}, step)
    assert time.monotonic() - started < 1
    kept = run.log_model(small_model, read_header(small_model))
    run.finish()
    assert time.monotonic() - started < 12
    assert kept is not None and tracking.resolve_model(kept.uri).directory.parent.name == "models"
    assert [m for m in messages if "wait in" in m] == messages[-1:] and len(messages) <= 3, messages
    process = start_server(server_command(port), f"{url}/health", log, **no_jobs)
    try:
        tracking.Run.start(settings(uri=url), name="x", kind="train").finish()
        stored = client(url).get_run(run.run_id)
        assert stored.info.status == "FINISHED"
        assert {m.step for m in client(url).get_metric_history(run.run_id, "loss")} == set(range(500))
        assert list((workplace / ".spool").iterdir()) == []
    finally:
        stop_server(process)
