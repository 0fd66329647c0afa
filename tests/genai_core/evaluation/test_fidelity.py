"""fidelity.py: known distances, honest ceilings, and the columns that give a table away."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest

from genai_core.errors import InvalidData, SchemaMismatch
from genai_core.evaluation.coding import code_column, code_tables
from genai_core.evaluation.fidelity import column_shape, compare, likeness, pair_trends
from tests.genai_core.evaluation.test_coding import COLUMNS


def draw(rows: int, seed: int, *, related: bool = True, nulls: float = 0.1) -> pa.Table:
    generator = np.random.default_rng(seed)
    x = generator.normal(size=rows)
    y = x + 0.1 * generator.normal(size=rows) if related else generator.normal(size=rows)
    text = np.array([f"v{n}" for n in generator.zipf(1.3, rows) % 5000])
    absent = generator.random(rows) < nulls
    return pa.table({
        "x": pa.array(x),
        "y": pa.array(y, mask=absent),
        "text": pa.array(text),
        "flag": pa.array(generator.random(rows) < 0.2),
    })  # fmt: skip


def shape(first: list, second: list) -> float:
    return column_shape(code_column("c", pa.chunked_array([first]), pa.chunked_array([second])))


def test_column_shape_is_one_minus_kolmogorov_smirnov_for_ordered_columns() -> None:
    assert shape([1, 2, 3, 4], [1, 2, 3, 4]) == 1
    assert shape([1, 2, 3, 4], [3, 4, 5, 6]) == pytest.approx(0.5)
    assert shape([1.0, 2.0], [8.0, 9.0]) == 0


def test_column_shape_is_one_minus_total_variation_for_unordered_columns() -> None:
    assert shape(["a", "b"], ["a", "b"]) == 1
    assert shape(["a", "a", "b", "b"], ["a", "a", "a", "c"]) == pytest.approx(0.5)
    assert shape([True], [False]) == 0


def test_missing_values_count() -> None:
    assert shape([1, 2, None, None], [1, 2, 2, 1]) == pytest.approx(0.5)
    assert shape(["a", None], ["a", "a"]) == pytest.approx(0.5)


def test_pair_trends_see_a_broken_relation_that_column_shapes_do_not() -> None:
    real, broken = draw(4000, 0), draw(4000, 1, related=False)
    found, ceiling = likeness(real, broken), likeness(real, draw(4000, 2))
    assert found.column_shapes == pytest.approx(ceiling.column_shapes, abs=0.02)
    assert found.pair_trends is not None and ceiling.pair_trends is not None
    assert found.pair_trends < ceiling.pair_trends - 0.05
    assert found.c2st_auc > 0.9


def test_pair_trends_of_a_single_column_are_not_defined() -> None:
    table = draw(100, 0).select(["x"])
    assert pair_trends(code_tables(table, table)) is None


def test_samples_of_one_distribution_are_not_told_apart() -> None:
    """Also not by a 5,000-value column: its codes must not say which sample a value came from."""
    fidelity = compare(draw(6000, 0), draw(6000, 1), draw(6000, 2), rows=5000)
    assert fidelity.synthetic.c2st_auc == pytest.approx(0.5, abs=0.03)
    assert fidelity.real.c2st_auc == pytest.approx(0.5, abs=0.03)
    assert fidelity.synthetic.column_shapes == pytest.approx(fidelity.real.column_shapes, abs=0.02)


def test_the_column_that_gives_it_away_is_named_first() -> None:
    synthetic = draw(3000, 1)
    synthetic = synthetic.set_column(0, "x", pa.array(np.round(synthetic["x"].to_numpy(), 1)))
    giveaways = compare(draw(3000, 0), synthetic, draw(3000, 2)).synthetic.giveaways
    assert giveaways[0].column == "x"
    assert giveaways[0].auc_drop > 0.2


def test_a_different_share_of_missing_values_is_told_apart() -> None:
    found = likeness(draw(3000, 0, nulls=0.0), draw(3000, 1, nulls=0.9), explain=1)
    assert found.c2st_auc > 0.9
    assert found.giveaways[0].column == "y"


def test_same_seed_same_answer_and_all_samples_have_one_size() -> None:
    tables = draw(900, 0), draw(800, 1), draw(700, 2)
    first, second = compare(*tables, seed=3), compare(*tables, seed=3)
    assert first == second
    assert first.synthetic.rows == first.real.rows == 700
    assert compare(*tables, seed=3, rows=300).real.rows == 300


def test_every_arrow_type_is_compared() -> None:
    table = pa.table({name: pa.concat_arrays([column] * 20) for name, column in COLUMNS.items()})
    fidelity = compare(table, table, table)
    assert fidelity.synthetic.column_shapes == 1
    assert fidelity.synthetic.pair_trends == 1
    json.dumps(fidelity.as_dict(), allow_nan=False)


def test_constant_and_empty_columns_do_not_tell_anything() -> None:
    table = pa.table({"one": [1] * 50, "none": pa.nulls(50)})
    assert likeness(table, table).c2st_auc == 0.5


@pytest.mark.parametrize(
    ("tables", "error", "said"),
    [
        ((draw(5, 0), draw(5, 1), draw(5, 2)), InvalidData, "at least 10 of each"),
        ((draw(50, 0).slice(50), draw(50, 1), draw(50, 2)), InvalidData, "no rows"),
        ((draw(50, 0), draw(50, 1).drop_columns(["x"]), draw(50, 2)), SchemaMismatch, "'x'"),
        ((draw(50, 0).select([]), draw(50, 1).select([]), draw(50, 2).select([])), InvalidData, "no "),
    ],
)
def test_what_cannot_be_compared_is_refused(tables: tuple, error: type, said: str) -> None:
    with pytest.raises(error, match=said):
        compare(*tables)
