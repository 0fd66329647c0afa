"""Drift told apart from anomalies: single odd rows are none, a bulk that moves is, and chance is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from genai_core import fit, load
from genai_core.calibration import Calibration
from genai_core.drift import MIN_ROWS, Profile, column_shift, p_histogram, score_shift

HELD_OUT = 2000


def shift_of(scores: np.ndarray, seed: int = 0):
    held_out = np.random.default_rng([seed, 1]).normal(size=HELD_OUT)
    return score_shift(p_histogram(Calibration(held_out).p_values(scores)), HELD_OUT)


def test_a_histogram_of_p_values_counts_each_row_once() -> None:
    p_values = np.array([1 / 2001, 0.01, 0.0101, 0.5, 1.0, np.nan])
    counts = p_histogram(p_values)
    assert counts.sum() == 5
    assert (counts[0], counts[1], counts[49], counts[99]) == (2, 1, 1, 1)


@pytest.mark.parametrize("anomalies", [0.0, 0.05, 0.3])
def test_rows_that_are_odd_one_by_one_are_no_drift(anomalies: float) -> None:
    called = 0
    for seed in range(60):
        random = np.random.default_rng(seed)
        scores = random.normal(size=int(random.integers(60, 4000)))
        scores[: int(anomalies * len(scores))] += 8
        called += shift_of(scores, seed).moved(1)
    assert called <= 2  # 0.6 expected at the most, were SHIFT 0


@pytest.mark.parametrize(("by", "upwards"), [(0.6, True), (1.5, True), (20.0, True), (-0.6, False)])
def test_a_bulk_that_moves_is_drift(by: float, upwards: bool) -> None:
    for seed in range(20):
        scores = np.random.default_rng(seed).normal(size=1000) + by
        shift = shift_of(scores, seed)
        assert shift.moved(100) and shift.upwards == upwards


def test_few_rows_say_nothing_and_many_do_not_make_a_small_shift_large() -> None:
    assert shift_of(np.full(MIN_ROWS - 1, 9.0)) is None
    small = shift_of(np.random.default_rng(0).normal(size=300_000) + 0.1)
    assert small.p < 1e-3 and not small.moved(1)


def test_columns_are_compared_with_the_held_out_rows_of_the_training(tmp_path: Path) -> None:
    random = np.random.default_rng(0)

    def table(rows: int, mean: float, towns: str) -> pa.Table:
        town = pa.array(random.choice(list(towns), rows))
        size = pa.array(random.normal(mean, 1, rows), mask=random.random(rows) < 0.05)
        return pa.table({"town": town, "size": size, "n": random.integers(0, 9, rows)})

    fitted = fit(table(3000, 0, "ABC"), max_epochs=1, model={"context": 16, "hidden": 8, "embedding": 4})
    fitted.save(tmp_path)
    model = load(tmp_path)
    assert [c.sum() for c in model.profile.counts] == [len(model.calibrations[model.score_names[0]])] * 3

    def moved(rows: pa.Table) -> set[str]:
        profile: Profile = model.profile
        shifts = profile.shifts(profile.count(model.codec.encode(rows).tokens))
        return {name for name, shift in shifts.items() if shift.moved(len(shifts))}

    assert moved(table(1000, 0, "ABC")) == set()
    assert moved(table(1000, 0.7, "ABC")) == {"size"}
    assert moved(table(1000, 0, "AABC")) == {"town"}
    assert moved(table(1000, 0, "ABCD")) == {"town"}  # never seen
    assert moved(table(1000, 0, "ABC").set_column(1, "size", pa.nulls(1000, pa.float64()))) == {"size"}


def test_the_same_distribution_is_never_called_moved_among_many_columns() -> None:
    random = np.random.default_rng(0)
    p = random.dirichlet(np.ones(20))
    for rows in (60, 300, 5000):
        shifts = [column_shift(random.multinomial(rows, p), random.multinomial(2000, p)) for _ in range(200)]
        assert not any(shift.moved(200) for shift in shifts)
        assert np.mean([shift.size for shift in shifts]) < 0.05
