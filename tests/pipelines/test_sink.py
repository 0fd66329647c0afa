"""The sink's promise: every shard's rows once in a finished output, whoever was interrupted when."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from genai_core.errors import JobFailed, OutputExists
from pipelines.outputs.sink import Sink
from pipelines.plan import Shard, canonical_hash, job_id, plan_generation
from pipelines.sources import ParquetSource, open_source
from pipelines.stores import local_files, storage

PLAN = plan_generation(30, 7, 10)
PROVENANCE = {"job_id": "generate-1", "synthetic": True}


def identity(**parts: Any) -> dict[str, Any]:
    known = {"model": "sha256:1", "seed": 7, **parts}
    return {"job_id": job_id("generate", known), "verb": "generate", "parts": known}


def rows_of(shard: int) -> pa.Table:
    return pa.table({"n": pa.array(range(shard * 10, shard * 10 + 10))})


def write(sink: Sink, *ids: int) -> None:
    for shard in PLAN.shards:
        if shard.id in ids:
            sink.write_shard(shard, rows_of(shard.id), PROVENANCE, {"counts": [1, 2]})


def files(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


@pytest.fixture
def undisturbed(tmp_path: Path) -> dict[str, bytes]:
    sink = Sink(str(tmp_path / "undisturbed"))
    sink.prepare(identity())
    write(sink, 0, 1, 2)
    sink.finish(PLAN, PROVENANCE, {"flagged": 3})
    return files(tmp_path / "undisturbed")


@pytest.fixture
def sink(tmp_path: Path) -> Sink:
    sink = Sink(str(tmp_path / "out"))
    assert sink.prepare(identity()) == set()
    return sink


def finished(sink: Sink) -> dict[str, bytes]:
    sink.finish(PLAN, PROVENANCE, {"flagged": 3})
    return files(Path(sink.root))


def test_the_layout(undisturbed: Mapping[str, bytes]) -> None:
    assert sorted(undisturbed)[:3] == ["_JOB.json", "_MANIFEST.json", "_shards/00000.json"]
    manifest = json.loads(undisturbed["_MANIFEST.json"])
    assert manifest["rows"] == 30
    assert manifest["status"] == "complete"
    assert manifest["summary"] == {"flagged": 3}
    assert manifest["provenance"] == PROVENANCE
    assert manifest["plan"] == PLAN.hash
    assert [shard["file"] for shard in manifest["shards"]] == sorted(
        n for n in undisturbed if n.startswith("data/")
    )
    assert all(shard["sha256"][:12] in shard["file"] for shard in manifest["shards"])
    assert "counts" not in manifest["shards"][0]
    content = {key: value for key, value in manifest.items() if key != "hash"}
    assert manifest["hash"] == canonical_hash(content)


def test_resuming_writes_what_is_missing_and_gives_the_same_output(
    sink: Sink, undisturbed: Mapping[str, bytes]
) -> None:
    write(sink, 2, 0)
    assert Sink(sink.uri).prepare(identity()) == {0, 2}
    write(sink, 1)
    assert finished(sink) == undisturbed


def test_data_without_a_record_is_written_again_and_strays_are_removed(
    sink: Sink, undisturbed: Mapping[str, bytes]
) -> None:
    write(sink, 0, 1)
    Path(sink.path("_shards/00001.json")).unlink()
    Path(sink.path("data/part-00002-0123456789ab.parquet")).write_bytes(b"another version's bytes")
    Path(sink.path("data/.part-00002-x.parquet.0123.tmp")).write_bytes(b"half")
    Path(sink.path("_shards/.00002.json.0123.tmp")).write_bytes(b"{")
    assert sink.prepare(identity()) == {0}
    write(sink, 1, 2)
    assert finished(sink) == undisturbed


@pytest.mark.parametrize("damage", ["torn record", "data gone", "data cut short"])
def test_a_record_counts_only_with_its_data(
    sink: Sink, undisturbed: Mapping[str, bytes], damage: str
) -> None:
    write(sink, 0, 1, 2)
    record, data = Path(sink.path("_shards/00001.json")), next(Path(sink.path("data")).glob("part-00001-*"))
    if damage == "torn record":
        record.write_bytes(record.read_bytes()[:20])
    elif damage == "data gone":
        data.unlink()
    else:
        data.write_bytes(data.read_bytes()[:-1])
    assert sink.prepare(identity()) == {0, 2}
    with pytest.raises(JobFailed, match="1 of 3 shards are not there"):
        sink.finish(PLAN, PROVENANCE)
    assert sink.manifest() is None
    write(sink, 1)
    assert finished(sink) == undisturbed


def test_the_manifest_is_written_once(sink: Sink) -> None:
    write(sink, 0, 1, 2)
    first = sink.finish(PLAN, PROVENANCE, {"flagged": 3})
    assert sink.finish(PLAN, PROVENANCE, {"flagged": 4}) == first
    assert sink.manifest() == first


def test_every_name_survives_a_power_cut_before_the_manifest_lists_it(
    sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[str, bool]] = []
    sync = local_files.sync_folder

    def noted(folder: Path) -> None:
        synced.append((folder.name, (Path(sink.root) / "_MANIFEST.json").exists()))
        sync(folder)

    write(sink, 0, 1, 2)
    monkeypatch.setattr(local_files, "sync_folder", noted)
    sink.finish(PLAN, PROVENANCE)
    assert synced[0] == ("data", False) and synced[-1] == (Path(sink.root).name, True)


def test_another_jobs_output_is_refused_with_the_difference(sink: Sink) -> None:
    before = files(Path(sink.root))
    for check in (Sink(sink.uri).prepare, Sink(sink.uri).check):
        with pytest.raises(
            OutputExists, match=r"the unfinished output of another job .*: seed \(7 there, 8 asked\)\."
        ):
            check(identity(seed=8))
    write(sink, 0, 1, 2)
    finished(sink)
    with pytest.raises(
        OutputExists, match=r"the finished output .*spec.where.origin \(\"JFK\" there, null asked\)"
    ):
        other = Sink(sink.uri.replace("out", "other"))
        other.prepare(identity(spec={"where": {"origin": "JFK"}}))
        write(other, 0, 1, 2)
        other.finish(PLAN, PROVENANCE)
        other.prepare(identity(spec={"where": {}}))
    assert before["_JOB.json"] == files(Path(sink.root))["_JOB.json"]


def test_a_folder_with_something_else_in_it_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("do not lose")
    for check in (Sink(str(tmp_path / "out")).prepare, Sink(str(tmp_path / "out")).check):
        with pytest.raises(OutputExists, match=r"is not empty \(thesis.txt\)"):
            check(identity())
    assert files(tmp_path / "out") == {"thesis.txt": b"do not lose"}


def test_checking_writes_nothing(tmp_path: Path) -> None:
    Sink(str(tmp_path / "out")).check(identity())
    assert not (tmp_path / "out").exists()


def test_files_of_the_users_own_survive_finishing(sink: Sink) -> None:
    Path(sink.path("README.md")).write_text("mine")
    write(sink, 0, 1, 2)
    assert finished(sink)["README.md"] == b"mine"


def test_quarantined_shards_are_listed_until_they_succeed(
    sink: Sink, undisturbed: Mapping[str, bytes]
) -> None:
    write(sink, 0, 2)
    try:
        raise ValueError("broken for good")
    except ValueError as error:
        sink.quarantine(PLAN.shards[1], error, attempts=4)
    kept = json.loads(Path(sink.path("_quarantine/00001.json")).read_text())
    assert kept["error"] == "ValueError: broken for good"
    assert kept["attempts"] == 4
    assert kept["shard"] == PLAN.shards[1].to_json()
    assert "Traceback" in kept["traceback"]
    partial = Sink(sink.uri)
    assert partial.prepare(identity()) == {0, 2}
    write(sink, 1)
    assert finished(sink) == undisturbed


def test_an_accepted_failure_makes_a_partial_manifest(sink: Sink) -> None:
    write(sink, 0, 2)
    sink.quarantine(PLAN.shards[1], ValueError("no"), 1)
    manifest = sink.finish(PLAN, PROVENANCE)
    assert manifest["status"] == "partial"
    assert manifest["rows"] == 20
    assert manifest["quarantined"] == [{"id": 1, "error": "ValueError: no", "rows": 10}]


def test_more_shards_than_five_digits_stay_in_order(tmp_path: Path) -> None:
    sink = Sink(str(tmp_path))
    for number in (100_000, 7, 99_999):
        sink.write_shard(Shard(number, 0, 10), rows_of(0), PROVENANCE)
    assert [record["id"] for record in sink.records()] == [7, 99_999, 100_000]


def test_a_finished_output_is_a_source(sink: Sink) -> None:
    write(sink, 0, 1, 2)
    finished(sink)
    source = open_source(ParquetSource(path=sink.root))
    assert source.schema == pa.schema({"n": pa.int64()})
    assert [n for batch in source.batches() for n in batch.column(0).to_pylist()] == list(range(30))
    assert pq.read_table(sink.path("data")).num_rows == 30


@pytest.mark.s3
def test_a_store_holds_the_same_bytes(bucket: str, undisturbed: Mapping[str, bytes]) -> None:
    sink = Sink(f"{bucket}/out")
    sink.prepare(identity())
    write(sink, 0)
    storage.put_bytes(sink.filesystem, sink.path("data/part-00001-0123456789ab.parquet"), b"stray")
    assert Sink(sink.uri).prepare(identity()) == {0}
    write(sink, 1, 2)
    sink.finish(PLAN, PROVENANCE, {"flagged": 3})
    found = {
        info.path[len(sink.root) + 1 :]: storage.read_bytes(sink.filesystem, info.path)
        for info in storage.list_files(sink.filesystem, sink.root)
    }
    assert found == undisturbed
    with pytest.raises(OutputExists):
        Sink(sink.uri).prepare(identity(seed=8))
