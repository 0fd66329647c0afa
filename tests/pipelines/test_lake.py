"""Lake jobs: only what is new or has changed is scored; every row of the lake has its scores once, come what may."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from genai_core import fit, load
from genai_core.errors import InvalidData, InvalidInput, JobFailed, OutputExists, SchemaMismatch
from pipelines import lake
from pipelines.context import Context
from pipelines.lake import LakeJob
from pipelines.lakes.lake_log import LakeLog
from pipelines.tracked.lineage import lineage, render

NLL = "negative_log_likelihood"


@pytest.fixture(scope="session")
def other_model(small_table: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another version of the small model."""
    directory = tmp_path_factory.mktemp("artifact") / "other"
    fit(small_table, max_epochs=1, seed=2, model={"context": 16, "hidden": 8, "embedding": 4}).save(directory)
    return directory


@pytest.fixture
def rows(workplace: Path, small_table: pa.Table) -> pa.Table:
    """The rows of a lake with an `id`, of which two days lie there already."""
    table = small_table.append_column("id", pa.array(range(small_table.num_rows)))
    put(table.slice(0, 60), "part=1/a.parquet")
    put(table.slice(60, 40), "part=2/a.parquet")
    return table


def put(table: pa.Table, name: str, root: str = "lake") -> Path:
    path = Path(root, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=25)
    return path


def job(model: Path, **changes: Any) -> LakeJob:
    fields = {
        "model": str(model),
        "source": {"kind": "parquet", "path": "lake"},
        "sink": {"path": "out"},
        "keep": ["id"],
        "scores": [NLL],
        "fdr": 0.3,
        "track": {"enabled": False},
    }
    return LakeJob.model_validate(fields | changes)


def run(model: Path, **changes: Any) -> dict[str, Any]:
    return lake.run(job(model, **changes), Context(log=lambda text: None))


def live(out: str = "out") -> pa.Table:
    """All rows that count, found by the newest list alone, as docs/anomalies.md says."""
    log = LakeLog(out)
    files = pq.read_table(Path(out, log.newest()["files"])).filter(pa.compute.field("state") == "scored")
    runs = {name for name in files.column("run").to_pylist() if name}
    where = dict(zip(files["source_file"].to_pylist(), files["run"].to_pylist(), strict=True))
    parts = []
    for name in sorted(runs):
        for path in sorted(Path(out, name, "data").rglob("*.parquet")):
            table = pq.read_table(path, partitioning=None)
            counts = [where.get(file) == name for file in table["source_file"].to_pylist()]
            parts.append(table.filter(pa.array(counts, pa.bool_())))
    return pa.concat_tables(parts).sort_by("id")


def test_the_scores_lie_in_the_partitions_of_the_rows_and_are_the_models_own(
    small_model: Path, rows: pa.Table
) -> None:
    result = run(small_model)
    assert result["rows"] == 100
    assert result["files"] == {"files": 2, "unchanged": 0, "skipped": 0, "deleted": 0}
    folders = {path.parent.name for path in Path("out", result["run"], "data").rglob("*.parquet")}
    assert folders == {"part=1", "part=2"}
    read = pq.read_table(Path("out", result["run"], "data"))  # Hive partitions come back as a column
    assert sorted(zip(read["id"].to_pylist(), read["part"].to_pylist(), strict=True)) == [
        (i, 1 if i < 60 else 2) for i in range(100)
    ]
    scores = load(small_model).score(rows.slice(0, 100), [NLL]).totals[NLL]
    np.testing.assert_array_equal(live().column(NLL).to_numpy(), scores)


def test_the_next_run_scores_only_what_is_new(small_model: Path, rows: pa.Table) -> None:
    first = run(small_model)
    before = {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()}
    again = run(small_model)
    assert again["reused"] and again["rows"] == 0 and again["files"]["unchanged"] == 2
    assert {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()} == before
    put(rows.slice(100, 30), "part=3/a.parquet")
    put(rows.slice(130, 5), "part=1/late.parquet")  # of a day that was scored before
    third = run(small_model)
    assert third["rows"] == 35 and third["files"] == {"files": 2, "unchanged": 2, "skipped": 0, "deleted": 0}
    assert third["run"] != first["run"] and third["sequence"] == 2
    changed = {path for path, data in before.items() if path.read_bytes() != data}
    assert changed == {Path("out/_report.html")}  # the newest run's, for people
    assert live()["id"].to_pylist() == list(range(135))


def test_a_changed_file_is_scored_again_and_a_deleted_one_no_longer_counts(
    small_model: Path, rows: pa.Table
) -> None:
    put(rows.slice(100, 20), "part=1/b.parquet")
    run(small_model)
    put(rows.slice(300, 10), "part=1/a.parquet")
    Path("lake/part=2/a.parquet").unlink()
    result = run(small_model)
    assert result["rows"] == 10
    assert result["files"] == {"files": 1, "unchanged": 1, "skipped": 0, "deleted": 1}
    assert live()["id"].to_pylist() == [*range(100, 120), *range(300, 310)]
    listed = pq.read_table(Path("out", LakeLog("out").newest()["files"])).to_pylist()
    assert {row["source_file"]: row["state"] for row in listed}["part=2/a.parquet"] == "deleted"
    assert run(small_model)["reused"]
    Path("lake/part=1/b.parquet").unlink()
    gone = run(small_model)  # nothing to score, something to write down
    assert gone["rows"] == 0 and gone["run"] is None and gone["files"]["deleted"] == 1
    assert live()["id"].to_pylist() == list(range(300, 310))


def test_another_model_scores_everything_again(small_model: Path, other_model: Path, rows: pa.Table) -> None:
    run(small_model)
    put(rows.slice(100, 10), "part=3/a.parquet")
    result = run(other_model)
    assert result["rows"] == 110 and "model" in result["again"]
    scores = load(other_model).score(rows.slice(0, 110), [NLL]).totals[NLL]
    np.testing.assert_array_equal(live().column(NLL).to_numpy(), scores)
    assert run(other_model, fdr=0.1)["reused"]  # which rows are flagged decides no score


def test_what_an_interrupted_run_has_done_is_not_done_again(
    small_model: Path, rows: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(LakeLog, "commit", killed)  # after the batch, before it counts
        with pytest.raises(KeyboardInterrupt):
            run(small_model)
    assert LakeLog("out").newest() is None
    (finished,) = Path("out").glob("run=*/_MANIFEST.json")
    made = finished.stat().st_mtime_ns
    assert run(small_model)["reused"] and finished.stat().st_mtime_ns == made
    assert live()["id"].to_pylist() == list(range(100))


def test_a_run_that_was_interrupted_and_overtaken_leaves_nothing(
    small_model: Path, rows: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(LakeLog, "commit", killed)
        with pytest.raises(KeyboardInterrupt):
            run(small_model)
    put(rows.slice(100, 10), "part=3/a.parquet")  # the plan is another now
    result = run(small_model)
    assert result["rows"] == 110 and [path.name for path in Path("out").glob("run=*")] == [result["run"]]
    assert live()["id"].to_pylist() == list(range(110))


def test_of_two_drivers_at_once_one_counts_and_no_row_is_there_twice(
    small_model: Path, rows: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = lake.run_batch

    def overtaken(*args: Any) -> Any:
        result = done(*args)
        monkeypatch.setattr(lake, "run_batch", done)
        put(rows.slice(100, 10), "part=3/a.parquet")
        run(small_model)
        return result

    monkeypatch.setattr(lake, "run_batch", overtaken)
    with pytest.raises(JobFailed, match="another run was committed meanwhile"):
        run(small_model)
    assert live()["id"].to_pylist() == list(range(110))
    assert run(small_model)["reused"]


def test_many_small_files_are_few_shards_and_one_large_file_is_many(
    small_model: Path, rows: pa.Table
) -> None:
    for number in range(60):
        put(rows.slice(100 + number, 1), f"part=3/{number}.parquet")
    result = run(small_model, rows_per_shard=50)
    assert result["shards"] == 2 + 1 + 2
    large = run(small_model, sink={"path": "large"}, rows_per_shard=10)
    assert large["shards"] > 12
    assert live()["id"].to_pylist() == live("large")["id"].to_pylist() == list(range(160))


def retyped(rows: pa.Table) -> pa.Table:
    """`seats` as text, one of which is no number."""
    return rows.set_column(2, "seats", pa.array(["100", "many"]))


def test_schema_drift_is_refused_by_default_with_every_file_named(small_model: Path, rows: pa.Table) -> None:
    run(small_model)
    put(rows.slice(100, 2).append_column("gate", pa.array(["A", "B"])), "part=3/added.parquet")
    put(rows.slice(102, 2).drop(["seats"]), "part=3/missing.parquet")
    put(retyped(rows.slice(104, 2)), "part=3/retyped.parquet")
    Path("lake/part=3/torn.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(InvalidData, match=r"4 file\(s\) are not like the others") as refused:
        run(small_model)
    for text in (
        "added gate",
        "missing seats",
        "seats is string instead of int64",
        "torn.parquet is not",
        "cast",
    ):
        assert text in str(refused.value)
    assert LakeLog("out").newest()["sequence"] == 1


@pytest.mark.parametrize(("policy", "ids"), [("skip", []), ("cast", [100, 101, 102, 103, 106, 107])])
def test_drifted_files_are_skipped_or_cast_and_reported(
    policy: str, ids: list[int], small_model: Path, rows: pa.Table
) -> None:
    run(small_model)
    put(rows.slice(100, 2).append_column("gate", pa.array(["A", "B"])), "part=3/added.parquet")
    put(rows.slice(102, 2).drop(["seats"]), "part=3/missing.parquet")
    put(retyped(rows.slice(104, 2)), "part=3/retyped.parquet")
    put(rows.slice(106, 2).set_column(2, "seats", pa.array(["100", "120"])), "part=3/text.parquet")
    Path("lake/part=3/torn.parquet").write_bytes(b"PAR1 and then nothing")
    result = run(small_model, schema_drift=policy)
    assert live()["id"].to_pylist() == [*range(100), *ids]
    assert set(result["schema_drift"]) == {
        f"part=3/{n}.parquet" for n in ("added", "missing", "retyped", "text")
    }
    assert {"part=3/retyped.parquet", "part=3/torn.parquet"} <= set(result["skipped"])
    if policy == "cast":
        assert "many" in result["skipped"]["part=3/retyped.parquet"] and len(result["skipped"]) == 2
        scored = live().filter(pa.compute.field("id") >= 102).slice(0, 2)[NLL].to_numpy()
        missing = rows.slice(102, 2).set_column(2, "seats", pa.nulls(2, pa.int64()))
        np.testing.assert_array_equal(scored, load(small_model).score(missing, [NLL]).totals[NLL])
    assert run(small_model, schema_drift=policy)["reused"]  # skipped still, and nothing new
    put(rows.slice(108, 1), "part=3/torn.parquet")  # mended
    assert run(small_model, schema_drift=policy)["rows"] == 1


def test_text_files_have_no_types_to_drift_from(workplace: Path, small_table: pa.Table) -> None:
    table = small_table.select(["origin", "delay"]).append_column("id", pa.array(range(600)))
    fit(table, exclude=["id"], max_epochs=1, model={"context": 16, "hidden": 8, "embedding": 4}).save("model")
    Path("lake").mkdir()
    pacsv.write_csv(table.slice(0, 50), "lake/a.csv")
    source = {"kind": "csv", "path": "lake"}
    assert run(Path("model"), source=source)["rows"] == 50
    Path("lake/b.csv").write_text('"origin","delay","id"\n"JFK",3,50\n"LGA",,51\n')  # whole numbers only
    assert run(Path("model"), source=source)["rows"] == 2
    Path("lake/c.csv").write_text('"origin","delay","id"\n"JFK",late,52\n')
    with pytest.raises(InvalidData, match="delay is string instead of double"):
        run(Path("model"), source=source)


def test_filters_take_partitions_and_rows(small_model: Path, rows: pa.Table) -> None:
    source = {"kind": "parquet", "path": "lake", "filter": "part == 2 and id >= 90"}
    assert run(small_model, source=source)["files"]["files"] == 1
    assert live()["id"].to_pylist() == list(range(90, 100))
    put(rows.slice(100, 9), "part=3/a.parquet")
    assert run(small_model, source=source)["reused"]  # outside of what is asked for


def test_what_cannot_work_is_refused_and_nothing_is_written(small_model: Path, rows: pa.Table) -> None:
    before = sorted(Path().rglob("*"))
    for act in (lake.check, lake.run):
        with pytest.raises(InvalidInput, match="lies in the source"):
            act(job(small_model, sink={"path": "lake/out"}), Context(log=lambda text: None))
        with pytest.raises(SchemaMismatch, match="origin"):
            act(job(small_model, source={"kind": "parquet", "path": "lake", "columns": ["id"]}), Context())
        with pytest.raises(InvalidInput, match="no column 'idd'; did you mean 'id'"):
            act(job(small_model, keep=["idd"]), Context())
        with pytest.raises(InvalidData, match="does not exist"):
            act(job(small_model, source={"kind": "parquet", "path": "nowhere"}), Context())
    assert sorted(Path().rglob("*")) == before
    Path("out").mkdir()
    Path("out/diary.txt").write_text("mine")
    with pytest.raises(OutputExists, match=r"diary\.txt, which no lake job wrote"):
        run(small_model)


def test_check_says_what_a_run_would_do(small_model: Path, rows: pa.Table) -> None:
    facts = lake.check(job(small_model), Context())
    assert "source: 2 files, 0 unchanged, 0 skipped, 0 deleted" in facts
    assert not Path("out").exists()
    run(small_model)
    assert any("nothing to score" in fact for fact in lake.check(job(small_model), Context()))


def test_a_shard_that_failed_is_tried_by_the_next_run(
    small_model: Path, rows: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = lake.plan_scoring

    def planning(*args: Any) -> Any:
        plan = planned(*args)
        os.utime("lake/part=2/a.parquet", ns=(1, 1))  # changes between plan and work
        return plan

    with monkeypatch.context() as patch:
        patch.setattr(lake, "plan_scoring", planning)
        result = run(small_model, compute={"max_failed": 1})
    assert result["quarantined"] == 1 and live()["id"].to_pylist() == list(range(60))
    result = run(small_model, compute={"max_failed": 1})
    assert result["rows"] == 40 and live()["id"].to_pylist() == list(range(100))


def test_lineage_of_a_lake_and_of_one_of_its_files(small_model: Path, rows: pa.Table) -> None:
    run(small_model)
    put(rows.slice(100, 10), "part=1/late.parquet")
    run(small_model)
    tree = lineage("out", verify=True)
    assert tree["state"] == "intact: every byte is as the manifests say, in 2 run(s)"
    assert (tree["rows"], tree["files"], tree["job"]["verb"]) == (110, 3, "score")
    assert "lake" in render(tree)
    (file,) = Path("out", tree["runs"][1], "data").rglob("*.parquet")
    found = lineage(str(file))
    assert found["state"].startswith("intact: 10 rows") and found["model"]["state"] == "found"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    assert lineage("out", verify=True)["state"].startswith("changed: run=000002")


@pytest.mark.s3
def test_lake_and_scores_may_lie_in_a_store(small_model: Path, rows: pa.Table, bucket: str) -> None:
    import pyarrow.fs as pafs

    store = pafs.S3FileSystem(endpoint_override=os.environ["AWS_ENDPOINT_URL"])
    name = bucket.removeprefix("s3://")

    def upload(table: pa.Table, key: str) -> None:
        with store.open_output_stream(f"{name}/lake/{key}") as stream:
            pq.write_table(table, stream)

    upload(rows.slice(0, 20), "part=1/a.parquet")
    changes = {"source": {"kind": "parquet", "path": f"{bucket}/lake"}, "sink": {"path": f"{bucket}/out"}}
    assert run(small_model, **changes)["rows"] == 20
    assert run(small_model, **changes)["reused"]
    upload(rows.slice(0, 20).sort_by([("id", "descending")]), "part=1/a.parquet")  # of about the same size
    upload(rows.slice(20, 5), "part=2/a.parquet")
    result = run(small_model, **changes)
    assert result["files"] == {"files": 2, "unchanged": 0, "skipped": 0, "deleted": 0}
    record = json.loads(store.open_input_stream(f"{name}/out/_runs/000002.json").read())
    assert record["run"] == result["run"] and record["rows"] == 25
