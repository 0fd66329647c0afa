"""Exactly the rows that Benjamini-Hochberg over all rows flags, sorted, however they are cut into shards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.outputs import footer as footers
from pipelines.outputs.sink import Sink
from pipelines.plan import Shard
from pipelines.scoring import anomalies
from pipelines.scoring.anomalies import Question, discovery_threshold, list_anomalies
from pipelines.scoring.scored_rows import P_VALUE

CALIBRATION = 49
SCHEMA = pa.schema(
    {"name": pa.dictionary(pa.int32(), pa.string()), "score": pa.float64(), P_VALUE: pa.float64()}
)


def scored(shards: list[np.ndarray], path: Path, fdr: float | None) -> tuple[Sink, pa.Table]:
    """Shards with the scores given; p-values as conformal calibration with 49 scores would give them."""
    sink, tables = Sink(str(path)), []
    for number, scores in enumerate(shards):
        ranks = 1 + np.maximum(CALIBRATION - np.floor(np.nan_to_num(scores, nan=np.inf)), 0)
        p_values = ranks / (CALIBRATION + 1)
        names = pa.array([f"{number}/{i}" for i in range(len(scores))]).dictionary_encode()
        table = pa.table([names, scores, p_values], schema=SCHEMA)
        small, counts = np.unique(ranks[p_values <= (fdr or 0)], return_counts=True)
        pairs = [[int(rank), int(count)] for rank, count in zip(small, counts, strict=True)]
        sink.write_shard(
            Shard(number, 0, len(scores)), table, {}, {"ranks": CALIBRATION + 1, "p_counts": pairs}
        )
        tables.append(table)
    return sink, pa.concat_tables(tables)


def flagged(sink: Sink, **asked: Any) -> tuple[dict[str, Any], list[str]]:
    question = Question(**{"score": "score", "fdr": None, "top_k": None, "schema": SCHEMA, **asked})
    summary, _ = list_anomalies(sink, {"job_id": "score-1"}, question)
    found = pq.read_table(sink.path("_anomalies.parquet"))
    assert found.schema.equals(SCHEMA)
    assert summary["flagged"] == found.num_rows
    return summary, found.column("name").to_pylist()


def textbook(p_values: np.ndarray, level: float) -> np.ndarray:
    """Benjamini & Hochberg 1995, row by row."""
    order = np.argsort(p_values, kind="stable")
    passing = p_values[order] <= level * np.arange(1, len(order) + 1) / len(order) * (1 + 1e-12)
    last = np.flatnonzero(passing)
    return p_values <= (p_values[order][last[-1]] if len(last) else -1)


ROWS = st.lists(st.lists(st.floats(0, 60, width=16), max_size=30), min_size=1, max_size=4)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ROWS, st.sampled_from([0.02, 0.1, 0.3, 0.6]))
def test_discoveries_are_those_of_the_textbook(
    tmp_path_factory: pytest.TempPathFactory, shards: list[list[float]], level: float
) -> None:
    sink, everything = scored([np.array(s, float) for s in shards], tmp_path_factory.mktemp("out"), level)
    summary, names = flagged(sink, fdr=level)
    p_values = everything.column(P_VALUE).to_numpy()
    expected = everything.filter(pa.array(textbook(p_values, level), pa.bool_()))
    assert sorted(names) == sorted(expected.column("name").to_pylist())
    assert summary["p_threshold"] == pytest.approx(max(expected.column(P_VALUE).to_pylist(), default=0))


def test_the_most_anomalous_stand_first_and_ties_in_the_order_of_the_rows(tmp_path: Path) -> None:
    sink, _ = scored([np.array([55.0, 49, 1]), np.array([]), np.array([49.0, np.nan, 58])], tmp_path, 0.3)
    assert flagged(sink, fdr=0.3)[1] == ["2/1", "2/2", "0/0", "0/1", "2/0"]
    assert flagged(sink, fdr=0.3, top_k=2)[1] == ["2/1", "2/2"]


def test_many_ties_keep_the_order_of_the_rows(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    sink, everything = scored([random.integers(50, 53, n).astype(float) for n in (300, 200)], tmp_path, None)
    ranked = sorted(everything.to_pylist(), key=lambda row: -row["score"])
    assert flagged(sink, top_k=450)[1] == [row["name"] for row in ranked[:450]]


def test_top_k_lists_the_highest_scores_of_all_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(anomalies, "CHUNK_ROWS", 7)  # of a file read, and of the list written, at once
    random = np.random.default_rng(0)
    shards = [random.normal(size=n) for n in (100, 0, 57, 3)]
    sink, everything = scored(shards, tmp_path, None)
    summary, names = flagged(sink, top_k=20)
    assert names == everything.sort_by([("score", "descending")]).column("name").to_pylist()[:20]
    assert "p_threshold" not in summary
    assert "fdr" not in summary
    assert len(flagged(sink, top_k=1000)[1]) == 160


def test_the_list_tells_where_it_comes_from(tmp_path: Path) -> None:
    sink, _ = scored([np.array([1.0, 2])], tmp_path, None)
    flagged(sink, top_k=1)
    found = footers.read(pafs.LocalFileSystem(), str(tmp_path / "_anomalies.parquet"))
    assert found is not None
    assert found["role"] == "anomalies"
    assert found["job_id"] == "score-1"
    assert found["top_k"] == 1


def test_the_threshold_needs_no_rows_only_counts(tmp_path: Path) -> None:
    sink, _ = scored([np.array([50.0] * 10 + [0.0] * 90)], tmp_path, 0.25)
    assert discovery_threshold(sink, 0.25) == (pytest.approx(1 / 50), 50)
    assert discovery_threshold(Sink(str(tmp_path / "empty")), 0.25) == (0, 1)
