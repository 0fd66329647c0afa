"""A keyed watermark: found with the key alone, gone without it, and what is drawn stays what the model would draw."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch

from genai_core import fit
from genai_core.errors import InvalidInput, MissingCapability
from genai_core.fitted import FittedModel
from genai_core.watermark import FOUND, KeyedGenerator, Watermark, check, detect, marked

KEY, OTHER = Watermark(b"a key for tests only"), Watermark(b"another key for tests")
ROWS = 4096


def a_table(rows: int = 3000) -> pa.Table:
    random = np.random.default_rng(0)
    place = random.integers(0, 12, rows)
    return pa.table(
        {
            "place": [f"p{i}" for i in place],
            "kind": [f"k{i}" for i in random.integers(0, 9, rows)],
            "day": random.integers(0, 28, rows),
            "size": random.normal(place, 2.0),
            "price": random.lognormal(place / 6, 1.0),
        }
    )


@pytest.fixture(scope="module")
def fitted() -> FittedModel:
    return fit(a_table(), max_epochs=2, seed=0, model={"context": 16, "hidden": 8, "embedding": 4})


def test_the_hash_is_siphash() -> None:
    mark = Watermark(b"0" * 32)
    mark._key = np.frombuffer(bytes(range(16)), np.uint64)
    for length, known in (
        (8, 0x93F5F5799A932462),
        (16, 0x3F2ACC7F57C29BDB),
    ):  # vectors of the paper's authors
        assert int(mark.hashes(np.frombuffer(bytes(range(length)), np.uint64)[None])[0]) == known


def test_the_mark_is_found_with_its_key_alone(fitted: FittedModel) -> None:
    rows, plain = fitted.sample(ROWS, seed=1, watermark=KEY), fitted.sample(ROWS, seed=1)
    assert rows.schema == plain.schema and rows != plain
    assert detect(fitted, rows, KEY).z > 2 * FOUND
    for table, mark in ((rows, OTHER), (plain, KEY), (plain, OTHER), (a_table(), KEY)):
        assert abs(detect(fitted, table, mark).z) < FOUND
    assert fitted.sample(ROWS, seed=1, watermark=KEY) == rows
    assert fitted.sample(ROWS, seed=1) == plain, "without a key nothing changes"


def test_it_survives_a_lost_column_fewer_rows_and_another_order(fitted: FittedModel) -> None:
    rows = fitted.sample(ROWS, seed=1, watermark=KEY)
    order = np.random.default_rng(0).permutation(ROWS)
    assert detect(fitted, rows.take(order[: ROWS // 2]), KEY).found
    assert sum(detect(fitted, rows.drop_columns([name]), KEY).found for name in rows.column_names) >= 3
    assert detect(fitted, rows.append_column("more", pa.nulls(ROWS)), KEY).found
    with pytest.raises(InvalidInput, match="none of the columns"):
        detect(fitted, pa.table({"x": [1]}), KEY)


def test_over_keys_the_draws_are_those_of_the_model(fitted: FittedModel) -> None:
    """The mean of a keyed column over many keys is the model's: no value is preferred."""
    plain = np.concatenate([fitted.sample(1024, seed=s)["size"].to_numpy() for s in range(8)])
    keyed = np.concatenate(
        [
            fitted.sample(1024, seed=s, watermark=Watermark(f"key number {s} of the test".encode()))["size"]
            for s in range(8)
        ]
    )
    error = float(np.sqrt(plain.var() / len(plain) + keyed.var() / len(keyed)))
    assert abs(plain.mean() - keyed.mean()) < 4 * error and abs(plain.std() / keyed.std() - 1) < 0.06


def test_texts_follow_the_logits_and_show_the_key() -> None:
    logits = torch.log(torch.tensor([0.6, 0.25, 0.1, 0.05, 0.0]))
    history = torch.arange(4 * 20_000).view(-1, 4)
    generator = KeyedGenerator.of(KEY, object())
    random = torch.multinomial(logits.exp(), 20_000, True, generator=torch.Generator().manual_seed(0))
    generator.manual_seed(0)
    drawn = marked(random, logits.expand(20_000, -1), history, generator)
    assert 0.05 < float((drawn != random).float().mean()) < 0.25, "a quarter of the tokens, some as they were"
    assert np.allclose(np.bincount(drawn, minlength=5) / 20_000, logits.exp(), atol=0.015)
    fitted = fit(
        pa.table(
            {"t": ["".join(word) for word in np.random.default_rng(0).choice(list("abcdefgh"), (150, 6))]}
        ),
        modality={"kind": "text", "column": "t"},
        model={"hidden": 16, "layers": 1, "heads": 1},
        max_epochs=1,
        seed=0,
    )
    texts = fitted.sample(400, seed=1, watermark=KEY)
    assert detect(fitted, texts, KEY).z > FOUND > abs(detect(fitted, texts, OTHER).z)
    assert abs(detect(fitted, fitted.sample(400, seed=1), KEY).z) < FOUND
    assert len(set(texts["t"].to_pylist())) > 0.9 * len(set(fitted.sample(400, seed=1)["t"].to_pylist()))


def test_what_cannot_be_marked_is_refused(fitted: FittedModel) -> None:
    with pytest.raises(InvalidInput, match="at least 16"):
        Watermark(b"short")
    assert "tests" not in repr(KEY)
    narrow = fit(
        a_table(200).select(["day", "kind"]), max_epochs=1, seed=0, model={"context": 16, "hidden": 8}
    )
    with pytest.raises(InvalidInput, match="two others beside it"):
        narrow.sample(5, watermark=KEY)
    for kind, modality in (("vae", "tabular"), ("autoregressive", "image")):
        with pytest.raises(MissingCapability, match="carries no watermark"):
            check(kind, modality)
