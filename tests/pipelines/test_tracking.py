"""Runs, logged models and the registry in MLflow's default, an SQLite file."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from genai_core.artifact import read_header
from genai_core.errors import InvalidArtifact, InvalidInput
from pipelines import tracking
from pipelines.tracked.model_uri import peek_model
from tests.pipelines.conftest import HASH, log_a_model, track_settings

pytestmark = pytest.mark.mlflow
SECRET = "hunter2"
SPEC = f"job: train\nsource: {{path: 's3://KEY:{SECRET}/x@bucket/lake'}}\npassword: {SECRET}\n"


def client(uri: str = "sqlite:///mlflow.db") -> Any:
    return tracking._client(uri)


def test_a_run_holds_parameters_metrics_by_step_job_file_and_environment(tracked: Path) -> None:
    params = {"fit": {"seed": 7, "layers": [1, 2]}, "token": SECRET, "none": None}
    with tracking.Run.start(
        track_settings(), name="flights", kind="train", spec_text=SPEC, params=params
    ) as run:
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
    with tracking.Run.start(track_settings(), name="flights", kind="train", spec_text=SPEC) as run:
        run.log_dataset("lake", f"s3://KEY:{SECRET}@bucket/lake", HASH)
        run.set_tags({"command": f"genai run --set source.password={SECRET}"})
        run.log_artifact(f"https://account.blob/x?sig={SECRET}", "note.txt")
    found = [p for p in tracked.rglob("*") if p.is_file() and SECRET.encode() in p.read_bytes()]
    assert found == []


def test_a_failed_job_and_an_interrupted_one_say_so(tracked: Path) -> None:
    for error, status in ((ValueError(f"password={SECRET}"), "FAILED"), (KeyboardInterrupt(), "KILLED")):
        with pytest.raises(type(error)), tracking.Run.start(track_settings(), name="x", kind="train") as run:
            raise error
        stored = client().get_run(run.run_id)
        assert stored.info.status == status
        assert SECRET not in stored.data.tags["genai.error"]


def test_a_resumed_job_goes_on_with_its_run(tracked: Path) -> None:
    # Killed: it never finished.
    lost = tracking.Run.start(track_settings(), name="x", kind="generate", job_id="generate-1")
    with tracking.Run.start(track_settings(), name="x", kind="generate", job_id="generate-1") as again:
        assert again.run_id == lost.run_id
    with tracking.Run.start(track_settings(), name="x", kind="generate", job_id="generate-1") as anew:
        assert anew.run_id != lost.run_id


def test_tracking_switched_off_touches_nothing(workplace: Path, small_model: Path) -> None:
    with tracking.Run.start(track_settings(enabled=False), name="x", kind="train", spec_text=SPEC) as run:
        run.log_metrics({"loss": 1.0})
        assert run.log_model(small_model, read_header(small_model)) is None
    assert run.run_id is None and list(workplace.iterdir()) == []


def test_runs_are_found_by_the_digest_of_their_data(tracked: Path, small_table: pa.Table) -> None:
    digests = ["sha256:" + letter * 64 for letter in "abc"]
    with tracking.Run.start(track_settings(), name="x", kind="score") as run:
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


def test_a_job_may_name_a_database_of_its_own(
    workplace: Path, empty_database: Path, small_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """mlflow's registry would look the model up in the default database."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///unused.db")
    folder = workplace / "a folder"
    folder.mkdir()
    shutil.copy(empty_database, folder / "team.db")
    uri = "sqlite:///a folder/team.db"
    _, version = log_a_model(small_model, register="flights", uri=uri)
    assert version.uri == "models:/flights/1"
    assert tracking.resolve_model("models:/flights@latest", uri).directory.is_relative_to(folder)
    assert [p.name for p in workplace.iterdir() if not p.name.startswith(".")] == [folder.name]
    assert os.environ["MLFLOW_TRACKING_URI"] == "sqlite:///unused.db"


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
    with tracking.Run.start(track_settings(), name="x", kind="generate") as run:
        run.log_model_input(tracking.resolve_model("models:/flights@latest"))
        run.log_model_input(tracking.resolve_model(str(small_model)))  # of no run: left out
    assert [m.model_id for m in client().get_run(run.run_id).inputs.model_inputs] == [version.model_id]


def test_a_finished_job_is_found_again_under_the_name_that_is_asked_for(
    tracked: Path, small_model: Path
) -> None:
    track = track_settings(register="flights")
    with tracking.Run.start(track, name="x", kind="train", job_id="train-1") as run:
        version = run.log_model(small_model, read_header(small_model))
        assert version is not None
        run.set_tags({"genai.model": version.uri, "genai.model_digest": "sha256:1"})
    found = tracking.finished_run(track, "x", "train-1")
    assert found == {"model": "models:/flights/1", "model_digest": "sha256:1", "run_id": run.run_id}
    assert tracking.finished_run(track, "x", "train-2") is None
    assert tracking.finished_run(track_settings(register="other"), "x", "train-1") is None


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
    with pytest.raises(InvalidArtifact, match=r"holds no artifact\.json"):
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
