"""What encoding may lose, and what it may not."""

from __future__ import annotations

import datetime
import json

import numpy as np
import pyarrow as pa
import pytest

from genai_core.errors import InvalidData, SchemaMismatch
from genai_core.hyperparameters import TabularSettings
from genai_core.modalities.tabular import TabularCodec


def codec_of(**columns: object) -> TabularCodec:
    table = pa.table(columns)
    return TabularCodec.fit(table.to_batches(), table.schema)


def round_trip(values: pa.Array) -> pa.Array:
    table = pa.table({"x": values})
    codec = TabularCodec.fit(table.to_batches(), table.schema)
    return codec.decode(codec.encode(table).tokens, np.random.default_rng(0)).column(0).combine_chunks()


def test_values_on_a_grid_stay_on_it() -> None:
    random = np.random.default_rng(0)
    cents = np.round(random.lognormal(5, 2, 5000), 2)
    assert np.array_equal(
        np.round(round_trip(pa.array(cents)).to_numpy(), 2), round_trip(pa.array(cents)).to_numpy()
    )
    fives = round_trip(pa.array(random.integers(0, 10_000, 5000) * 5 + 3)).to_numpy()
    assert (fives % 5 == 3).all()
    hours = [
        datetime.datetime(2020, 1, 1) + datetime.timedelta(hours=int(h))
        for h in random.integers(0, 50_000, 2000)
    ]
    for value in round_trip(pa.array(hours, pa.timestamp("ns"))).to_pylist():
        assert (value.minute, value.second) == (0, 0)


def test_decoded_numbers_stay_in_their_cell_and_in_range() -> None:
    values = np.random.default_rng(0).normal(size=5000)
    decoded = round_trip(pa.array(values)).to_numpy()
    assert decoded.min() >= values.min()
    assert decoded.max() <= values.max()
    assert np.abs(decoded - values).mean() < 0.005 * values.std()


def test_atoms_are_exact() -> None:
    random = np.random.default_rng(0)
    values = np.where(random.random(5000) < 0.4, 0.0, random.lognormal(size=5000))
    decoded = round_trip(pa.array(values)).to_numpy()
    assert np.array_equal(decoded == 0, values == 0)


def token_kind(codec: TabularCodec, values: pa.Array) -> list[str]:
    from genai_core.tables.axis import SPECIALS

    axis = codec.columns[0].axes[0]
    first = codec.encode(pa.table({"x": values})).tokens[:, 0]
    return [SPECIALS[t - axis.places] if t >= axis.places else "value" for t in first.tolist()]


def test_missing_unseen_and_out_of_range_have_tokens_of_their_own() -> None:
    codec = codec_of(x=pa.array([1.0, 2.0, 3.0, 5.0] * 10))
    odd = pa.array([2.0, 4.0, 2.5, 0.0, 9.0, None, np.nan, np.inf, -np.inf])
    kinds = [
        "value",
        "unseen",
        "unseen",
        "below",
        "above",
        "missing",
        "nan",
        "positive_infinite",
        "negative_infinite",
    ]
    assert token_kind(codec, odd) == kinds


def test_specials_that_were_not_seen_are_never_drawn() -> None:
    codec = codec_of(x=pa.array([1.0, 2.0] * 10))
    position = codec.space.positions[0]
    assert position.drawable.tolist() == [True, True] + [False] * 7


def test_two_level_categories_give_back_every_value() -> None:
    values = pa.array([f"tail{i:05d}" for i in range(4000)])
    assert round_trip(values).equals(values)
    codec = codec_of(x=values)
    assert max(codec.space.vocabularies) < 100


def test_rows_of_a_dictionary_with_other_codes_are_the_same() -> None:
    first = pa.DictionaryArray.from_arrays(pa.array([0, 1] * 10, pa.int8()), pa.array(["a", "b"]))
    other = pa.DictionaryArray.from_arrays(pa.array([1, 0] * 10, pa.int8()), pa.array(["b", "a"]))
    codec = codec_of(x=first)
    assert np.array_equal(
        codec.encode(pa.table({"x": first})).tokens, codec.encode(pa.table({"x": other})).tokens
    )


@pytest.mark.parametrize(
    "column",
    [
        pa.array([[1]] * 20),
        pa.array([{"a": 1}] * 20),
        pa.array([[("k", 1)]] * 20, pa.map_(pa.string(), pa.int64())),
    ],
)
def test_nested_columns_are_refused_by_name(column: pa.Array) -> None:
    with pytest.raises(InvalidData, match=r"'nested'.*exclude"):
        codec_of(fine=pa.array([1] * 20), nested=column)


def test_excluded_columns_are_left_out_and_misspelt_ones_named() -> None:
    table = pa.table({"a": [1] * 20, "nested": [[1]] * 20})
    codec = TabularCodec.fit(table.to_batches(), table.schema, TabularSettings(exclude=["nested"]))
    assert codec.schema.names == ["a"]
    with pytest.raises(InvalidData, match="did you mean 'nested'"):
        TabularCodec.fit(table.to_batches(), table.schema, TabularSettings(exclude=["nestet"]))


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(InvalidData, match=r"found 1 row\(s\)"):
        codec_of(a=pa.array([1]))


def test_all_schema_faults_are_told_at_once() -> None:
    codec = codec_of(origin=pa.array(["a"] * 20), dest=pa.array(["b"] * 20), n=pa.array([1] * 20))
    with pytest.raises(SchemaMismatch) as found:
        codec.encode(pa.table({"orign": ["a"], "dest": ["b"], "n": ["x"]}))
    assert "'origin' (string) is missing; did you mean 'orign'" in str(found.value)
    assert "'n' is string, the model learnt int64" in str(found.value)


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1, 2], pa.int32()),
        pa.array([1, 2], pa.int8()),
        pa.nulls(2, pa.int64()),
        pa.nulls(2),
        pa.array([1, 2]).dictionary_encode(),
    ],
)
def test_columns_of_a_near_type_are_read(column: pa.Array) -> None:
    codec = codec_of(n=pa.array([1, 2] * 10))
    assert len(codec.encode(pa.table({"n": column})).tokens) == 2


def test_a_decimal_beyond_64_bits_is_refused_with_advice() -> None:
    import decimal

    with pytest.raises(InvalidData, match=r"column 'd'.*exclude"):
        codec_of(d=pa.array([decimal.Decimal(10**25)] * 20, pa.decimal128(38, 2)))


def clock(rows: int, seed: int) -> np.ndarray:
    minutes = np.random.default_rng(seed).integers(0, 24 * 60, rows)
    return minutes // 60 * 100 + minutes % 60


def test_gaps_between_the_values_of_a_clock_are_unseen_and_never_drawn() -> None:
    codec = codec_of(x=pa.array(clock(20_000, 0)))
    assert set(token_kind(codec, pa.array([1275, 1260, 199]))) == {"unseen"}
    assert set(token_kind(codec, pa.array(clock(500, 1)))) == {"value"}
    drawn = round_trip(pa.array(clock(20_000, 0))).to_numpy()
    assert (drawn % 100 < 60).all() and len(np.unique(drawn)) > 1000


def test_a_likelihood_over_a_clock_sums_to_one() -> None:
    """The cells of a bin share its probability by how many of their values there are."""
    codec = codec_of(x=pa.array(clock(20_000, 0)))
    every = codec.encode(pa.table({"x": np.unique(clock(20_000, 0))}))
    axis, atom = codec.columns[0].axes[0], np.isin(every.tokens[:, 0], codec.columns[0].axes[0].atom_token)
    shares = np.where(atom, 1, np.exp(every.log_measure[:, 0].astype(float)) / axis.unit)
    assert np.isclose(shares.sum(), len(np.unique(every.tokens, axis=0)))


def test_where_new_values_are_to_come_every_value_is_possible() -> None:
    wide = np.random.default_rng(0).integers(0, 10**6, 3000)
    assert token_kind(codec_of(x=pa.array(wide)), pa.array([500_001])) == ["value"]


def test_what_few_rows_have_is_never_drawn_but_still_scored_apart() -> None:
    """A category of one row is unseen; the greatest numbers are drawn as the fifth greatest; small tables keep all."""
    random = np.random.default_rng(0)
    names, ages = ["a"] * 1200 + ["b"] * 799 + ["one"], [*random.integers(20, 60, 1999).tolist(), 99]
    money = [*random.normal(100, 10, 1999).tolist(), 1e6]
    table = pa.table({"name": names, "age": ages, "money": money})
    codec = TabularCodec.fit(table.to_batches(), table.schema)
    tokens = codec.encode(table).tokens.astype(np.int64)
    drawn = codec.decode(tokens, random)
    assert drawn["age"].to_pylist()[-1] == 59
    assert max(drawn["money"].to_pylist()) <= sorted(money)[-5]
    name, age = codec.space.positions[0], codec.space.positions[1]
    assert not name.drawable[tokens[-1, 0]], "the category of one row cannot be drawn"
    settings, arrays = codec.state()
    assert '"one"' not in json.dumps(settings), "the codec holds no name of it"
    again = TabularCodec.from_state(json.loads(json.dumps(settings)), arrays)
    never = table.slice(0, 1).set_column(0, "name", pa.array(["never"]))
    assert again.encode(table).tokens[-1, 0] == tokens[-1, 0] != again.encode(never).tokens[0, 0], (
        "rare, not unseen"
    )
    assert np.isfinite(age.values[tokens[-1, 1]]) and tokens[-1, 1] != tokens[0, 1], (
        "scores see the value as it is"
    )
    everything = TabularSettings(rare_below=0, clip_extremes=0)
    open_codec = TabularCodec.fit(table.to_batches(), table.schema, everything)
    assert open_codec.decode(open_codec.encode(table).tokens, random)["age"].to_pylist()[-1] == 99
    few = table.slice(1900)
    small = TabularCodec.fit(few.to_batches(), few.schema)
    assert small.decode(small.encode(few).tokens, random)["name"].to_pylist()[-1] == "one"
