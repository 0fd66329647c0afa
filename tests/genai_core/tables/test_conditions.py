"""What is asked of sampled rows holds in every row, whatever the column's type; what cannot be is refused."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import genai_core as genai
from genai_core.errors import InvalidInput, MissingCapability
from genai_core.tables.conditions import check_sampling
from tests.contract.sampled import learnt

ROWS = 2000
START = dt.datetime(2024, 1, 1)


def a_table(rows: int = ROWS) -> pa.Table:
    random = np.random.default_rng(5)
    z = random.normal(size=rows)
    minutes = random.integers(0, 60 * 24 * 90, rows)
    return pa.table(
        {
            "real": pa.array(z, mask=random.random(rows) < 0.1),
            "narrow": pa.array((z * 3).astype(np.float32)),
            "cents": np.round(np.exp(z + 5), 2),
            "whole": (z * 3000).astype(np.int64),
            "few": random.integers(0, 5, rows),
            "day": pa.array([(START + dt.timedelta(days=int(d))).date() for d in minutes // 1440]),
            "time": pa.array([START + dt.timedelta(minutes=int(m)) for m in minutes], pa.timestamp("us")),
            "money": pa.array([round(float(v), 2) for v in np.exp(z)]).cast(pa.decimal128(12, 2), safe=False),
            "code": [f"c{int(v)}" for v in random.integers(0, 700, rows)],
            "kind": np.where(z > 0.8, "rare", np.where(z > 0, "some", "most")),
            "flag": z + 0.3 * random.normal(size=rows) > 1.5,
        }
    )


@pytest.fixture(scope="module")
def model() -> genai.FittedModel:
    return learnt(a_table(), 4)


def bounds(name: str) -> list[Any]:
    """All values but the extremes, which are never drawn."""
    return sorted(v for v in a_table()[name].to_pylist() if v is not None)[20:-20]


RANGED = ("real", "narrow", "cents", "whole", "few", "day", "time", "money")


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(RANGED), st.integers(0, 1800), st.integers(0, 1800), st.integers(0, 3))
def test_a_range_holds_in_every_row(model: genai.FittedModel, name: str, a: int, b: int, which: int) -> None:
    values = bounds(name)
    low, high = (values[min(i, len(values) - 1)] for i in sorted((a, b)))
    if name == "time" and which != 3:  # some days, the first and last of them in part
        high = max(high, low + dt.timedelta(hours=12))
    asked = {
        key: value for key, value, bit in (("min", low, 1), ("max", high, 2)) if which & bit or not which
    }
    try:
        found = model.sample(300, where={name: asked}, seed=a)[name]
    except InvalidInput as error:  # a minute of a day among cells of several minutes
        assert name == "time" and "no value that" in str(error)
        return
    made = found.to_pylist()
    assert None not in made
    assert "min" not in asked or min(made) >= low
    assert "max" not in asked or max(made) <= high


def test_values_in_a_range_are_distributed_as_without(model: genai.FittedModel) -> None:
    first = {"min": -9000}  # so that the column is drawn first here too
    free = np.array(model.sample(30_000, seed=1, where={"whole": first})["whole"].to_pylist())
    inside = free[(free >= -1234) & (free <= 2345)]
    asked = np.array(
        model.sample(20_000, seed=2, where={"whole": {"min": -1234, "max": 2345}})["whole"].to_pylist()
    )
    quantiles = np.linspace(0.02, 0.98, 25)
    assert np.abs(np.quantile(inside, quantiles) - np.quantile(asked, quantiles)).max() < 110


def test_the_rest_is_drawn_given_the_range(model: genai.FittedModel) -> None:
    made = model.sample(2000, where={"whole": {"min": 3000}}, seed=3)
    assert pc.mean(pc.equal(made["kind"], "rare")).as_py() > 0.6
    assert pc.mean(pc.equal(model.sample(2000)["kind"], "rare")).as_py() < 0.35


def two_days(times: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.is_in(times.cast(pa.date32(), safe=False), pa.array([dt.date(2024, 1, 3), dt.date(2024, 1, 4)]))


@pytest.mark.parametrize(
    ("where", "wrong"),
    [
        ({"kind": {"not": "most"}}, lambda t: pc.equal(t["kind"], "most")),
        ({"few": {"not": [1, 2], "min": 1}}, lambda t: pc.is_in(t["few"], pa.array([0, 1, 2]))),
        ({"code": {"not": ["c1", "c2", "c3"]}}, lambda t: pc.is_in(t["code"], pa.array(["c1", "c2", "c3"]))),
        ({"real": {"missing": False}}, lambda t: pc.is_null(t["real"])),
        ({"real": {"missing": True}}, lambda t: pc.is_valid(t["real"])),
        ({"real": {"not": None}}, lambda t: pc.is_null(t["real"])),
        ({"real": None}, lambda t: pc.is_valid(t["real"])),
        ({"flag": {"not": True}}, lambda t: t["flag"]),
        ({"time": {"min": "2024-01-03", "max": "2024-01-04"}}, lambda t: pc.invert(two_days(t["time"]))),
    ],
)  # fmt: skip
def test_what_else_can_be_asked_holds_in_every_row(model: genai.FittedModel, where: dict, wrong: Any) -> None:
    assert not pc.any(wrong(model.sample(2000, where=where))).as_py()


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"kind": {"min": "a"}}, "where.kind: 'kind' is string, which has no order"),
        ({"whole": {"mn": 3}}, "where.whole: found 'mn'; accepted are .* did you mean 'min'"),
        ({"whole": {}}, "where.whole: nothing is asked"),
        ({"whole": {"min": 5, "max": 3}}, "where.whole: min 5 is greater than max 3"),
        ({"whole": {"min": "x"}}, "where.whole: .'x'. cannot be read as int64"),
        ({"whole": {"min": 10**7}}, "where.whole: no value that this model can draw fulfils it"),
        (
            {"real": {"missing": True, "min": 0}},
            "where.real.missing: accepted are false, and true with nothing",
        ),
        ({"real": {"min": None}}, "where.real.min: null is no bound"),
        ({"real": {"min": float("nan")}}, "where.real.min: NaN is no bound"),
        ({"few": {"not": [0, 1, 2, 3, 4]}}, "where.few: no value that this model can draw fulfils it"),
        ({"whole": {"not": int(bounds("whole")[700])}}, "no token of their own"),
    ],
)
def test_what_cannot_be_asked_is_refused(model: genai.FittedModel, where: dict, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        model.sample(10, where=where)


def within(share: float, wanted: float, rows: int) -> bool:
    return abs(share - wanted) < 4 * np.sqrt(wanted * (1 - wanted) / rows) + 1e-9


def test_balanced_shares_are_those_asked_for_and_the_rest_follows(model: genai.FittedModel) -> None:
    rows = 20_000
    free = model.sample(rows, seed=1)
    made = model.sample(
        rows, seed=2, balance={"kind": {"rare": 0.5}, "flag": {"true": 0.25}, "few": {"3": 1}}
    )
    share = pc.mean(pc.equal(made["kind"], "rare")).as_py()
    assert within(share, 0.5, rows)
    assert within(pc.mean(made["flag"].cast(pa.int8())).as_py(), 0.25, rows)
    assert set(made["few"].to_pylist()) == {3}
    some, most = (pc.sum(pc.equal(free["kind"], name)).as_py() for name in ("some", "most"))
    assert within(pc.mean(pc.equal(made["kind"], "some")).as_py(), 0.5 * some / (some + most), rows / 3)
    only = model.sample(rows, seed=2, balance={"kind": {"rare": 0.5}})
    rare = only.filter(pc.equal(only["kind"], "rare"))["whole"]
    assert pc.mean(rare).as_py() > 1800, "the rest is drawn given the balanced column"


@pytest.mark.parametrize(
    ("balance", "message"),
    [
        ({"kind": {"rare": 0.7, "some": 0.5}}, "balance.kind: .* together at most 1"),
        ({"kind": {"raer": 0.5}}, "balance.kind: the training data holds no 'raer'"),
        ({"kin": {"rare": 0.5}}, "balance names 'kin'.*did you mean 'kind'"),
        ({"kind": {"rare": 0.2, "some": 0.2, "most": 0.2}}, "balance.kind: .* make them add up to 1"),
        ({"whole": {str(bounds("whole")[700]): 0.2}}, "no token of their own"),
    ],
)
def test_shares_that_cannot_be_are_refused(model: genai.FittedModel, balance: dict, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        model.sample(10, balance=balance)


def test_where_and_balance_of_one_column_contradict(model: genai.FittedModel) -> None:
    with pytest.raises(InvalidInput, match=r"where\.kind and balance\.kind"):
        model.sample(10, where={"kind": "rare"}, balance={"kind": {"rare": 0.5}})


def test_a_temperature_of_one_column_leaves_the_others_as_they_are(model: genai.FittedModel) -> None:
    cold, free = model.sample(15_000, seed=4, temperature={"kind": 0.3}), model.sample(15_000, seed=5)

    def share(table: pa.Table, name: str, value: object) -> float:
        return pc.mean(pc.equal(table[name], value)).as_py()

    assert share(cold, "kind", "most") > share(free, "kind", "most") + 0.1
    assert abs(share(cold, "few", 2) - share(free, "few", 2)) < 0.02
    alike = [t.filter(pc.and_(pc.equal(t["kind"], "most"), pc.invert(t["flag"]))) for t in (cold, free)]
    assert abs(pc.mean(alike[0]["whole"]).as_py() - pc.mean(alike[1]["whole"]).as_py()) < 150
    assert model.sample(50, temperature={"whole": 1.0}, seed=1).equals(model.sample(50, seed=1))
    with pytest.raises(InvalidInput, match=r"temperature names 'hole'.*did you mean 'whole'"):
        model.sample(1, temperature={"hole": 0.5})
    with pytest.raises(InvalidInput, match=r"top_p\.whole: found 2; accepted are numbers above 0 up to 1"):
        model.sample(1, top_p={"whole": 2})


def test_other_families_refuse() -> None:
    with pytest.raises(MissingCapability, match="this vae model cannot generate with balance"):
        check_sampling("vae", "tabular", {}, balance={"kind": {"rare": 0.5}})
    with pytest.raises(MissingCapability, match="this gan model cannot generate with temperature"):
        check_sampling("gan", "tabular", {}, temperature={"whole": 0.5})
    with pytest.raises(MissingCapability, match="learnt text records; top_p by column is for tables alone"):
        check_sampling("autoregressive", "text", {}, top_p={"whole": 0.5})
