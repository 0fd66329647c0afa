"""Feedback: rejected rows are not listed again, many rejections raise the cut, and lineage says whose word it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from genai_core.errors import InvalidData
from pipelines import lake, score
from pipelines.context import Context
from pipelines.lake import LakeJob
from pipelines.lakes.lake_log import LakeLog
from pipelines.score import ScoreJob
from pipelines.scoring.feedback import read_labels, sharpened

NLL = "negative_log_likelihood"
QUIET = Context(log=lambda text: None)


@pytest.mark.parametrize(
    ("accepted", "cut"),
    [
        ([True, True, True, True], None),  # nothing was a false alarm
        ([True, True, False, False], 3.0),  # scores 4, 3, 2, 1
        ([True, False, True, True], 4.0),
        ([False, True, True, True], np.nextafter(4.0, 9)),  # even the highest
        ([], None),
    ],
)
def test_the_cut_is_the_lowest_score_above_which_few_were_rejected(
    accepted: list[bool], cut: float | None
) -> None:
    scores = np.arange(len(accepted), 0, -1, dtype=float)
    assert sharpened(scores, np.array(accepted, bool), 0.1) == cut
    shuffled = np.random.default_rng(0).permutation(len(accepted))
    assert sharpened(scores[shuffled], np.array(accepted, bool)[shuffled], 0.1) == cut


def test_rows_of_equal_score_fall_on_one_side_of_the_cut() -> None:
    scores, accepted = np.array([3.0, 2.0, 2.0, 2.0]), np.array([True, True, True, False])
    assert sharpened(scores, accepted, 0.1) == 3.0 and sharpened(scores, accepted, 0.3) is None


@pytest.fixture
def spec(workplace: Path, small_model: Path, small_table: pa.Table) -> dict[str, Any]:
    """Rows of which fifty are strange; what a job was asked and found first."""
    delays = small_table["delay"].to_numpy().copy()
    delays[::12] = 1e6 + np.arange(50) * 1e5
    table = small_table.set_column(1, "delay", pa.array(delays)).append_column("id", pa.array(range(600)))
    Path("lake").mkdir()
    pq.write_table(table, "lake/a.parquet")
    source = {"kind": "parquet", "path": "lake"}
    return {"model": str(small_model), "source": source, "scores": [NLL], "fdr": 0.3, "keep": ["id"],
            "track": {"enabled": False}}  # fmt: skip


def run(spec: dict[str, Any], out: str, **changes: Any) -> tuple[dict[str, Any], pa.Table]:
    job = ScoreJob.model_validate({**spec, "sink": {"path": out}, **changes})
    score.check(job, QUIET)
    return score.run(job, QUIET), pq.read_table(f"{out}/_anomalies.parquet")


def judged(listed: pa.Table, rejected: list[bool | None]) -> pa.Table:
    words = pa.array([{True: "reject", False: "accept", None: None}[one] for one in rejected], pa.string())
    return listed.append_column("label", words)


def test_what_was_rejected_is_not_listed_again_and_lineage_says_so(spec: dict[str, Any]) -> None:
    result, listed = run(spec, "first")
    assert "feedback" not in result and listed.num_rows >= 50
    labels = judged(listed.slice(0, 40), [True] + [False] * 39)
    pq.write_table(labels, "labels.parquet")
    result, again = run(spec, "second", labels="labels.parquet")
    gone = set(listed["id"].to_pylist()) - set(again["id"].to_pylist())
    assert gone == {listed["id"][0].as_py()}
    manifest = json.loads(Path("second/_MANIFEST.json").read_text())
    facts = manifest["summary"]["feedback"]
    assert (facts["accepted"], facts["rejected"], facts["no_longer_there"]) == (39, 1, 0)
    assert (
        facts["digest"]
        == read_labels("labels.parquet").digest
        == manifest["provenance"]["spec"]["labels_digest"]
    )


def test_many_rejections_raise_the_cut_and_labels_may_be_csv(spec: dict[str, Any]) -> None:
    _, listed = run(spec, "first")
    some = judged(listed, [False if i < 20 else True if i < 40 else None for i in range(listed.num_rows)])
    pacsv.write_csv(some.select(["source_file", "source_row", "label"]).set_column(
        0, "source_file", some["source_file"].cast(pa.string())), "labels.csv")  # fmt: skip
    result, again = run(spec, "second", labels="labels.csv")
    scores = listed[NLL].to_numpy()
    cut = result["feedback"]["cut"]
    assert cut == pytest.approx(scores[27])  # 8 rejected of 28 are less than 0.3 of them, 9 of 29 are more
    assert again["id"].to_pylist() == listed["id"].to_pylist()[:20]
    other, _ = run(spec, "third", labels="labels.csv", fdr=None, top_k=30)
    assert other["feedback"]["cut"] is None and other["flagged"] == 30


def test_labels_outlive_rows_and_models_of_a_lake(spec: dict[str, Any]) -> None:
    job = LakeJob.model_validate({**spec, "job": "lake", "sink": {"path": "out"}})
    first = lake.run(job, QUIET)
    listed = pq.read_table(Path("out", first["run"], "_anomalies.parquet"))
    rows = [*listed.slice(0, 5).select(["source_file", "source_row"]).to_pylist(),
            {"source_file": "gone.parquet", "source_row": 3}]  # fmt: skip
    pq.write_table(pa.Table.from_pylist([{**row, "label": "reject"} for row in rows]), "labels.parquet")
    table = pq.read_table("lake/a.parquet")
    pq.write_table(table.filter(pc.field("id") < 400), "lake/b.parquet")
    second = lake.run(job.model_copy(update={"labels": "labels.parquet"}), QUIET)
    assert second["feedback"]["no_longer_there"] == 1 and second["feedback"]["rejected"] == 6
    assert LakeLog("out").newest()["feedback"]["digest"] == read_labels("labels.parquet").digest
    assert second["flagged"] < 5  # nothing below what was rejected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("source_file,label\na,accept\n", "no column source_row; needed are"),
        (
            "source_file,source_row,label\na,1,maybe\n",
            "row 1 says 'maybe' of a row 1; accepted are accept, reject",
        ),
        ("source_file,source_row,label\na,x,accept\n", "cannot be read as CSV or Parquet"),
        (None, "does not exist"),
    ],
)
def test_labels_that_cannot_be_read_are_refused_before_work(
    spec: dict[str, Any], text: str | None, message: str
) -> None:
    if text is not None:
        Path("labels.csv").write_text(text)
    job = ScoreJob.model_validate({**spec, "sink": {"path": "out"}, "labels": "labels.csv"})
    for act in (score.check, score.run):
        with pytest.raises(InvalidData, match=message):
            act(job, QUIET)
    assert not Path("out").exists()
