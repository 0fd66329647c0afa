"""Going on from a fitted model: it begins where its parent was, and learns values that are new."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch

import genai_core
from genai_core.errors import InvalidInput, SchemaMismatch
from genai_core.fitted import FittedModel
from genai_core.growth import extended
from genai_core.train import new_model

SMALL = {"context": 32, "hidden": 16, "embedding": 8}
FEW = {"max_epochs": 1, "seed": 2, "score_effort": 0.05, "health": "off"}


def rows(number: int, seed: int, towns: list[str]) -> pa.Table:
    random = np.random.default_rng(seed)
    town = random.choice(len(towns), number)
    x = (10 * (town % 3) + random.normal(0, 1, number)).round(1)
    return pa.table({"town": pa.array([towns[i] for i in town]), "x": x, "far": x > 15})


@pytest.fixture(scope="module")
def parent() -> FittedModel:
    return genai_core.fit(
        rows(4000, 0, ["Ulm", "Rom", "Bern"]),
        max_epochs=8,
        seed=1,
        model=SMALL,
        score_effort=0.05,
        health="off",
    )


@pytest.fixture(scope="module")
def child(parent: FittedModel) -> FittedModel:
    return genai_core.fit(rows(1500, 1, ["Ulm", "Rom", "Bern", "Aach"]), start=parent, **FEW)


def test_before_the_first_step_it_is_its_parent_with_new_values(
    parent: FittedModel,
) -> None:
    more = rows(1000, 3, ["Ulm", "Rom", "Bern", "Aach", "Zug"])
    codec = extended(parent.codec, more.to_batches(), more.schema)
    network = new_model(parent.kind, codec, {}, 0, parent)
    network.initialise(torch.from_numpy(codec.encode(more).tokens.astype(np.int64)))
    grown = FittedModel(parent.kind, parent.modality, codec, network.eval())
    towns = grown.sample(2000, seed=1)["town"].to_pylist()
    assert 0.03 < (towns.count("Aach") + towns.count("Zug")) / 2000 < 0.55
    known = rows(300, 4, ["Ulm", "Rom", "Bern"])
    change = (grown.log_prob(known) - parent.log_prob(known)).mean()
    assert -2 < change < 0.05  # what new values take is taken from known ones; training gives it back


def test_a_few_steps_from_the_parent_beat_as_many_from_nothing(child: FittedModel) -> None:
    data = rows(1500, 1, ["Ulm", "Rom", "Bern", "Aach"])
    fresh = genai_core.fit(data, model=SMALL, **FEW)
    unseen = rows(800, 5, ["Ulm", "Rom", "Bern", "Aach"])
    assert child.log_prob(unseen).mean() > fresh.log_prob(unseen).mean() + 0.1


def test_a_new_value_is_drawn_scored_and_asked_for(child: FittedModel, parent: FittedModel) -> None:
    share = child.sample(2000, seed=1)["town"].to_pylist().count("Aach") / 2000
    assert 0.1 < share < 0.4
    assert child.sample(50, where={"town": "Aach"})["town"].to_pylist() == ["Aach"] * 50
    with pytest.raises(InvalidInput, match="holds no 'Aach'"):
        parent.sample(1, where={"town": "Aach"})
    there = rows(200, 6, ["Aach"])
    assert (child.score(there).totals["ensemble"] < np.inf).all()
    assert np.isfinite(child.log_prob(there)).all()
    assert "column 'town' has 1 value(s) that are new to the model" in child.codec.notes


def test_a_child_is_kept_and_knows_its_parent(child: FittedModel, parent: FittedModel, tmp_path) -> None:
    child.save(tmp_path / "child")
    loaded = genai_core.load(tmp_path / "child")
    assert loaded.sample(40, seed=3).equals(child.sample(40, seed=3))
    assert loaded.provenance["parent"]["data"] == parent.provenance["data"]


def test_rows_of_another_shape_are_refused(parent: FittedModel) -> None:
    with pytest.raises(SchemaMismatch, match="column 'town'"):
        genai_core.fit(rows(100, 0, ["Ulm"]).drop_columns(["town"]), start=parent)
    with pytest.raises(InvalidInput, match="leave model, modality and exclude out"):
        genai_core.fit(rows(100, 0, ["Ulm"]), start=parent, exclude=["x"])
