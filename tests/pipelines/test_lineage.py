"""The way back from real outputs of real jobs, with MLflow and without it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from genai_core.artifact import read_header
from genai_core.errors import InvalidArtifact, InvalidData, InvalidInput
from pipelines import generate, score
from pipelines.context import Context
from pipelines.tracked.lineage import lineage, render
from tests.pipelines.conftest import HASH, log_a_model

OFF = {"enabled": False}
DATA = {"path": "lake/flights", "filter": "month <= 9", "digest": HASH, "rows": 600}


def quiet() -> Context:
    return Context(log=lambda text: None)


def run_job(model: str | Path, sink: str = "out/synthetic", **fields: Any) -> None:
    """Three shards of synthetic rows."""
    job = {
        "model": str(model),
        "rows": 50,
        "rows_per_shard": 20,
        "seed": 7,
        "sink": {"path": sink},
        "track": OFF,
    }
    generate.run(generate.GenerateJob.model_validate(job | fields), quiet())


def make(model: str | Path, **fields: Any) -> Path:
    """The first file of such an output."""
    run_job(model, **fields)
    return min(Path("out/synthetic/data").iterdir())


def test_a_file_leads_back_to_its_training_data(workplace: Path, small_model: Path) -> None:
    tree = lineage(str(make(small_model)))
    assert tree["kind"] == "file" and tree["state"].startswith("intact: 20 rows")
    job = tree["job"]
    assert (job["verb"], job["synthetic"], job["shard"], job["spec"]["seed"]) == ("generate", True, 0, 7)
    assert tree["model"]["digest"] == read_header(small_model).digest
    assert tree["model"]["state"] == "found" and tree["model"]["directory"] == str(small_model)
    assert tree["training"]["job_id"] == "train-0123456789abcdef0123" and tree["training"]["data"] == DATA
    assert json.loads(json.dumps(tree)) == tree
    text = render(tree)
    for part in ("synthetic rows", "shard 0, seed", "lake/flights where month <= 9, 600 rows", HASH):
        assert part in text


@pytest.mark.mlflow
def test_runs_are_named_while_mlflow_is_there_and_the_rest_when_it_is_gone(
    tracked: Path, small_model: Path
) -> None:
    log_a_model(small_model, register="flights")
    file = make("models:/flights@latest", track={"experiment": "synthesis"})
    tree = lineage(str(file))
    (run,) = tree["job"]["runs"]
    assert (run["experiment"], run["status"]) == ("synthesis", "FINISHED") and run["run_id"] in render(tree)
    assert tree["model"]["uri"] == "models:/flights/1" and tree["model"]["state"] == "found"
    shutil.rmtree("mlartifacts")
    Path("mlflow.db").unlink()
    without = lineage(str(file))
    assert without["job"]["runs"] == [] and without["model"]["state"] == "not found from here"
    assert without["training"]["data"] == DATA and without["state"].startswith("intact")


@pytest.mark.mlflow
def test_runs_are_found_on_a_server(
    workplace: Path, small_model: Path, mlflow_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server)
    file = make(small_model, track={"experiment": "synthesis"})
    (run,) = lineage(str(file))["job"]["runs"]
    assert run["experiment"] == "synthesis"


def test_a_server_that_is_away_is_mentioned_and_does_no_harm(
    workplace: Path, small_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = make(small_model)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:hunter2@127.0.0.1:9")
    tree = lineage(str(file))
    assert "cannot be reached" in tree["tracking"] and "hunter2" not in render(tree)
    assert tree["training"]["data"] == DATA


def test_scores_name_what_was_scored(workplace: Path, small_model: Path, small_table: pa.Table) -> None:
    pq.write_table(small_table, "flights.parquet")
    source = {"kind": "parquet", "path": "flights.parquet", "filter": "origin == 'JFK'"}
    job = {"model": str(small_model), "source": source, "fdr": 0.5, "sink": {"path": "scores"}, "track": OFF}
    score.run(score.ScoreJob.model_validate(job), quiet())
    for path in (
        "scores",
        "scores/_MANIFEST.json",
        "scores/_anomalies.parquet",
        str(next(Path("scores/data").iterdir())),
    ):
        tree = lineage(path)
        assert tree["job"]["source"]["path"] == "flights.parquet", path
        assert "of flights.parquet where origin == 'JFK'" in render(tree)
        assert tree["job"]["synthetic"] is False and tree["training"]["data"] == DATA


def test_every_changed_byte_of_a_file_is_seen(workplace: Path, small_model: Path) -> None:
    file = make(small_model)
    data = bytearray(file.read_bytes())
    data[10] ^= 1
    file.write_bytes(data)
    assert lineage(str(file))["state"] == "changed: its bytes are not those that the manifest lists"
    assert lineage("out/synthetic")["state"].startswith("intact: complete (sizes compared"), (
        "not asked to read"
    )
    assert f"{file.name} has other bytes" in lineage("out/synthetic", verify=True)["state"]


def test_an_output_says_what_is_missing_unlisted_or_shortened(workplace: Path, small_model: Path) -> None:
    make(small_model)
    assert lineage("out/synthetic", verify=True)["state"] == "intact: every byte is as the manifest says"
    first, second, third = sorted(Path("out/synthetic/data").iterdir())
    first.unlink()
    second.write_bytes(b"PAR1")
    shutil.copy(third, third.with_name("more.parquet"))
    state = lineage("out/synthetic")["state"]
    for fault in (f"{first.name} is missing", f"{second.name} has other bytes", "more.parquet is not listed"):
        assert fault in state
    assert "does not list" in lineage(str(third.with_name("more.parquet")))["state"]


def test_a_manifest_that_was_edited_is_seen(workplace: Path, small_model: Path) -> None:
    make(small_model)
    path = Path("out/synthetic/_MANIFEST.json")
    path.write_text(path.read_text().replace('"seed": 7', '"seed": 8'))
    assert "own hash does not fit" in lineage("out/synthetic")["state"]


def test_a_file_that_left_its_directory_keeps_its_lineage(workplace: Path, small_model: Path) -> None:
    moved = Path(shutil.copy(make(small_model), workplace / "alone.parquet"))
    tree = lineage(str(moved))
    assert tree["state"] == "not verified: its manifest is not beside it" and tree["training"]["data"] == DATA


def test_a_file_is_verified_from_any_working_directory(
    workplace: Path, small_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = make(small_model)
    monkeypatch.chdir(file.parent)
    assert lineage(file.name)["state"].startswith("intact")


def test_an_unfinished_output_says_how_far_it_came(workplace: Path, small_model: Path) -> None:
    file = make(small_model)
    Path("out/synthetic/_MANIFEST.json").unlink()
    sorted(Path("out/synthetic/_shards").iterdir())[0].unlink()
    tree = lineage("out/synthetic")
    assert tree["state"].startswith("unfinished: 2 shards") and "generate" in render(tree)
    assert lineage(str(file))["state"].startswith("not verified")


def test_a_model_directory_leads_to_its_data_and_shows_changes(workplace: Path, small_model: Path) -> None:
    model = workplace / "model"
    shutil.copytree(small_model, model)
    for path in ("model", "model/artifact.json"):
        tree = lineage(path)
        assert tree["state"].startswith("intact") and tree["training"]["data"] == DATA, path
    (model / "weights.safetensors").write_bytes(b"\0")
    assert lineage("model")["state"] == "changed: weights.safetensors"
    header = model / "artifact.json"
    header.write_text(header.read_text().replace("month <= 9", "month <= 8"))
    with pytest.raises(InvalidArtifact, match="was changed"):
        lineage("model")


@pytest.mark.mlflow
def test_a_registered_model_can_be_named_by_its_uri(tracked: Path, small_model: Path) -> None:
    log_a_model(small_model, register="flights")
    for path in ("models:/flights@latest", str(next(tracked.glob("mlartifacts/*/models/*/artifacts")))):
        tree = lineage(path)
        assert tree["kind"] == "model" and tree["training"]["data"] == DATA


def test_another_model_in_the_old_place_is_not_taken_for_it(workplace: Path, small_model: Path) -> None:
    shutil.copytree(small_model, "model")
    file = make("model")
    header = json.loads(Path("model/artifact.json").read_text())
    from genai_core.artifact import _digest

    header["provenance"]["name"] = "another"
    header["digest"] = _digest(header)
    Path("model/artifact.json").write_text(json.dumps(header))
    assert lineage(str(file))["model"]["state"].startswith("replaced")


def test_an_output_in_a_store_has_the_same_lineage(workplace: Path, small_model: Path) -> None:
    run_job(small_model, "memory://lineage/out")
    tree = lineage("memory://lineage/out", verify=True)
    assert tree["state"] == "intact: every byte is as the manifest says" and tree["training"]["data"] == DATA


def test_what_is_not_ours_is_refused_with_what_is_accepted(workplace: Path, small_table: pa.Table) -> None:
    pq.write_table(small_table, "foreign.parquet")
    Path("notes.txt").write_text("not a table")
    Path("empty").mkdir()
    for path, error, message in (
        ("foreign.parquet", InvalidInput, "carries no lineage"),
        ("notes.txt", InvalidData, "no Parquet file"),
        ("empty", InvalidInput, "neither an output nor a model"),
        ("nowhere", InvalidInput, "does not exist"),
    ):
        with pytest.raises(error, match=message):
            lineage(path)
