"""Scores of texts: what surprises, wherever it stands and however long the text is."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch

import genai_core
from genai_core import catalog
from genai_core.scores import maximum_surprise
from genai_core.texts.surprise import surprise

SCORES = catalog.scores_of("autoregressive", "text")


def texts(rows: int = 240, seed: int = 0) -> pa.Table:
    random = np.random.default_rng(seed)
    words = np.array(["the cat", "a dog", "sat", "ran", "on", "by", "mats", "and so", "forth"])
    found = [" ".join(random.choice(words, random.integers(1, 6))) for _ in range(rows)]
    return pa.table({"text": found, "kind": ["long" if len(text) > 16 else "short" for text in found]})


@pytest.fixture(scope="module")
def model() -> genai_core.FittedModel:
    reading = {"kind": "text", "length": 32, "label": "kind"}
    return genai_core.fit(
        texts(), modality=reading, model={"hidden": 32, "layers": 1}, max_epochs=3, evaluations=1
    )


@pytest.mark.parametrize("score", SCORES)
def test_odd_texts_are_scores_and_unreadable_ones_are_none(model, score: str) -> None:
    odd = pa.table({"text": ["", "日本\N{ROCKET}", "x" * 500, "the cat"], "kind": ["short"] * 3 + ["huge"]})
    found = model.score(odd, [score])
    assert np.isfinite(found.totals[score][:3]).all()
    assert np.isnan(found.totals[score][3]) and set(found.faults) == {3}


# a ratio does not see them: they are as rare to the background
@pytest.mark.parametrize("score", [score for score in SCORES if score != "likelihood_ratio"])
def test_unseen_characters_stay_visible(model, score: str) -> None:
    pair = pa.table({"text": ["the cat sat on", "the cat §§t on"], "kind": ["short"] * 2})
    usual, odd = model.score(pair, [score]).totals[score]
    assert odd > usual + 0.3


def test_surprise_counts_the_end_and_not_the_label(model) -> None:
    x = torch.from_numpy(model.codec.encode(texts(8)).tokens.astype(np.int64))
    with torch.no_grad():
        nats, tokens = surprise(model.codec.space, x, -model.model.log_prob(x))
        whole = model.model.log_prob(x)
    assert tokens.tolist() == [len(text) + 1 for text in texts(8)["text"].to_pylist()]
    assert torch.allclose(nats.sum(1), -whole[:, 1:].sum(1), atol=1e-4)
    totals = model.score(texts(8), ["mean_surprise"]).totals["mean_surprise"]
    assert np.allclose(totals, (nats.sum(1) / tokens).numpy(), atol=1e-5)


def test_the_most_surprising_stretch() -> None:
    nats = torch.tensor([[0.0, 1, 5, 3, 0, 0], [9, 0, 0, 0, 0, 0]])
    assert maximum_surprise.highest(nats, 2).tolist() == [4.0, 4.5]
    assert maximum_surprise.highest(nats, 1).tolist() == [5.0, 9.0]
    assert maximum_surprise.highest(nats, 12).tolist() == pytest.approx([9 / 12, 9 / 12])
