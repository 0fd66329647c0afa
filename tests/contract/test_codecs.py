"""Every property of the codec protocol, over every modality of the catalogue (tables so far)."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from genai_core import catalog
from genai_core.modalities.tabular import TabularCodec
from tests.contract.spaces import every_type, small_table

TABLES = {"every_type": every_type, "small": small_table}


def test_every_modality_has_a_codec() -> None:
    assert [catalog.codec_class(kind).kind for kind in catalog.MODALITIES] == list(catalog.MODALITIES)


@pytest.mark.parametrize("name", TABLES)
def test_decode_gives_back_the_schema_and_the_tokens(name: str) -> None:
    table = TABLES[name]()
    codec = TabularCodec.fit(table.to_batches(), table.schema)
    records = codec.encode(table)
    decoded = codec.decode(records.tokens, np.random.default_rng(0))
    assert decoded.schema.equals(table.schema, check_metadata=True)
    decoded.validate(full=True)
    assert np.array_equal(codec.encode(decoded).tokens, records.tokens)
    assert np.isfinite(records.log_measure).all()


@pytest.mark.parametrize("name", TABLES)
def test_tokens_are_inside_the_space(name: str) -> None:
    table = TABLES[name]()
    codec = TabularCodec.fit(table.to_batches(), table.schema)
    tokens = codec.encode(table).tokens
    for i, position in enumerate(codec.space.positions):
        assert tokens[:, i].min() >= 0
        assert tokens[:, i].max() < position.vocabulary
        assert position.drawable[tokens[:, i]].all(), "training values must be drawable"
        if position.allowed is not None:
            assert position.allowed[tokens[:, position.parent], tokens[:, i]].all()


@pytest.mark.parametrize("name", TABLES)
def test_state_round_trip(name: str) -> None:
    table = TABLES[name]()
    codec = TabularCodec.fit(table.to_batches(), table.schema)
    settings_, arrays = codec.state()
    again = TabularCodec.from_state(json.loads(json.dumps(settings_)), arrays)
    assert again.fingerprint == codec.fingerprint
    assert np.array_equal(again.encode(table).tokens, codec.encode(table).tokens)


def test_fitting_is_deterministic_and_does_not_depend_on_batches() -> None:
    table = every_type(2000)
    prints = {
        TabularCodec.fit(table.to_batches(max_chunksize=size), table.schema).fingerprint
        for size in (2000, 2000)
    }
    assert len(prints) == 1
    small = TabularCodec.fit(table.to_batches(max_chunksize=97), table.schema)
    whole = TabularCodec.fit(table.to_batches(), table.schema)
    assert small.space.fields == whole.space.fields


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.one_of(st.none(), st.floats(width=64), st.integers(-(2**40), 2**40).map(float)),
        min_size=10,
        max_size=80,
    )
)
def test_any_floats_survive(values: list[float | None]) -> None:
    table = pa.table({"x": pa.array(values, pa.float64())})
    codec = TabularCodec.fit(table.to_batches(), table.schema)
    records = codec.encode(table)
    decoded = codec.decode(records.tokens, np.random.default_rng(0))
    assert np.array_equal(codec.encode(decoded).tokens, records.tokens)
    assert decoded.column(0).is_null().to_pylist() == [v is None for v in values]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)), min_size=10, max_size=80))
def test_any_integers_survive(values: list[int | None]) -> None:
    table = pa.table({"x": pa.array(values, pa.int64())})
    codec = TabularCodec.fit(table.to_batches(), table.schema)
    records = codec.encode(table)
    decoded = codec.decode(records.tokens, np.random.default_rng(0))
    if len(set(values)) <= 400:  # all atoms: exact
        assert decoded.equals(table)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.none(), st.text(max_size=20)), min_size=10, max_size=60))
def test_any_text_survives(values: list[str | None]) -> None:
    table = pa.table({"x": pa.array(values, pa.string())})
    codec = TabularCodec.fit(table.to_batches(), table.schema)
    assert codec.decode(codec.encode(table).tokens, np.random.default_rng(0)).equals(table)


def test_log_measure_makes_a_density() -> None:
    """The cells' measures add up to the range: the probabilities of tokens become a density without gaps."""
    values = np.random.default_rng(0).normal(size=5000)
    table = pa.table({"x": values})
    codec = TabularCodec.fit(table.to_batches(), table.schema)
    axis = codec.columns[0].axes[0]
    widths = np.diff(axis.edges)
    assert widths.sum() == pytest.approx(values.max() - values.min())
    records = codec.encode(table)
    cell = np.searchsorted(axis.edges, values, "right") - 1
    inside = (cell >= 0) & (cell < len(widths))
    expected = -np.log(widths[np.clip(cell, 0, len(widths) - 1)] / axis.unit)
    assert np.allclose(records.log_measure[inside, 0], expected[inside], atol=1e-4)
