"""Reasons name the largest shares with the values that stand there, and only for the rows that were chosen."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pyarrow as pa

from pipelines.scoring.explanations import REASONS_PER_ROW, TEXT_LENGTH, WHY, as_text, explain, reason_text


def test_the_largest_shares_of_the_chosen_rows_with_their_values() -> None:
    table = pa.table(
        {"a": [1, 2, 3, 4], "b": ["w", None, "y", "z"], "other": [0] * 4, "c": [0.5, 1.5, 2.5, 3.5]}
    )
    shares = np.array([[9, 9, 9], [1, 3, 2], [9, 9, 9], [5, -1, 5]], np.float32)
    why = explain(table, shares, ["a", "b", "c"], np.array([1, 3]))
    assert why.type == WHY
    found = why.to_pylist()
    assert {reason.pop("expected") for row in found if row for reason in row} == {None}
    assert found == [
        None,
        [
            {"column": "b", "nats": 3.0, "value": None},
            {"column": "c", "nats": 2.0, "value": "1.5"},
            {"column": "a", "nats": 1.0, "value": "2"},
        ],
        None,
        [
            {"column": "a", "nats": 5.0, "value": "4"},
            {"column": "c", "nats": 5.0, "value": "3.5"},
            {"column": "b", "nats": -1.0, "value": "z"},
        ],
    ]


def test_wide_tables_give_the_first_few() -> None:
    columns = [f"c{i}" for i in range(40)]
    table = pa.table({name: [i] for i, name in enumerate(columns)})
    (reasons,) = explain(table, np.arange(40.0)[None], columns, np.array([0])).to_pylist()
    assert [reason["column"] for reason in reasons] == ["c39", "c38", "c37", "c36", "c35"]
    assert len(reasons) == REASONS_PER_ROW


def test_nothing_chosen_and_scores_without_columns() -> None:
    table = pa.table({"a": [1, 2]})
    assert explain(table, np.ones((2, 1)), ["a"], np.array([], np.int64)).to_pylist() == [None, None]
    assert explain(table, None, [], np.array([0])).to_pylist() == [None, None]
    assert explain(table.slice(0, 0), np.ones((0, 1)), ["a"], np.array([], np.int64)).to_pylist() == []


def test_every_type_reads_as_text() -> None:
    moment = dt.datetime(2013, 1, 1, 5)
    texts = {
        "boolean": (pa.array([True]), "true"),
        "time": (pa.array([moment], pa.timestamp("us")), "2013-01-01 05:00:00.000000"),
        "zoned": (pa.array([moment], pa.timestamp("s", "UTC")), "2013-01-01 05:00:00Z"),
        "dictionary": (pa.array(["x"]).dictionary_encode(), "x"),
        "decimal": (pa.array(["1.50"]).cast(pa.decimal128(5, 2)), "1.50"),
        "bytes": (pa.array([b"\xff"]), r"b'\xff'"),
        "large": (pa.array(["é"], pa.large_string()), "é"),
        "view": (pa.array(["é"], pa.string_view()), "é"),
        "duration": (pa.array([90], pa.duration("s")), "0:01:30"),
        "nothing": (pa.nulls(1), None),
    }
    assert {name: as_text(array)[0].as_py() for name, (array, _) in texts.items()} == {
        name: text for name, (_, text) in texts.items()
    }
    assert len(as_text(pa.array(["x" * 5000]))[0].as_py()) == TEXT_LENGTH


def test_what_would_be_expected_stands_beside_and_in_the_sentence() -> None:
    table = pa.table({"a": [1, 2], "b": ["x", None]})
    shares = np.array([[1, 2], [3, 4]], np.float32)
    usual = lambda rows, names: {"b": pa.array(["q"] * rows.num_rows)}  # noqa: E731
    (_, why) = explain(table, shares, ["a", "b"], np.array([1]), usual).to_pylist()
    assert [reason["expected"] for reason in why] == ["q", None]
    assert [reason_text(reason) for reason in why] == ["b missing: 4.0 nats, expected q", "a 2: 3.0 nats"]
    assert reason_text({"column": "b", "nats": 1.0, "value": "q", "expected": "q"}) == "b q: 1.0 nats"
