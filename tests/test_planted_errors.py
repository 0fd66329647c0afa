"""The benchmark of planted errors in a small form: what a short fit finds, and what no model of single rows can."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from benchmarks import planted_errors
from benchmarks.planted_errors import KINDS, duplicated, found, planted, split
from genai_core.fitted import FittedModel
from jobs.flights_lake import read


@pytest.fixture(scope="module")
def flights() -> tuple[pa.Table, pa.Table]:
    return split(read(), 8000, 2000, seed=0)


@pytest.fixture(scope="module")
def model(flights: tuple[pa.Table, pa.Table]) -> FittedModel:
    return planted_errors.fit(flights[0], seed=0, epochs=1)


def test_errors_are_planted_as_they_are_described(flights: tuple[pa.Table, pa.Table]) -> None:
    rows, labels = planted(flights[1], seed=0)
    assert {name: (labels == name).sum() for kinds in KINDS.values() for name in kinds} == dict.fromkeys(
        (name for kinds in KINDS.values() for name in kinds), 20
    )
    assert rows.num_rows == 2000 + 20  # a row that is there twice counts twice
    assert rows.schema.equals(flights[1].schema)

    def of(name: str, column: str) -> np.ndarray:
        return rows[column].to_numpy()[labels == name]

    assert (of("minute above 59", "dep_time") % 100 > 59).all()
    assert (of("hour above 24", "sched_arr_time") >= 2500).all()
    assert set(of("origin and dest", "dest")) <= {"EWR", "JFK", "LGA"}
    assert of("air_time in seconds", "air_time").min() > 1200


def test_a_short_fit_finds_the_coarse_ones_and_few_false_ones(
    flights: tuple[pa.Table, pa.Table], model: FittedModel
) -> None:
    rows, labels = planted(flights[1], seed=0)
    shares = found(model, model.score_names[0], rows, labels)
    assert shares["swapped columns"]["origin and dest"] >= 0.9
    assert shares["unit slips"]["air_time in seconds"] >= 0.9
    assert shares["without a planted error"] <= 0.3
    assert shares["flagged"] >= 40


def test_a_row_that_is_there_twice_is_no_odd_row_but_a_count_finds_it(
    flights: tuple[pa.Table, pa.Table], model: FittedModel
) -> None:
    rows, labels = planted(flights[1], seed=0)
    assert found(model, model.score_names[0], rows, labels)["duplicated keys"]["the row twice"] <= 0.1
    assert duplicated(rows)[labels == "the row twice"].all() and duplicated(flights[1]).sum() == 0
