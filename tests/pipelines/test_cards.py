"""Cards say what is known and nothing else; a hostile name stays text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from genai_core.artifact import read_header
from jobs.cli import main
from pipelines import generate, train
from pipelines.context import Context
from pipelines.outputs.sink import Sink
from pipelines.provenance import cards
from tests.pipelines.conftest import HASH

OFF = {"enabled": False}


def quiet() -> Context:
    return Context(log=lambda text: None)


def generated(model: Path | str, out: str = "out") -> dict[str, Any]:
    job = {
        "model": str(model),
        "rows": 30,
        "rows_per_shard": 20,
        "seed": 7,
        "sink": {"path": out},
        "track": OFF,
    }
    generate.run(generate.GenerateJob.model_validate(job), quiet())
    manifest = Sink(out).manifest()
    assert manifest is not None
    return manifest


def test_a_trained_model_has_its_cards_beside_it(workplace: Path, small_table: pa.Table) -> None:
    pq.write_table(small_table.select(["origin", "delay"]), "t.parquet")
    fields = {"name": "x", "sink": {"path": "model"}, "track": OFF, "fit": {"max_epochs": 1, "seed": 1}}
    source = {"source": {"kind": "parquet", "path": "t.parquet"}, "rights": {"licence": "CC0-1.0"}}
    train.run(train.TrainJob.model_validate(fields | source), quiet())
    model = json.loads(Path("model/model_card.json").read_text())
    header = read_header("model")
    assert model["model"]["digest"] == header.digest and "exact" in model["model"]["likelihood"]
    assert model["training"]["validation_loss"] == header.provenance["training"]["validation_loss"]
    assert model["training_data"]["digest"] == header.provenance["data"]["digest"]
    assert (model["rights"]["licence"], model["rights"]["consent"]) == ("CC0-1.0", "not stated")
    assert model["intended_use"] == "not stated" and "no differential privacy" in model["privacy"]
    assert "| Licence | CC0-1.0 |" in Path("model/data_card.md").read_text()
    assert "| delay | double |" in Path("model/model_card.md").read_text()
    croissant = json.loads(Path("model/croissant.json").read_text())
    assert croissant["license"] == "CC0-1.0" and len(croissant["recordSet"][0]["field"]) == 2


def test_the_card_of_an_output_follows_its_manifest(
    workplace: Path, small_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = generated(small_model)
    assert main(["card", "out", "--as", "json"]) == 0
    card = json.loads(capsys.readouterr().out)
    assert (card["synthetic"], card["marked"], card["data"]["rows"]) == (True, True, 30)
    assert card["data"]["manifest"] == manifest["hash"] and card["training_data"]["digest"] == HASH
    assert card["made"]["seed"] == 7 and card["made"]["signed_by"] == "nobody"
    assert main(["card", "out"]) == 0 and "# Data card: out" in capsys.readouterr().out
    assert main(["card", "out", "--as", "croissant"]) == 0
    croissant = json.loads(capsys.readouterr().out)
    files = [one for one in croissant["distribution"] if one["@type"] == "cr:FileObject"]
    assert [one["sha256"] for one in files] == [shard["sha256"] for shard in manifest["shards"]]
    types = {field["name"]: field["dataType"] for field in croissant["recordSet"][0]["field"]}
    assert types["delay"] == "sc:Float" and types["day"] == "sc:Date" and types["carrier"] == "sc:Text"
    assert main(["card", "."]) == 2


def test_a_hostile_name_stays_text() -> None:
    card = {
        "card": "data",
        "name": "<script>|x|`y`\n# z\x1b[2J",
        "data": {"columns": [{"name": "a|b", "type": "int"}]},
    }
    text = cards.as_markdown(card)
    assert "<script>" not in text and "\x1b" not in text and "\n# z" not in text and "a\\|b" in text
