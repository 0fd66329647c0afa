"""Every property of the codec protocol, over every modality of the catalogue; what is peculiar to tables after it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from genai_core import catalog
from genai_core.errors import SchemaMismatch
from genai_core.modalities.tabular import TabularCodec
from genai_core.tables.axis_fit import ATOM_ROWS
from genai_core.train import modality_settings
from tests.contract.spaces import every_type, small_table
from tests.contract.tables import CASES

WHY = pa.list_(pa.struct([("column", pa.string()), ("nats", pa.float64()), ("value", pa.string())]))
TABLES = {"every_type": every_type, "small": small_table}
LOSSY = ("image_codes",)  # what is decoded is near to what was encoded, no more


def test_every_modality_has_a_codec_and_a_small_table() -> None:
    assert [catalog.codec_class(kind).kind for kind in catalog.MODALITIES] == list(catalog.MODALITIES)
    assert tuple(CASES) == catalog.MODALITIES, "say in tests/contract/tables.py what a table of it looks like"


def learnt(modality: str, rows: int = 60, **settings_: object) -> tuple[Any, pa.Table]:
    case = CASES[modality]
    table = case.table(rows)
    how = modality_settings({**case.modality, **settings_}, "autoregressive")
    return catalog.codec_class(modality).fit(table.to_batches(max_chunksize=7), table.schema, how), table


@pytest.mark.parametrize("modality", catalog.MODALITIES)
def test_records_lie_in_the_space_and_come_back_from_the_state(modality: str) -> None:
    codec, table = learnt(modality)
    records = codec.encode(table)
    assert records.tokens.shape == (60, codec.space.entries) and not records.faults
    assert records.tokens.dtype == codec.space.dtype and records.tokens.min() >= 0
    assert (
        records.log_measure.shape == (60, len(codec.space.fields)) and np.isfinite(records.log_measure).all()
    )
    settings_, arrays = codec.state()
    again = catalog.codec_class(modality).from_state(json.loads(json.dumps(settings_)), arrays)
    assert again.fingerprint == codec.fingerprint and again.space.fields == codec.space.fields
    assert again.schema.equals(codec.schema, check_metadata=True) and again.rows == codec.rows == 60
    assert np.array_equal(again.encode(table).tokens, records.tokens)


@pytest.mark.parametrize("modality", catalog.MODALITIES)
def test_decoded_tables_have_the_schema_and_encode_to_the_same_records(modality: str) -> None:
    codec, table = learnt(modality)
    records = codec.encode(table)
    decoded = codec.decode(records.tokens, np.random.default_rng(0))
    assert decoded.schema.equals(codec.schema, check_metadata=True)
    decoded.validate(full=True)
    assert modality in LOSSY or np.array_equal(codec.encode(decoded).tokens, records.tokens)
    assert decoded.equals(codec.decode(records.tokens, np.random.default_rng(0))), "the same bytes again"


@pytest.mark.parametrize("modality", catalog.MODALITIES)
def test_a_record_depends_on_its_row_alone(modality: str) -> None:
    codec, table = learnt(modality)
    whole = codec.encode(table).tokens
    parts = [codec.encode(table.slice(a, 20)).tokens for a in (0, 20, 40)]
    assert np.array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize("modality", catalog.MODALITIES)
def test_tables_without_the_columns_are_refused(modality: str) -> None:
    codec, _ = learnt(modality)
    with pytest.raises(SchemaMismatch, match="is missing"):
        codec.encode(pa.table({"other": [1]}))


@pytest.mark.parametrize(
    "modality", [m for m in catalog.MODALITIES if catalog.codec_class(m).details is not None]
)
def test_nulls_are_faults_and_explanations_have_their_columns(modality: str) -> None:
    codec, table = learnt(modality)
    records = codec.encode(table.take(pa.array([0, None, 2])))
    assert list(records.faults) == [1]
    entries = np.ones((60, codec.space.entries), np.float32)
    for given_ in (entries, None):
        found = codec.explain(table, given_)
        for field in (pa.field("why", WHY), *codec.details):
            assert len(pa.array(found[field.name], field.type)) == 60


@pytest.mark.parametrize("name", TABLES)
def test_decode_gives_back_the_schema_and_the_tokens(name: str) -> None:
    table = TABLES[name]()
    codec = TabularCodec.fit(table.to_batches(), table.schema)
    records = codec.encode(table)
    decoded = codec.decode(records.tokens, np.random.default_rng(0))
    assert decoded.schema.equals(table.schema, check_metadata=True)
    decoded.validate(full=True)
    expected, found = records.tokens.copy(), codec.encode(decoded).tokens
    for one in codec.related:  # what follows from other columns may lie in the cell beside its own
        follows = np.ix_(records.tokens[:, one.position] > 0, one.own)
        expected[follows] = found[follows]
    assert np.array_equal(found, expected)
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
    assert np.array_equal(codec.encode(decoded).tokens, records.tokens)
    often = {value for value in values if values.count(value) >= ATOM_ROWS or value is None}
    there = [value for value in values if value is not None]
    for value, drawn in zip(values, decoded.column(0).to_pylist(), strict=True):
        assert drawn == value if value in often else min(there) <= drawn <= max(there)


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
