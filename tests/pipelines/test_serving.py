"""A registered model loads in plain MLflow and answers over HTTP, typed as its signature says."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from genai_core.artifact import load, read_header
from genai_core.errors import InvalidInput, SchemaMismatch
from pipelines import tracking
from pipelines.tracked import serving
from tests.pipelines.conftest import free_port, start_server, stop_server, track_settings


@pytest.fixture
def registered(tracked: Path, small_model: Path, small_table: pa.Table) -> Path:
    """A registered model with an example; the working directory."""
    with tracking.Run.start(track_settings(register="flights"), name="flights", kind="train") as run:
        run.log_model(small_model, read_header(small_model), input_example=small_table)
    return tracked


def test_rows_keep_their_types_through_json(small_table: pa.Table) -> None:
    table = small_table.slice(0, 30)
    frame = serving.json_frame(table)
    text = json.dumps(json.loads(frame.to_json(orient="records", date_format="iso")))
    back = serving.to_table(pd.DataFrame(json.loads(text)), table.schema)
    assert back.schema == table.schema
    assert (
        back.drop(["delay"]).to_pylist() == table.drop(["delay"]).to_pylist()
    )  # pandas cuts floats to 10 digits
    assert serving.to_table(table.to_pandas(), table.schema).to_pylist() == table.to_pylist()


def test_a_value_of_another_type_is_refused_by_name(small_table: pa.Table) -> None:
    for column, value in (("seats", 1.5), ("seats", "many"), ("day", "yesterday"), ("price", "1.234")):
        with pytest.raises(SchemaMismatch, match=column):
            serving.to_table(pd.DataFrame({column: [value]}), small_table.schema)


def test_scores_are_those_of_the_model_itself(small_model: Path, small_table: pa.Table) -> None:
    fitted = load(small_model)
    answer = serving.predict(fitted, small_table.slice(0, 40).to_pandas())
    name = fitted.score_names[0]
    totals = fitted.score(small_table.slice(0, 40)).totals[name]
    assert answer[name].tolist() == totals.tolist()
    assert answer["p_value"].tolist() == fitted.p_values(name, totals).tolist()


def test_generated_rows_are_those_of_the_seed_and_fulfil_the_condition(small_model: Path) -> None:
    fitted = load(small_model)
    asked = {"task": "generate", "rows": 20, "seed": 5, "where": '{"origin": "JFK"}'}
    rows = serving.predict(fitted, pd.DataFrame(), asked)
    table = serving.to_table(rows, fitted.schema)
    assert table.equals(fitted.sample(20, seed=5, where={"origin": "JFK"}))
    assert set(rows["origin"]) == {"JFK"}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"task": "scroe"}, "did you mean 'score'"),
        ({"task": "generate", "rows": 0}, "accepted are 1 to"),
        ({"task": "generate", "rows": 10**9}, "genai run"),
        ({"task": "generate", "where": "origin=JFK"}, "JSON object"),
        ({"task": "generate", "where": '{"orign": "JFK"}'}, "origin"),
    ],
)
def test_what_cannot_be_answered_is_explained(small_model: Path, asked: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        serving.predict(load(small_model), pd.DataFrame(), asked)


@pytest.mark.mlflow
def test_plain_mlflow_loads_scores_and_generates(
    registered: Path, small_model: Path, small_table: pa.Table
) -> None:
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{registered}/mlflow.db")
    try:
        model = mlflow.pyfunc.load_model("models:/flights@newest")
        frame = small_table.slice(0, 5).to_pandas()
        expected = serving.predict(load(small_model), frame)
        assert model.predict(frame).equals(expected)
        assert len(model.predict(frame, params={"task": "generate", "rows": 3})) == 3
        signature = model.metadata.signature
        assert signature.inputs.input_names() == small_table.column_names
        assert signature.outputs.input_names() == list(expected.columns)
        assert set(model.metadata.get_params_schema().to_dict()[0]) >= {"name", "type", "default"}
        with pytest.raises(mlflow.MlflowException, match=r"'seats' .* is missing"):
            model.predict(frame[["origin"]])
        example = model.input_example
        assert model.predict(example).equals(expected[: len(example)])
    finally:
        mlflow.set_tracking_uri(None)


@pytest.fixture
def served(registered: Path) -> Iterator[str]:
    """`mlflow models serve` in a process of its own."""
    port, url = free_port(), ""
    command = ["mlflow", "models", "serve", "-m", "models:/flights@newest", "--env-manager", "local"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    url = f"http://127.0.0.1:{port}"
    root = Path(serving.__file__).parents[1]
    process = start_server(
        command,
        f"{url}/ping",
        registered / "serve.log",
        PYTHONPATH=str(root),
        MLFLOW_TRACKING_URI=f"sqlite:///{registered}/mlflow.db",
    )
    yield url
    stop_server(process)


def ask(url: str, body: dict[str, Any]) -> tuple[int, Any]:
    request = urllib.request.Request(
        f"{url}/invocations", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


@pytest.mark.mlflow
@pytest.mark.slow
def test_a_real_server_scores_and_generates_rows(
    served: str, small_model: Path, small_table: pa.Table
) -> None:
    fitted = load(small_model)
    row = json.loads(serving.json_frame(small_table.slice(1, 1)).to_json(orient="split", date_format="iso"))
    status, answer = ask(served, {"dataframe_split": row})
    name = fitted.score_names[0]
    assert status == 200
    assert answer["predictions"][0][name] == pytest.approx(
        fitted.score(small_table.slice(1, 1)).totals[name][0]
    )
    status, answer = ask(
        served, {"dataframe_records": [{}], "params": {"task": "generate", "rows": 2, "seed": 3}}
    )
    assert status == 200
    rows = serving.to_table(pd.DataFrame(answer["predictions"]), fitted.schema)
    assert rows.schema == fitted.schema
    assert rows["price"].to_pylist() == fitted.sample(2, seed=3)["price"].to_pylist()
    status, answer = ask(served, {"dataframe_records": [{"origin": "JFK"}]})
    assert status == 400 and "is missing" in answer["message"]
