"""The Python API: fit, sample, condition, score."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

import genai_core as genai
from genai_core.errors import InvalidInput, MissingCapability
from tests.contract.spaces import every_type, small_table


@pytest.fixture(scope="module")
def model() -> genai.FittedModel:
    return genai.fit(small_table(1000), max_epochs=10)


def test_sampling_is_reproducible_and_the_first_rows_do_not_depend_on_how_many(model) -> None:
    many = model.sample(5000, seed=3)
    assert many.equals(model.sample(5000, seed=3))
    assert model.sample(10, seed=3).equals(many.slice(0, 10).combine_chunks())
    assert not many.equals(model.sample(5000, seed=4))
    assert model.sample(0).schema == model.schema


def test_samples_look_like_the_data(model) -> None:
    made, real = model.sample(4000).to_pandas(), small_table(4000, seed=8).to_pandas()
    assert abs(made["x"].isna().mean() - 0.1) < 0.03
    assert made["y"].corr(made["x"]) > 0.8 * real["y"].corr(real["x"])
    assert ((made["y"] > 0) == (made["colour"] == "red")).mean() > 0.9


def test_conditions_hold_exactly(model) -> None:
    made = model.sample(500, where={"colour": "red", "n": [1, 3]})
    assert set(made["colour"].to_pylist()) == {"red"}
    assert set(made["n"].to_pylist()) == {1, 3}
    assert np.mean(np.array(made["y"]) > 0) > 0.9, "the rest follows the condition"


def test_a_condition_on_a_number_inside_a_cell_is_written_exactly() -> None:
    values = np.round(np.random.default_rng(0).normal(size=3000), 4)
    fitted = genai.fit(pa.table({"v": values}), max_epochs=1)
    assert set(fitted.sample(20, where={"v": float(values[17])})["v"].to_pylist()) == {values[17]}


def test_conditions_of_every_type() -> None:
    table = every_type()
    fitted = genai.fit(table, max_epochs=1)
    for name in table.schema.names:
        value = table[name][0].as_py()
        if (
            value is None
            or value != value
            or name in ("binary", "fixed_binary", "duration", "uint64", "int64")
        ):
            continue
        text = str(value) if name in ("timestamp", "date32", "decimal128", "time32") else value
        made = fitted.sample(3, where={name: text})
        assert made[name].to_pylist() == [value] * 3, name


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"colr": "red"}, "did you mean 'colour'"),
        ({"colour": "green"}, "holds no 'green'"),
        ({"n": "many"}, "cannot be read as int64"),
        ({"n": []}, "empty list"),
        ({"n": 99}, "holds no 99"),
        ({"n": True}, "true and false fit boolean columns"),
    ],
)
def test_conditions_that_cannot_hold_are_refused(model, where: dict, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        model.check_where(where)


def test_only_autoregressive_models_can_be_conditioned() -> None:
    vae = genai.fit(small_table(), "vae", max_epochs=1)
    with pytest.raises(MissingCapability, match="train an autoregressive model"):
        vae.sample(5, where={"n": 1})


def test_a_gan_has_no_likelihood() -> None:
    gan = genai.fit(small_table(), "gan", max_epochs=1)
    with pytest.raises(MissingCapability, match="implicit"):
        gan.log_prob(small_table())


def test_pandas_and_numpy_are_read() -> None:
    frame = pd.DataFrame(
        {"a": [1.5, None] * 20, "b": ["x", None] * 20, "t": pd.date_range("2020", periods=40)}
    )
    made = genai.fit(frame, max_epochs=1).sample(5)
    assert made.column_names == ["a", "b", "t"]
    matrix = np.random.default_rng(0).normal(size=(50, 3))
    assert genai.fit(matrix, max_epochs=1).schema.names == ["x0", "x1", "x2"]
    with pytest.raises(InvalidInput, match="accepted"):
        genai.fit([[1, 2]])


def test_misspelt_family(model) -> None:
    with pytest.raises(InvalidInput, match="did you mean 'autoregressive'"):
        genai.fit(small_table(), "autoregresive")


def test_texts_of_all_lengths_have_the_scores_that_each_has_alone() -> None:
    random = np.random.default_rng(0)
    lines = ["".join(random.choice(list("abc d"), n)) for n in [*random.integers(0, 130, 60), 200, 1, 128]]
    table = pa.table({"line": lines})
    how = {"modality": {"kind": "text", "length": 128}, "max_epochs": 1, "seed": 3}
    model = genai.fit(table, "autoregressive", model={"hidden": 32, "layers": 1}, **how)
    names = ["maximum_surprise", "negative_log_likelihood"]
    whole = model.score(table, names, entries_of=names[0])
    order = random.permutation(len(lines))
    shuffled = model.score(table.take(pa.array(order)), names, entries_of=names[0])
    for name in names:
        assert np.array_equal(whole.totals[name][order], shuffled.totals[name])
        alone = [model.score(table.slice(i, 1), names).totals[name][0] for i in range(0, len(lines), 7)]
        assert np.array_equal(whole.totals[name][::7], alone)
    assert whole.entries is not None and shuffled.entries is not None
    assert np.array_equal(whole.entries[order], shuffled.entries)
    assert np.array_equal(model.entries(table, names[0]), whole.entries)
    with torch.inference_mode():  # of one batch, all of one length
        x = torch.from_numpy(model.codec.encode(table).tokens.astype(np.int64))
        together = -model.model.log_prob(x).sum(1)
    assert np.allclose(whole.totals["negative_log_likelihood"], together.numpy(), rtol=1e-4)
