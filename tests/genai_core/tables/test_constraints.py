"""Declared constraints: every drawn row keeps them, in every family, under conditions, beside cells that are given."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

import genai_core as genai
from genai_core.errors import InvalidInput
from genai_core.hyperparameters import TabularSettings
from genai_core.modalities.tabular import TabularCodec
from genai_core.tables.constraints import Order, broken
from genai_core.tables.declarations import parse_formula

LAND = {"Paris": "F", "Lyon": "F", "Rome": "I", "Milan": "I", "Bern": "CH"}
DECLARED: list[dict[str, Any]] = [
    {"kind": "order", "columns": ["low", "high"], "strict": True},
    {"kind": "range", "column": "age", "min": 18, "max": 65},
    {"kind": "combination", "columns": ["city", "land"]},
    {"kind": "formula", "column": "pay", "equals": "rate * hours"},
    {"kind": "formula", "column": "mean", "equals": "rate / hours"},
    {"kind": "unique", "columns": ["key"]},
]
TEXTS = {
    "low < high",
    "18 <= age <= 65",
    "combinations of (city, land)",
    "pay = rate * hours",
    "mean = rate / hours",
    "unique (key)",
    "start <= end",  # found: nobody declares it
}


def stays(rows: int = 1500, seed: int = 0) -> pa.Table:
    random = np.random.default_rng(seed)
    start, stay = random.integers(0, 90 * 1440, rows), random.integers(1, 5000, rows)
    begin = dt.datetime(2024, 1, 1)
    city = random.choice(list(LAND), rows)
    low = random.normal(10, 3, rows).round(2)
    rate, hours = random.integers(1, 50, rows), random.integers(1, 9, rows)
    return pa.table(
        {
            "start": pa.array([begin + dt.timedelta(minutes=int(m)) for m in start], pa.timestamp("ns")),
            "end": pa.array([begin + dt.timedelta(minutes=int(m)) for m in start + stay], pa.timestamp("ns")),
            "city": pa.array(city).dictionary_encode(),
            "land": [LAND[c] for c in city],
            "low": low,
            "high": (low + random.exponential(1, rows)).round(2),
            "age": random.integers(10, 70, rows),
            "rate": rate,
            "hours": hours,
            "pay": rate * hours,
            "mean": (rate / hours).round(2),
            "key": [f"K{i:06d}" for i in random.permutation(rows)],
        }
    )


def fitted(kind: str = "autoregressive", **settings: Any) -> genai.FittedModel:
    return genai.fit(
        stays(), kind, modality={"kind": "tabular", "constraints": DECLARED}, max_epochs=1, seed=1, **settings
    )


@pytest.fixture(scope="module")
def model() -> genai.FittedModel:
    return fitted()


def faults(model: genai.FittedModel, table: pa.Table) -> dict[str, int]:
    return {text: rows for text, rows in broken(model.codec.constraints, table).items() if rows}  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["autoregressive", "vae", "gan"])
def test_no_row_of_any_family_breaks_one(kind: str, model: genai.FittedModel) -> None:
    model = model if kind == "autoregressive" else fitted(kind)
    made = model.sample(3000, seed=1)
    assert set(broken(model.codec.constraints, made)) == TEXTS  # type: ignore[attr-defined]
    assert faults(model, made) == {}
    assert (made["start"].to_numpy() <= made["end"].to_numpy()).all()
    assert (made["low"].to_numpy() < made["high"].to_numpy()).all()
    pairs = zip(made["city"].to_pylist(), made["land"].to_pylist(), strict=True)
    assert set(pairs) == set(LAND.items()), "and all that there are occur"
    assert made.schema == stays().schema


def test_a_hardly_trained_model_breaks_them_before_they_are_mended(model: genai.FittedModel) -> None:
    """Otherwise the test above would not tell."""
    codec: Any = model.codec
    kept, codec.constraints = codec.constraints, ()
    try:
        made = model.sample(3000, seed=1)
    finally:
        codec.constraints = kept
    assert set(faults(model, made)) >= {"low < high", "18 <= age <= 65", "combinations of (city, land)"}


def test_they_hold_under_conditions_in_given_rows_and_in_filled_cells(model: genai.FittedModel) -> None:
    asked = {"city": "Rome", "low": {"min": 12, "max": 13}, "mean": {"max": 30}}
    made = model.sample(1000, seed=2, where=asked)
    assert faults(model, made) == {} and set(made["city"].to_pylist()) == {"Rome"}
    assert made["mean"].to_numpy().max() <= 30
    of_a_product = model.sample(1000, seed=2, where={"pay": {"min": 100}})
    assert of_a_product["pay"].to_numpy().min() >= 100
    left = faults(model, of_a_product)  # of whole factors, where 100 is drawn and one of them is 3
    assert set(left) <= {"pay = rate * hours"} and sum(left.values()) < 30
    assert set(made["land"].to_pylist()) == {"I"} and made["low"].to_numpy().min() >= 12
    given = pa.table({"land": ["F", "CH"] * 50, "high": [8.0, 11.5] * 50, "end": stays()["end"][:100]})
    made = model.sample_given(given, seed=3)
    assert faults(model, made) == {} and made["high"].to_pylist() == given["high"].to_pylist()
    rows = stays(300, seed=9).filter(pa.array(stays(300, seed=9)["age"].to_numpy() >= 18))
    rows = rows.filter(
        pa.array((rows["low"].to_numpy() < rows["high"].to_numpy()) & (rows["age"].to_numpy() <= 65))
    )
    holes = rows.set_column(
        3, "land", pa.array([None if i % 2 else v for i, v in enumerate(rows["land"].to_pylist())])
    )
    holes = holes.set_column(
        5, "high", pa.array([None if i % 3 else v for i, v in enumerate(rows["high"].to_pylist())])
    )
    full = model.impute(holes, seed=4)
    assert faults(model, full) == {} and full["land"].to_pylist() == rows["land"].to_pylist()
    assert full["low"].equals(rows["low"])


def test_what_contradicts_is_counted_and_never_silently_changed(model: genai.FittedModel) -> None:
    made = model.sample(200, seed=1, where={"low": {"min": 12}, "high": {"max": 10}})
    assert faults(model, made) == {"low < high": 200}, "the condition is kept, the constraint is counted"
    given = pa.table({"city": ["Rome"] * 3, "land": ["F"] * 3})
    made = model.sample_given(given, seed=3)
    assert made["land"].to_pylist() == ["F"] * 3 and faults(model, made) == {
        "combinations of (city, land)": 3
    }


def test_whoever_trains_is_told_and_the_artifact_has_it(model: genai.FittedModel, tmp_path: Path) -> None:
    notes = " ".join(model.codec.notes)
    table = stays()
    age = table["age"].to_numpy()
    assert f"18 <= age <= 65: {((age < 18) | (age > 65)).sum():,} of the 1,500 rows" in notes
    assert "kept: start <= end (in all rows)" in notes
    model.save(tmp_path / "model")
    loaded = genai.load(tmp_path / "model")
    assert loaded.sample(500, seed=5).equals(model.sample(500, seed=5))
    assert loaded.codec.fingerprint == model.codec.fingerprint  # type: ignore[attr-defined]


def test_a_model_that_goes_on_learns_new_combinations(model: genai.FittedModel) -> None:
    more = stays(600, seed=3)
    city = ["Oslo" if i % 3 == 0 else c for i, c in enumerate(more["city"].to_pylist())]
    land = ["N" if i % 3 == 0 else c for i, c in enumerate(more["land"].to_pylist())]
    more = more.set_column(2, more.schema.field("city"), pa.array(city).dictionary_encode())
    more = more.set_column(3, "land", pa.array(land))
    grown = genai.fit(more, start=model, max_epochs=2, seed=1)
    made = grown.sample(2000, seed=1)
    pairs = set(zip(made["city"].to_pylist(), made["land"].to_pylist(), strict=True))
    assert faults(grown, made) == {} and ("Oslo", "N") in pairs


def test_rare_combinations_are_not_kept_for_privacy() -> None:
    table = pa.table({"a": ["x"] * 300 + ["y"] * 300, "b": ["p"] * 299 + ["q"] + ["q"] * 300})
    declared = [{"kind": "combination", "columns": ["a", "b"]}]
    codec = TabularCodec.fit(table.to_batches(), table.schema, TabularSettings(constraints=declared))  # type: ignore[arg-type]
    assert codec.combinations[0].counts.tolist() == [299, 300]


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ({"kind": "order", "columns": ["low", "hihg"]}, "'hihg', which is no learnt column.*high"),
        ({"kind": "order", "columns": ["low", "city"]}, "found low is double, city is dictionary"),
        ({"kind": "order", "columns": ["start", "low"]}, "times of one type"),
        ({"kind": "range", "column": "age", "min": "old"}, "cannot be read as int64"),
        ({"kind": "range", "column": "age", "min": 9, "max": 3}, "min 9 is greater than max 3"),
        ({"kind": "combination", "columns": ["city", "low"]}, "accepted are categories"),
        ({"kind": "formula", "column": "pay", "equals": "rate * city"}, "accepted are numbers"),
        ({"kind": "formula", "column": "pay", "equals": "pay + rate"}, "goes round in a circle"),
        ({"kind": "unique", "columns": ["age"]}, "modality.made.*kind: sequence"),
    ],
)
def test_what_cannot_be_kept_is_refused_before_training(declared: dict[str, Any], said: str) -> None:
    settings = TabularSettings(constraints=[declared])  # type: ignore[list-item]
    with pytest.raises(InvalidInput, match=said):
        TabularCodec.fit(stays(200).to_batches(), stays(200).schema, settings)
    if declared["kind"] != "unique":  # what is made may be found in the data
        with pytest.raises(InvalidInput, match=said):
            TabularCodec.learnt_columns(stays(20).schema, settings)


def test_two_orders_or_formulae_that_contradict_are_refused() -> None:
    circle = [{"kind": "order", "columns": ["low", "high"]}, {"kind": "order", "columns": ["high", "low"]}]
    twice = [{"kind": "formula", "column": "pay", "equals": "rate"}] * 2
    for declared, said in ((circle, "circle"), (twice, "two formulae")):
        with pytest.raises(InvalidInput, match=said):
            TabularCodec.learnt_columns(stays(20).schema, TabularSettings(constraints=declared))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "kind", "operands", "factors", "constant"),
    [
        ("a - 2 * b + 5", "sum", ("a", "b"), (1, -2), 5),
        ("2 * (a - b)", "sum", ("a", "b"), (2, -2), 0),
        ("max(0, a - b)", "clipped", ("a", "b"), (1, -1), 0),
        ("a * b * c", "product", ("a", "b", "c"), (1, 1, 1), 0),
        ("a / b", "quotient", ("a", "b"), (1, 1), 0),
        ("`old balance` + b", "sum", ("old balance", "b"), (1, 1), 0),
    ],
)
def test_formulae_are_read(text: str, kind: str, operands: tuple, factors: tuple, constant: float) -> None:
    found = parse_formula(text)
    assert (found.kind, found.operands, found.factors, found.constant) == (kind, operands, factors, constant)


@pytest.mark.parametrize(
    "text",
    ["a * b + c", "f(a)", "a + a", "5", "a ** 2", "(", "__import__('os')", "a[0]", "max(1, a)", "a * 0"],
)
def test_other_formulae_are_refused_with_what_is_accepted(text: str) -> None:
    with pytest.raises(ValidationError, match="accepted are sums"):
        TabularSettings(constraints=[{"kind": "formula", "column": "x", "equals": text}])  # type: ignore[list-item]


def test_constraints_of_one_column_do_not_undo_each_other() -> None:
    """An order would move the later column up, a range moves it down again: then the earlier one moves."""
    random = np.random.default_rng(0)
    low = random.integers(0, 100, 600)
    table = pa.table({"low": low, "high": low + random.integers(1, 9, 600)})
    declared = [
        {"kind": "order", "columns": ["low", "high"], "strict": True},
        {"kind": "range", "column": "high", "max": 50},
    ]
    settings = {"kind": "tabular", "constraints": declared}
    made = genai.fit(table, modality=settings, max_epochs=1, seed=1).sample(2000, seed=1)
    found, bound = made["low"].to_numpy(), made["high"].to_numpy()
    assert bound.max() == 50 and (found < bound).all()


def test_values_change_places_and_fixed_ones_stay() -> None:
    order = Order(("a", "b", "c"), units=(1.0, 1.0, 1.0))
    table = pa.table({"a": [3, 9, None], "b": [2, 4, 5], "c": [1, 6, 2]})
    none = np.zeros(3)
    assert order.mend(table, {}, none).to_pydict() == {"a": [1, 4, None], "b": [2, 6, 2], "c": [3, 9, 5]}
    fixed = {"b": np.ones(3, bool)}
    assert order.mend(table, fixed, none).to_pydict() == {"a": [1, 4, None], "b": [2, 4, 5], "c": [2, 6, 5]}
    strict = Order(("a", "b"), strict=True, units=(1.0, 100.0))
    assert strict.mend(pa.table({"a": [5, 5], "b": [5, 7]}), {}, none[:2])["b"].to_pylist() == [105, 7]
    mixed = Order(("whole", "float"), units=(1.0, 0.0))
    made = mixed.mend(
        pa.table({"whole": [5, 5], "float": [3.7, 3.7]}), {"float": np.array([True, False])}, none[:2]
    )
    assert made.to_pydict() == {"whole": [3, 3], "float": [3.7, 5.0]}
