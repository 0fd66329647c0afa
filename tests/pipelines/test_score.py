"""Score jobs: every row that passes the filter once, scores and p-values the model's own, what stands out explained."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from genai_core import load
from genai_core.errors import InvalidData, InvalidInput, JobFailed, MissingCapability, SchemaMismatch
from pipelines import score
from pipelines.context import Context
from pipelines.score import TOP_K, ScoreJob
from pipelines.scoring.explanations import WHY

NLL = "negative_log_likelihood"


@pytest.fixture
def lake(workplace: Path, small_table: pa.Table) -> pa.Table:
    """Some of the training rows in two files, ten of them strange."""
    delays = small_table.column("delay").to_numpy()[:200].copy()
    delays[::20] = 1e6
    table = small_table.slice(0, 200).set_column(1, "delay", pa.array(delays))
    table = table.append_column("id", pa.array(range(table.num_rows)))
    for part, start, rows in ((1, 0, 120), (2, 120, 80)):
        folder = workplace / "lake" / f"part={part}"
        folder.mkdir(parents=True)
        pq.write_table(table.slice(start, rows), folder / "x.parquet", row_group_size=50)
    return table


@pytest.fixture
def spec(small_model: Path, lake: pa.Table) -> dict[str, Any]:
    source = {"kind": "parquet", "path": "lake"}
    fields = {"model": str(small_model), "source": source, "scores": [NLL], "rows_per_shard": 80}
    return {**fields, "track": {"enabled": False}}


def job(spec: dict[str, Any], out: str = "out", **changes: Any) -> ScoreJob:
    return ScoreJob.model_validate({"sink": {"path": out}, **spec, **changes})


def run(spec: dict[str, Any], out: str = "out", **changes: Any) -> dict[str, Any]:
    return score.run(job(spec, out, **changes), Context(log=lambda text: None))


def output(out: str = "out") -> pa.Table:
    return pa.concat_tables([pq.read_table(path) for path in sorted(Path(out, "data").iterdir())])


def test_every_row_once_with_the_models_own_scores(
    spec: dict[str, Any], lake: pa.Table, small_model: Path
) -> None:
    result = run(spec, keep=["id", "part", "carrier"])
    found = output()
    assert result["rows"] == found.num_rows == 200
    assert result["shards"] == 3
    assert found.schema.names == ["id", "part", "carrier", "source_file", "source_row", NLL, "p_value", "why"]
    assert found.schema.field("carrier").type == lake.schema.field("carrier").type
    assert found.schema.field("why").type == WHY
    model = load(small_model)
    scores = model.score(lake, [NLL]).totals[NLL]
    np.testing.assert_array_equal(found.column(NLL).to_numpy(), scores)
    np.testing.assert_array_equal(found.column("p_value").to_numpy(), model.p_values(NLL, scores))
    places = zip(found.column("source_file").to_pylist(), found.column("source_row").to_pylist(), strict=True)
    starts = {"part=1/x.parquet": 0, "part=2/x.parquet": 120}
    assert [starts[file] + row for file, row in places] == found.column("id").to_pylist() == list(range(200))


def test_the_filter_takes_rows_and_their_numbers_stay(spec: dict[str, Any]) -> None:
    source = {**spec["source"], "filter": "part == 2 and id >= 190"}
    run(spec, source=source, keep=["id"])
    assert output().column("source_row").to_pylist() == list(range(70, 80))
    assert output().column("id").to_pylist() == list(range(190, 200))


def test_false_discovery_control_flags_the_strange_rows_and_says_why(spec: dict[str, Any]) -> None:
    result = run(spec, fdr=0.5, keep=["id"])
    listed = pq.read_table("out/_anomalies.parquet")
    assert listed.schema.equals(output().schema)
    assert set(range(0, 200, 20)) <= set(listed.column("id").to_pylist())
    assert listed.column(NLL).to_pylist() == sorted(listed.column(NLL).to_pylist(), reverse=True)
    assert result["flagged"] == listed.num_rows
    assert max(listed.column("p_value").to_pylist()) == result["p_threshold"]
    reasons = [row["why"][0] for row in listed.to_pylist() if row["id"] % 20 == 0]
    assert {reason["column"] for reason in reasons} == {"delay"}
    assert {float(reason["value"]) for reason in reasons} == {1e6}
    explained = output().filter(pa.compute.is_valid(output().column("why")))
    assert max(explained.column("p_value").to_pylist()) <= 0.5


def test_without_a_rate_the_highest_scores_are_listed_and_nothing_is_claimed(spec: dict[str, Any]) -> None:
    result = run(spec)
    assert result["flagged"] == TOP_K
    assert "p_threshold" not in result
    run(spec, "few", top_k=3, keep=["id"])
    listed = pq.read_table("few/_anomalies.parquet")
    assert listed.num_rows == 3
    best = output("few").sort_by([(NLL, "descending")]).slice(0, 3)
    assert listed.column(NLL).to_pylist() == best.column(NLL).to_pylist()
    assert all(row["why"] for row in listed.to_pylist())


def test_how_rows_are_cut_into_shards_does_not_matter(spec: dict[str, Any]) -> None:
    run(spec, "small", rows_per_shard=13, fdr=0.5)
    run(spec, "large", rows_per_shard=1000, fdr=0.5)
    small, large = output("small"), output("large")
    assert small.to_pylist() == large.to_pylist()
    lists = [pq.read_table(f"{out}/_anomalies.parquet").to_pylist() for out in ("small", "large")]
    assert lists[0] == lists[1] != []


def test_the_manifest_says_what_was_scored_with_what(spec: dict[str, Any], small_model: Path) -> None:
    result = run(spec, fdr=0.2)
    manifest = json.loads(Path("out/_MANIFEST.json").read_text())
    provenance = manifest["provenance"]
    assert provenance["synthetic"] is False
    assert provenance["source"]["path"] == "lake"
    assert provenance["source"]["digest"].startswith("sha256:")
    assert provenance["model"]["digest"] == load(small_model).digest
    assert manifest["summary"]["flagged"] == result["flagged"]
    assert result["smallest_p"] == pytest.approx(1 / (load(small_model).calibration_size(NLL) + 1))


def test_a_file_that_changes_meanwhile_is_quarantined(
    spec: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = score.plan_scoring

    def planning(*args: Any) -> Any:
        plan = planned(*args)
        table = pq.read_table("lake/part=2/x.parquet", partitioning=None)
        pq.write_table(table.slice(1), "lake/part=2/x.parquet")
        return plan

    monkeypatch.setattr(score, "plan_scoring", planning)
    with pytest.raises(JobFailed, match="has changed since the job was planned"):
        run(spec)
    assert not Path("out/_MANIFEST.json").exists()
    assert list(Path("out/_quarantine").iterdir())


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"scores": ["reconstruction"]},
            MissingCapability,
            "cannot give the score 'reconstruction'; it can give: ensemble",
        ),
        (
            {"scores": ["negative_log_likelyhood"]},
            MissingCapability,
            "did you mean 'negative_log_likelihood'",
        ),
        ({"sink": {"path": "lake/scores"}}, InvalidInput, "lies in the source lake"),
        ({"keep": ["idd"]}, InvalidInput, "no column 'idd'; did you mean 'id'"),
        ({"source": {"kind": "parquet", "path": "nowhere"}}, InvalidData, "does not exist"),
        (
            {"source": {"kind": "parquet", "path": "lake", "filter": "id > 1000"}},
            InvalidData,
            "no row of lake passes",
        ),
        ({"source": {"kind": "parquet", "path": "lake", "columns": ["id"]}}, SchemaMismatch, "origin"),
        ({"source": {"kind": "parquet", "path": "retyped"}}, SchemaMismatch, "delay"),
        (
            {"source": {"kind": "parquet", "path": "taken"}, "keep": ["why"]},
            InvalidInput,
            "a column 'why' of its own",
        ),
    ],
)
def test_what_cannot_work_is_refused_by_check_and_by_run_and_nothing_is_written(
    spec: dict[str, Any], lake: pa.Table, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    for folder, column, values in (("retyped", "delay", ["x"] * 200), ("taken", "why", ["x"] * 200)):
        Path(folder).mkdir()
        table = lake.drop([column]) if column in lake.schema.names else lake
        pq.write_table(table.append_column(column, pa.array(values)), f"{folder}/x.parquet")
    before = sorted(Path().rglob("*"))
    for act in (score.check, score.run):
        with pytest.raises(error, match=message):
            act(job(spec, **changes), Context(log=lambda text: None))
    assert sorted(Path().rglob("*")) == before


def test_without_names_the_default_of_the_model_is_given(spec: dict[str, Any], lake: pa.Table) -> None:
    result = run({**spec, "scores": None}, fdr=0.5, keep=["id"])
    names = list(load(Path(spec["model"])).score_names)[:1]
    assert output().schema.names == ["id", "source_file", "source_row", *names, "p_value", "why"]
    assert result["score"] == names[0]
    listed = pq.read_table("out/_anomalies.parquet").to_pylist()
    strange = [row for row in listed if row["id"] % 20 == 0]
    assert len(strange) == 10 and {row["why"][0]["column"] for row in strange} == {"delay"}
    for row in strange:  # columns that are shown add up to no more than the score
        assert sum(reason["nats"] for reason in row["why"]) <= row[names[0]] + 1e-6


def test_rows_that_share_a_key_are_listed_over_all_shards(
    spec: dict[str, Any], lake: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.scoring.duplicates.ROWS", 70)  # several passes over 208 rows
    again = lake.slice(3, 8)
    ids = pa.array([3, 4, 4, None, None, 900, 901, 902], pa.int64())
    again = again.set_column(again.column_names.index("id"), "id", ids)
    Path("lake/part=3").mkdir()
    pq.write_table(again, "lake/part=3/x.parquet")
    result = run(spec, unique=["id", "part"], out="by_two")
    assert result["duplicated_rows"] == 2 and "id" in output("by_two").column_names
    result = run(spec, unique=["id"])
    found = (
        pq.read_table("out/_duplicates.parquet")
        .select(["id", "source_file", "source_row", "copies"])
        .to_pylist()
    )
    third = "part=3/x.parquet"
    assert result["duplicated_rows"] == 5 and [tuple(row.values()) for row in found] == [
        (3, "part=1/x.parquet", 3, 2), (3, third, 0, 2),
        (4, "part=1/x.parquet", 4, 3), (4, third, 1, 3), (4, third, 2, 3),
    ]  # fmt: skip


def test_a_key_that_no_row_shares(spec: dict[str, Any], lake: pa.Table) -> None:
    assert run(spec, unique=["id"])["duplicated_rows"] == 0
    assert pq.read_table("out/_duplicates.parquet").num_rows == 0
    with pytest.raises(InvalidInput, match="idd"):
        score.check(job(spec, out="other", unique=["idd"]), Context())


def test_check_says_what_will_happen(spec: dict[str, Any]) -> None:
    facts = score.check(job(spec), Context())
    assert f"scores: {NLL}" in facts
    assert "source: 200 rows before the filter in 2 file(s)" in facts
    assert "output: out (free)" in facts
    assert not Path("out").exists()


def test_a_source_that_an_earlier_job_will_write_is_taken_on_trust(spec: dict[str, Any]) -> None:
    earlier = type("Generate", (), {"sink": type("Sink", (), {"path": "later"})})
    facts = score.check(
        job(spec, source={"kind": "parquet", "path": "later/data"}), Context(earlier=[earlier])
    )
    assert "source: later/data, which a job above will write" in facts


def test_csv_rows_are_scored_too(
    spec: dict[str, Any], lake: pa.Table, small_model: Path, tmp_path: Path
) -> None:
    import pyarrow.csv as pacsv

    from genai_core import fit

    table = lake.select(["origin", "delay", "id"])
    pacsv.write_csv(table, tmp_path / "rows.csv")
    fit(table, exclude=["id"], max_epochs=1, model={"context": 16, "hidden": 8, "embedding": 4}).save("model")
    source = {"kind": "csv", "path": str(tmp_path / "rows.csv"), "filter": "id < 100"}
    run(spec, model="model", source=source, keep=["id"])
    assert output().column("id").to_pylist() == list(range(100))
    assert output().column("source_file").to_pylist() == ["rows.csv"] * 100


def test_odd_values_are_scored_not_refused(spec: dict[str, Any], lake: pa.Table) -> None:
    odd = lake.slice(0, 3).to_pylist()
    odd[0] |= {"origin": "ZRH", "delay": float("inf"), "seats": None}
    odd[1] |= {"origin": None, "delay": float("nan"), "hour": dt.datetime(2200, 1, 1)}
    Path("odd").mkdir()
    pq.write_table(pa.Table.from_pylist(odd, schema=lake.schema), "odd/x.parquet")
    run(spec, source={"kind": "parquet", "path": "odd"}, top_k=2, keep=["id"])
    found = pq.read_table("out/_anomalies.parquet").to_pylist()
    assert {row["id"] for row in found} == {0, 1}
    assert all(np.isfinite(row[NLL]) for row in found)
    values = {reason["column"]: reason["value"] for row in found for reason in row["why"] if row["id"] == 0}
    assert values["origin"] == "ZRH"
