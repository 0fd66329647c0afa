"""Rows with given cells: what is there stays as it is, the rest is drawn given it, in any number of draws."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest

import genai_core as genai
from genai_core.errors import InvalidInput
from tests.contract.sampled import learnt
from tests.contract.spaces import every_type, small_table


@pytest.fixture(scope="module")
def model() -> genai.FittedModel:
    return learnt(small_table(2000), 10)


def with_holes(table: pa.Table, share: float, seed: int = 0) -> pa.Table:
    random = np.random.default_rng(seed)
    columns = [
        pc.if_else(pa.array(random.random(table.num_rows) < share), None, column.combine_chunks())
        for column in table.columns
    ]
    return pa.Table.from_arrays(columns, names=table.column_names)


def test_only_missing_cells_are_filled_and_all_of_them(model: genai.FittedModel) -> None:
    holes = with_holes(small_table(3000, seed=2), 0.3).append_column("key", pa.array(range(3000)))
    for draws in (1, 3):
        made = model.impute(holes, draws=draws, mark=True, seed=5)
        assert made.num_rows == 3000 * draws
        again = holes.take(pa.array(np.repeat(np.arange(3000), draws)))
        for name in model.schema.names:
            there = pc.is_valid(again[name])
            assert made[name].null_count == 0
            assert made[name].filter(there).equals(again[name].filter(there)), name
        assert made["key"].equals(again["key"])
        missing = [
            [n for n in model.schema.names if row[n] is None] for row in again.slice(0, 200).to_pylist()
        ]
        assert made["_imputed"].slice(0, 200).to_pylist() == missing
        assert ("_draw" in made.column_names) == (draws > 1)
    assert made.equals(model.impute(holes, draws=3, mark=True, seed=5))
    assert not made.equals(model.impute(holes, draws=3, mark=True, seed=6))


def test_what_is_filled_in_follows_what_is_there(model: genai.FittedModel) -> None:
    real = small_table(4000, seed=3).to_pandas()
    holes = real.assign(colour=None, y=np.where(np.arange(4000) % 2, real["y"], np.nan))
    made = model.impute(pa.table({n: pa.array(holes[n], from_pandas=True) for n in holes})).to_pandas()
    known = real["y"].notna() & (np.arange(4000) % 2 == 1)
    assert ((made["colour"] == "red") == (real["y"] > 0))[known].mean() > 0.93
    both = real["x"].notna() & (np.arange(4000) % 2 == 0)
    assert np.corrcoef(made["y"][both], real["x"][both])[0, 1] > 0.85


def test_some_columns_alone(model: genai.FittedModel) -> None:
    holes = with_holes(small_table(500, seed=2), 0.3)
    made = model.impute(holes, columns=["y"])
    assert made["y"].null_count == 0
    assert made["x"].equals(holes["x"])
    with pytest.raises(InvalidInput, match="columns names 'why'"):
        model.impute(holes, columns=["why"])


def test_every_type_is_filled() -> None:
    table = every_type()
    fitted = learnt(table, 1)
    for name in table.schema.names:
        if table[name].null_count in (0, table.num_rows):
            continue
        made = fitted.impute(table, columns=[name])
        there = pc.is_valid(table[name])
        assert made.schema.equals(table.schema)
        assert made[name].null_count == 0, name
        assert (
            made[name].filter(there).to_pylist().__repr__()
            == table[name].filter(there).to_pylist().__repr__()
        )


def test_given_columns_stay_and_the_rest_follows(model: genai.FittedModel) -> None:
    given = (
        small_table(1500, seed=4)
        .select(["n", "y"])
        .append_column("key", pa.array([f"k{i}" for i in range(1500)]))
    )
    made = model.sample_given(given, per_row=3, seed=1)
    again = given.take(pa.array(np.repeat(np.arange(1500), 3)))
    assert made.column_names == ["key", *model.schema.names]
    for name in given.column_names:
        assert made[name].equals(again[name]), name
    frame = made.to_pandas()
    assert ((frame["colour"] == "red") == (frame["y"] > 0)).mean() > 0.93
    some = model.sample_given(given, where={"colour": "red"}, seed=1)
    assert set(some["colour"].to_pylist()) == {"red"}


def test_values_never_seen_are_kept_and_tell_nothing(model: genai.FittedModel) -> None:
    made = model.sample_given(pa.table({"colour": ["mauve"] * 2000}))
    assert set(made["colour"].to_pylist()) == {"mauve"}
    free = model.sample(2000, seed=9).to_pandas()
    assert abs(made.to_pandas()["y"].mean() - free["y"].mean()) < 0.15


@pytest.mark.parametrize(
    ("table", "options", "message"),
    [
        ({"q": [1]}, {}, "none of the model's columns"),
        ({"x": [1.0], "y": [1.0], "n": [1], "colour": ["red"]}, {}, "nothing is left to draw"),
        ({"n": [1]}, {"where": {"n": 1}}, r"given and where\.n both say"),
        ({"n": [1]}, {"balance": {"n": {"1": 0.5}}}, r"given and balance\.n both say"),
        ({"n": ["one"]}, {}, "column 'n' is string, the model learnt int64"),
    ],
)
def test_given_tables_that_cannot_be(
    model: genai.FittedModel, table: dict, options: dict, message: str
) -> None:
    with pytest.raises((InvalidInput, genai.errors.SchemaMismatch), match=message):
        model.sample_given(pa.table(table), **options)


def test_frames_of_pandas_with_nan_are_read_as_missing(model: genai.FittedModel) -> None:
    frame = pd.DataFrame({"x": [np.nan, 0.5], "y": [0.1, np.nan], "n": [1, 2], "colour": ["red", None]})
    assert model.impute(pa.Table.from_pandas(frame)).to_pandas().notna().all().all()
