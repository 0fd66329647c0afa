"""Records as vectors: numbers keep order and distance, also of values that have no token of their own."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch

from genai_core.hyperparameters import TabularSettings
from genai_core.modalities.tabular import TabularCodec
from genai_core.tables.vectors import CLASSES, OFF_AXIS, fit_vectors, units_of, unknown, vectors

ROWS = 900


def fitted(table: pa.Table) -> tuple[TabularCodec, dict[str, torch.Tensor]]:
    codec = TabularCodec.fit(table.to_batches(), table.schema, TabularSettings(rare_below=0))
    return codec, fit_vectors(codec.space, torch.from_numpy(codec.encode(table).tokens.astype(np.int64)))


def numbers(codec: TabularCodec, view: dict[str, torch.Tensor], values) -> np.ndarray:
    records = codec.encode(pa.table({"x": pa.array(values, codec.schema.field("x").type)}))
    found = vectors(
        view, torch.from_numpy(records.tokens.astype(np.int64)), torch.from_numpy(records.log_measure)
    )
    return found.numbers[:, 0].numpy()


COLUMNS = {
    "continuous": np.random.default_rng(0).normal(3, 2, ROWS),
    "few rows": np.random.default_rng(1).normal(3, 2, 60),
    "whole numbers": np.random.default_rng(2).choice(np.arange(0, 100, 10), ROWS),
    "mostly zero": np.maximum(np.random.default_rng(3).normal(-1.3, 1, ROWS), 0.0),
}  # fmt: skip


@pytest.mark.parametrize("column", COLUMNS)
def test_any_value_has_its_place_between_its_neighbours(column: str) -> None:
    values = COLUMNS[column]
    codec, state = fitted(pa.table({"x": values}))
    low, high = float(values.min()), float(values.max())
    odd = np.linspace(low - (high - low), high + (high - low), 301)
    if column == "whole numbers":
        odd = np.rint(odd).astype(np.int64)  # most of them between the values seen
    found = numbers(codec, state, odd)
    # a cell has one place: values are told apart as far as its width
    assert (np.diff(found) >= -1e-3).all()
    assert found[0] < found[100] - 0.5 and found[-1] > found[200] + 0.5, "distance beyond the ends is kept"


def test_distances_beyond_the_range_are_standard_deviations() -> None:
    values = np.random.default_rng(2).choice([0, 10, 11, 50, 90], ROWS)
    codec, state = fitted(pa.table({"x": values}))
    ends = numbers(codec, state, np.array([0, 90]))
    odd = numbers(codec, state, np.array([-40, 250]))
    assert np.allclose(odd - ends, np.array([-40, 160]) / values.std(), atol=2e-3)


def test_values_off_the_grid_are_told_apart() -> None:
    values = np.random.default_rng(2).integers(0, 2, ROWS).astype(float)
    codec, view = fitted(pa.table({"x": values}))
    records = codec.encode(pa.table({"x": [0.0, 0.5, 1.0, 1.5]}))
    found = vectors(
        view, torch.from_numpy(records.tokens.astype(np.int64)), torch.from_numpy(records.log_measure)
    )
    assert found.codes[:, 0].tolist() == [0, OFF_AXIS, 0, 0]


def test_values_that_keep_coming_are_no_atoms() -> None:
    codec, _ = fitted(pa.table({"x": COLUMNS["few rows"]}))
    assert len(codec.columns[0].axes[0].atoms) == 0, "sixty different values say that the next is new"
    codec, _ = fitted(pa.table({"x": COLUMNS["whole numbers"]}))
    assert len(codec.columns[0].axes[0].atoms) == 10
    zeros, _ = fitted(pa.table({"x": COLUMNS["mostly zero"]}))
    assert zeros.columns[0].axes[0].atoms.tolist() == [0.0]


def test_missing_values_and_categories_have_codes() -> None:
    words = [f"w{i}" for i in np.random.default_rng(0).zipf(1.3, ROWS) % 700]
    table = pa.table({
        "x": pa.array(np.arange(ROWS), mask=np.arange(ROWS) % 5 == 0),
        "word": words,
        "when": pa.array(np.arange(ROWS) * 3_600_000_000, pa.timestamp("us")),
    })  # fmt: skip
    codec, view = fitted(table)
    assert [unit.field for unit in units_of(codec.space)] == [0, 1, 2, 2], "a timestamp has a day and a time"
    records = codec.encode(table)
    found = vectors(view, torch.from_numpy(records.tokens.astype(np.int64)), None)
    assert found.codes[::5, 0].unique().tolist() == [OFF_AXIS] and not found.codes[1, 0]
    assert int(found.codes[:, 1].max()) == CLASSES and int(found.codes[:, 1].min()) == 1
    assert (found.numbers[:, 1] == 0).all()
    assert not view["odd"][found.places].any()
    odd = codec.encode(pa.table({"x": [5], "word": ["never"], "when": table["when"][:1]}).cast(codec.schema))
    places = vectors(view, torch.from_numpy(odd.tokens.astype(np.int64)), None).places
    assert view["odd"][places][0].tolist() == [False, True, False, False]


def test_what_is_new_is_odd_only_where_little_is_new() -> None:
    """A new part number is expected (Good 1953), a new unit is not."""
    random = np.random.default_rng(0)
    table = pa.table({
        "part": [f"p{i}" for i in random.integers(0, ROWS, ROWS)],
        "unit": random.choice(["kg", "g"], ROWS),
    })  # fmt: skip
    codec, view = fitted(table)
    new = codec.encode(pa.table({"part": ["never"], "unit": ["lb"]}))
    part, unit = unknown(view, vectors(view, torch.from_numpy(new.tokens.astype(np.int64)), None))[0].tolist()
    assert part < 0.3 and unit > 0.9
