"""What is said of the right to use data: asked for where it must be, and carried to every file made with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from genai_core.artifact import read_header
from genai_core.errors import InvalidInput
from pipelines import generate, train
from pipelines.context import Context
from pipelines.provenance.verification import verify
from pipelines.tracked.lineage import lineage, render

OFF = {"enabled": False}
FACES = {"kind": "images", "path": "faces"}


def job(**fields: Any) -> train.TrainJob:
    basic = {"name": "x", "sink": {"path": "model"}, "track": OFF, "fit": {"max_epochs": 1, "seed": 1}}
    return train.TrainJob.model_validate(basic | fields)


def test_people_in_pictures_and_sounds_need_their_consent(workplace: Path) -> None:
    pictures = {"source": FACES, "modality": {"kind": "image"}, "rights": {"subjects": "people"}}
    for work in (train.check, train.run):
        with pytest.raises(InvalidInput, match="no consent: say how these people agreed"):
            work(job(**pictures), Context(log=lambda text: None))
    assert not Path("model").exists()


def test_who_does_not_say_is_told_so(workplace: Path) -> None:
    said: list[str] = []
    with pytest.raises(InvalidInput, match="faces"):  # there are no such files: it was said before
        train.run(job(source=FACES, modality={"kind": "image"}), Context(log=said.append))
    assert "not said whether these records are of people" in said[0]
    assert train.rights.check(train.RightsSettings(subjects="none"), "image") == ["rights: subjects: none"]
    assert train.rights.check(train.RightsSettings(), "tabular") == []


def test_an_auditor_gets_the_answer_from_one_file(workplace: Path, small_table: pa.Table) -> None:
    pq.write_table(small_table, "t.parquet")
    said = {"licence": "CC-BY-4.0", "purpose": "planning of gates", "contact": "data@example.org"}
    fields = {
        "source": {"kind": "parquet", "path": "t.parquet"},
        "model": {"kind": "autoregressive", "context": 16},
    }
    train.run(job(**fields, rights=said), Context(log=lambda text: None))
    assert read_header("model").provenance["rights"] == said
    made = {"model": "model", "rows": 5, "sink": {"path": "out"}, "track": OFF}
    generate.run(generate.GenerateJob.model_validate(made), Context(log=lambda text: None))
    file = str(next(Path("out/data").iterdir()))
    (verdict,) = verify(file)
    assert "licence: CC-BY-4.0; purpose: planning of gates" in verdict["rights"]
    assert "t.parquet" in verdict["training_data"] and verdict["ok"]
    assert "rights: contact: data@example.org; licence: CC-BY-4.0" in render(lineage(file))
    changed = job(**fields, rights=said | {"licence": "none"})
    with pytest.raises(InvalidInput, match="another job's model"):
        train.run(changed, Context(log=lambda text: None))
