"""Outputs that somebody tampered with: manifests, records and links that lead elsewhere."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from genai_core.errors import InvalidData, OutputExists
from pipelines.outputs.sink import Sink
from pipelines.outputs.tfrecord import export
from pipelines.plan import canonical_hash, plan_generation
from pipelines.tracked.lineage import lineage

JOB = {"job_id": "generate-0", "verb": "generate", "parts": {}}
PLAN = plan_generation(20, 1, rows_per_shard=10)
TABLE = pa.table({"x": list(range(10))})


@pytest.fixture
def output(tmp_path: Path) -> Sink:
    """Finished, with two shards."""
    sink = Sink(str(tmp_path / "out"))
    sink.prepare(JOB)
    for shard in PLAN.shards:
        sink.write_shard(shard, TABLE, {"job_id": "generate-0"})
    sink.finish(PLAN, {"job_id": "generate-0"})
    return sink


def forge_manifest(sink: Sink, **changes: Any) -> None:
    path = Path(sink.root) / "_MANIFEST.json"
    manifest = {name: v for name, v in json.loads(path.read_text()).items() if name != "hash"} | changes
    path.write_text(json.dumps(manifest | {"hash": canonical_hash(manifest)}))


NAMES = [
    "../outside.parquet",
    "/etc/passwd",
    "data/../../part-00000-0123456789ab.parquet",
    "data/./x",
    "data\\x",
    "",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_manifest_that_leads_outside_is_not_followed(output: Sink, tmp_path: Path, name: str) -> None:
    shards = [shard | {"file": name} for shard in output.manifest()["shards"]]
    forge_manifest(output, shards=shards)
    before = sorted(tmp_path.rglob("*"))
    for reader in (
        output.manifest,
        lambda: lineage(output.root, verify=True),
        lambda: export(output.root, str(tmp_path / "to")),
    ):
        with pytest.raises(InvalidData, match="not what a job writes"):
            reader()
    assert sorted(tmp_path.rglob("*")) == before


def test_a_manifest_is_believed_only_with_its_own_hash(output: Sink) -> None:
    path = Path(output.root) / "_MANIFEST.json"
    path.write_text(path.read_text().replace('"rows": 20', '"rows": 21'))
    with pytest.raises(InvalidData, match="own hash does not fit"):
        output.manifest()


@pytest.mark.parametrize(
    "change", [{"file": NAMES[0]}, {"rows": -1}, {"id": "0"}, {"sha256": "x"}, {"bytes": 1e400}]
)
def test_a_forged_record_is_as_if_it_were_not_there(output: Sink, change: dict[str, Any]) -> None:
    (path := Path(output.root) / "_shards" / "00000.json").write_text(
        json.dumps(json.loads(path.read_text()) | change)
    )
    assert [record["id"] for record in output.records()] == [1]


def test_two_records_of_one_file_count_its_rows_once(output: Sink) -> None:
    first = Path(output.root) / "_shards" / "00000.json"
    (first.parent / "00001.json").write_text(json.dumps(json.loads(first.read_text()) | {"id": 1}))
    assert [record["id"] for record in output.records()] == [0]


@pytest.mark.parametrize("folder", ["data", "_shards", "_quarantine"])
def test_a_linked_folder_is_neither_written_nor_emptied(tmp_path: Path, folder: str) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "part-00009-0123456789ab.parquet").write_bytes(b"do not touch")
    sink = Sink(str(tmp_path / "out"))
    sink.prepare(JOB)
    for name in ("data", "_shards", "_quarantine"):
        shutil.rmtree(tmp_path / "out" / name, ignore_errors=True)
    (tmp_path / "out" / folder).symlink_to(precious)
    with pytest.raises(OutputExists, match="is a link"):
        sink.prepare(JOB)
    if folder == "data":
        with pytest.raises(OutputExists, match="is a link"):
            sink.write_shard(PLAN.shards[0], TABLE, {})
    assert [path.name for path in precious.iterdir()] == ["part-00009-0123456789ab.parquet"]


def test_a_link_below_the_data_is_not_emptied(output: Sink, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "part-00009-0123456789ab.parquet").write_bytes(b"do not touch")
    (Path(output.root) / "data" / "month=1").symlink_to(precious)
    (Path(output.root) / "_MANIFEST.json").unlink()
    with pytest.raises(OutputExists, match="data/month=1 is a link"):
        output.finish(PLAN, {})
    assert list(precious.iterdir())


def test_an_output_below_a_link_is_an_output(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "linked").symlink_to(tmp_path / "disk")
    sink = Sink(str(tmp_path / "linked" / "out"))
    sink.prepare(JOB)
    for shard in PLAN.shards:
        sink.write_shard(shard, TABLE, {})
    assert sink.finish(PLAN, {})["rows"] == 20
