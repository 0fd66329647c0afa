"""Relations between columns: found where they hold, not by chance; kept in every row, also under conditions."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pyarrow as pa
import pytest

import genai_core as genai
from genai_core.modalities.tabular import TabularCodec
from genai_core.tables.relation_search import Sample


def bills(rows: int = 1500, seed: int = 0, typed: bool = False) -> pa.Table:
    """Old and new balance, a payment that is often all of it, a total that is always a sum, times an hour apart."""
    random = np.random.default_rng(seed)
    old = np.round(random.lognormal(5, 1, rows), 2)
    paid = np.where(random.random(rows) < 0.3, old, np.round(random.uniform(0, 400, rows), 2))
    bought = np.where(random.random(rows) < 0.4, 0.0, np.round(random.lognormal(4, 1, rows), 2))
    count, price = random.integers(1, 40, rows), random.integers(3, 90, rows)
    table = {
        "old": old,
        "paid": paid,
        "bought": bought,
        "new": np.round(old - paid + bought, 2),
        "left": np.maximum(np.round(old - paid, 2), 0),
        "count": count,
        "price": price,
        "total": count * price,
        "kind": random.choice(["a", "b"], rows),
    }
    made = pa.table(table)
    if typed:
        made = made.set_column(3, "new", made["new"].cast(pa.decimal128(12, 2)))
        start = [
            dt.datetime(2024, 1, 1) + dt.timedelta(minutes=int(m)) for m in random.integers(0, 90_000, rows)
        ]
        stay = random.integers(1, 900, rows) * 60
        made = made.append_column("start", pa.array(start, pa.timestamp("ms")))
        made = made.append_column("stay", pa.array(stay, pa.int32()))
        ends = [s + dt.timedelta(seconds=int(n)) for s, n in zip(start, stay, strict=True)]
        made = made.append_column("end", pa.array(ends, pa.timestamp("ms")))
    return made


def texts(table: pa.Table) -> set[str]:
    return {
        one.text(table.schema.names) for one in TabularCodec.fit(table.to_batches(), table.schema).relations
    }


KEPT = {"paid = old", "new = old - paid + bought", "left = max(0, old - paid)", "total = count * price"}


def test_relations_are_found_of_every_type_and_whatever_the_batches() -> None:
    assert texts(bills()) == KEPT
    table = bills(typed=True)
    assert texts(table) == {*KEPT, "end = start + stay"}
    found = []
    for size in (7, 400, 10_000):
        sample = Sample(table.schema)
        for batch in table.to_batches(max_chunksize=size):
            sample.update(batch)
        found.append(sample.found(table.schema))
    assert found[0] == found[1] == found[2]


def test_nothing_is_found_by_chance_among_small_numbers() -> None:
    random = np.random.default_rng(3)
    columns = {f"x{i}": random.integers(0, 12, 3000) for i in range(8)}
    columns |= {
        "near": columns["x0"] + random.integers(-2, 3, 3000),
        "zero": (random.random(3000) < 0.02) * 5,
    }
    assert texts(pa.table(columns)) == set()
    walk = random.normal(0, 1, 3000)
    assert texts(pa.table({"a": walk, "b": walk + random.normal(0, 1e-3, 3000)})) == set()
    assert texts(pa.table({"a": walk, "b": np.round(walk, 1)})) == {"b = a"}, "rounded to what b has"


def test_whole_factors_are_found_and_the_widest_column_follows() -> None:
    random = np.random.default_rng(3)
    hour, minute = random.integers(0, 24, 2000), random.integers(0, 60, 2000)
    assert texts(pa.table({"at": 100 * hour + minute, "hour": hour, "minute": minute})) == {
        "at = 100 hour + minute"
    }


def test_what_is_solved_for_stays_in_its_column() -> None:
    random = np.random.default_rng(3)
    hour, minute = random.integers(5, 24, 3000), random.integers(0, 60, 3000)
    table = pa.table({"at": 100 * hour + minute, "hour": hour, "minute": minute})
    made = genai.fit(table, max_epochs=1, seed=1).sample(
        2000, seed=1, where={"at": {"min": 1500, "max": 1630}}
    )
    at, hours, minutes = (made[name].to_numpy() for name in table.column_names)
    assert at.min() >= 1500 and at.max() <= 1630 and minutes.min() >= 0
    fits = at % 100 < 60  # a model that has hardly been trained draws 1575 as well, which nothing adds up to
    assert fits.mean() > 0.5 and (100 * hours + minutes == at)[fits].all()
    assert minutes.max() <= 59 and set(hours) <= set(range(5, 24))


def broken(table: pa.Table) -> np.ndarray:
    """Rows in which a relation that always holds does not."""
    old, paid, bought, new, left = (
        table[name].to_numpy().astype(float) for name in list(table.column_names)[:5]
    )
    whole = table["count"].to_numpy() * table["price"].to_numpy() == table["total"].to_numpy()
    sums = np.abs(old - paid + bought - new) < 0.005
    kept: np.ndarray = whole & sums & (np.abs(np.maximum(old - paid, 0) - left) < 0.005)
    return ~kept


@pytest.fixture(scope="module")
def model() -> genai.FittedModel:
    return genai.fit(bills(), max_epochs=20, seed=1)


def test_relations_hold_in_every_row_that_is_drawn(model: genai.FittedModel) -> None:
    made = model.sample(3000, seed=1)
    assert not broken(made).any()
    equal = (made["paid"].to_numpy() == made["old"].to_numpy()).mean()
    assert abs(equal - 0.3) < 0.06, "as often as in the data"
    assert made.schema == bills().schema and made["total"].null_count == 0


@pytest.mark.parametrize(
    ("where", "least"),
    [
        ({"new": {"min": 100, "max": 300}}, 0.999),
        (
            {"new": {"min": 100}, "old": {"max": 200}},
            0.95,
        ),  # what is bought would have to be more than there is
        ({"old": [float(v) for v in bills()["old"][:5].to_pylist()]}, 0.999),
        ({"paid": {"min": 50}, "bought": {"min": 1}}, 0.999),
    ],
)
def test_conditions_hold_and_other_columns_give_way(
    model: genai.FittedModel, where: dict, least: float
) -> None:
    made = model.sample(2000, seed=2, where=where).to_pandas()
    for name, asked in where.items():
        if isinstance(asked, list):
            assert set(made[name]) <= set(asked)
        else:
            assert made[name].between(asked.get("min", -np.inf), asked.get("max", np.inf)).all()
    assert (abs(made["old"] - made["paid"] + made["bought"] - made["new"]) < 0.005).mean() > least


def test_what_is_missing_follows_from_what_is_there(model: genai.FittedModel) -> None:
    rows = bills(60, seed=5)
    for name in ("new", "bought", "total"):
        column = rows[name].to_pandas().astype(float).copy()
        column[::3] = np.nan
        type_ = rows.schema.field(name).type
        gaps = rows.set_column(
            rows.column_names.index(name), name, pa.array(column, pa.float64(), from_pandas=True).cast(type_)
        )
        filled = model.impute(gaps, seed=3)
        assert filled[name].null_count == 0
        assert np.allclose(filled[name].to_numpy(), rows[name].to_numpy(), atol=0.005), name
    given = rows.select(["old", "paid", "bought"])
    made = model.sample_given(given, seed=4)
    assert made.select(given.column_names).equals(given)
    assert np.allclose(made["new"].to_numpy(), rows["new"].to_numpy(), atol=0.005)


def test_a_row_that_breaks_a_sum_stands_out_and_is_explained(model: genai.FittedModel) -> None:
    rows = bills(300, seed=6)
    usual = model.score(rows, ["negative_log_likelihood"])
    wrong = np.round(rows["new"].to_numpy() + 1.0, 2)
    odd = rows.set_column(3, "new", pa.array(wrong))
    scored = model.score(odd, ["negative_log_likelihood"])
    more = scored.totals["negative_log_likelihood"] - usual.totals["negative_log_likelihood"]
    assert more.min() > 5
    shares = scored.per_column["negative_log_likelihood"]
    assert (shares.argmax(1) == scored.columns.index("new")).mean() > 0.95
    expected = model.expected(odd, ["new"])["new"].to_numpy()
    assert np.median(np.abs(expected - rows["new"].to_numpy())) < 0.2 * rows["new"].to_numpy().std()


def test_a_row_scores_the_same_wherever_it_stands(model: genai.FittedModel) -> None:
    rows = bills(40, seed=7)
    whole = model.score(rows, ["negative_log_likelihood"]).totals["negative_log_likelihood"]
    alone = [model.score(rows.slice(i, 1), ["negative_log_likelihood"]) for i in range(0, 40, 9)]
    assert [float(one.totals["negative_log_likelihood"][0]) for one in alone] == whole[::9].tolist()


def test_they_are_kept_in_the_artifact_and_can_be_left_out(
    model: genai.FittedModel, tmp_path: object
) -> None:
    model.save(tmp_path)
    loaded = genai.load(str(tmp_path))
    assert loaded.codec.relations == model.codec.relations and len(loaded.codec.relations) == 4
    assert loaded.sample(50, seed=3).equals(model.sample(50, seed=3))
    state, arrays = model.codec.state()
    state["relations"][0]["target"] = 99
    with pytest.raises(ValueError, match="damaged"):
        TabularCodec.from_state(state, arrays)
    plain = genai.fit(bills(300), max_epochs=1, modality={"kind": "tabular", "relations": "ignore"})
    assert plain.codec.relations == ()


@pytest.mark.parametrize("kind", ["vae", "gan"])
def test_other_families_write_them_too(kind: str) -> None:
    model = genai.fit(bills(600), kind, max_epochs=1, seed=1)
    made = model.sample(300, seed=1)
    tokens = model.codec.encode(made).tokens
    always = [one for one in model.codec.related if model.schema.names[one.field] in ("new", "total", "left")]
    assert len(always) == 3
    assert np.mean([(tokens[:, one.position] > 0).mean() for one in always]) > 0.8
