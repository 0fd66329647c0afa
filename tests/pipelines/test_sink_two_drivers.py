"""Two drivers on the same job and sink at once, in processes of their own: rows unique and complete, one manifest."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.outputs.sink import MANIFEST, RECORDS, Sink
from pipelines.stores import local_files, storage
from tests.pipelines.fault_proxy import FaultProxy
from tests.pipelines.sink_driver import ROWS, identity, work

DRIVER = Path(__file__).parent / "sink_driver.py"
ROOT = Path(__file__).parents[2]
SHARDS = 12
Rounds = Sequence[Mapping[str, Any]]


def drive(folder: Path, first: Rounds, second: Rounds, code: int = 0) -> list[list[dict[str, str]]]:
    """What both drivers said of each round."""
    told = folder / "rounds.json"
    told.write_text(json.dumps({"first": list(first), "second": list(second)}))
    command = [sys.executable, str(DRIVER), str(folder), str(told)]
    ended = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == code, ended.stderr
    said = (folder / f"{name}.said" for name in ("first", "second"))
    return [
        [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else [] for file in said
    ]


def check_output(uri: str, shards: int = SHARDS) -> Counter[str]:
    """Every row once, every file as listed, nothing besides; whose rows they are."""
    sink = Sink(uri)
    manifest = sink.manifest()
    assert manifest is not None
    assert [shard["id"] for shard in manifest["shards"]] == list(range(shards))
    listed = {shard["file"]: shard for shard in manifest["shards"]}
    known = {"_JOB.json", MANIFEST, *listed, *(f"{RECORDS}/{number:05d}.json" for number in range(shards))}
    found = {info.path[len(sink.root) + 1 :] for info in storage.list_files(sink.filesystem, sink.root)}
    assert found == known
    rows, whose = [], Counter[str]()
    for file, shard in listed.items():
        data = storage.read_bytes(sink.filesystem, sink.path(file))
        assert hashlib.sha256(data).hexdigest() == shard["sha256"]
        table = pq.read_table(pa.BufferReader(data))
        rows += table["id"].to_pylist()
        whose.update(table["salt"].to_pylist())
    assert rows == list(range(shards * ROWS))
    assert [record["file"] for record in sink.records()] == list(listed)
    return whose


def rounds_of(place: str, count: int, **more: Any) -> list[dict[str, Any]]:
    return [{"uri": f"{place}/{number}", "shards": SHARDS, "seed": 7, **more} for number in range(count)]


def test_two_drivers_on_disk_leave_one_output(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    rounds = rounds_of(f"{tmp_path}/out", 25)
    first, second = drive(tmp_path, rounds, rounds)
    assert first == second
    whose = sum((check_output(step["uri"]) for step in rounds), Counter[str]())
    assert set(whose) == {"first", "second"}  # they have worked at the same time, and their bytes differ


@pytest.mark.s3
def test_two_drivers_on_a_store_leave_one_output_whose_manifest_is_written_once(
    bucket: str, s3_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FaultProxy(s3_endpoint).running() as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.address)
        proxy.fail_at_random(7, 0.03, ("503", "reset", "lost"))
        rounds = rounds_of(bucket, 2)
        first, second = drive(tmp_path, rounds, rounds)
        proxy.heal_rules()
        assert first == second
        for number, step in enumerate(rounds):
            check_output(step["uri"])
            asked = proxy.asked("PUT", f"/{number}/{MANIFEST}")
            assert [request.ended_in for request in asked].count("200") == 1
        assert proxy.faults()


@pytest.mark.parametrize("place", ["disk", pytest.param("store", marks=pytest.mark.s3)])
def test_of_two_different_jobs_one_is_refused_and_told_of_the_other(
    place: str, bucket: str, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    rounds = rounds_of(f"{tmp_path}/out" if place == "disk" else bucket, 15 if place == "disk" else 2)
    first, second = drive(tmp_path, rounds, [{**step, "seed": 8} for step in rounds])
    for step, *said in zip(rounds, first, second, strict=True):
        winner, loser = sorted(range(2), key=lambda i: "refused" in said[i])
        assert "manifest" in said[winner]
        winning, losing = identity(7 + winner)["job_id"], 7 + loser
        assert f"output of another job ({winning})" in said[loser]["refused"]
        assert f"{losing} asked" in said[loser]["refused"]
        assert set(check_output(step["uri"])) == {["first", "second"][winner]}


@pytest.mark.parametrize("place", ["data/part-00003!", "_shards/00005", "half"])
def test_a_driver_that_is_killed_locks_nobody_out_and_leaves_nothing(tmp_path: Path, place: str) -> None:
    (tmp_path / "out").mkdir()
    rounds = rounds_of(f"{tmp_path}/out", 1)
    die, outlive = {**rounds[0], "die": place}, {**rounds[0], "outlive": True}
    survivor, killed = drive(tmp_path, [outlive], [die], code=signal.SIGKILL)
    assert killed == []
    assert survivor == [work(rounds[0]["uri"], SHARDS, 7, "third")]
    check_output(rounds[0]["uri"])


def test_a_temporary_file_is_removed_only_when_its_writer_is_dead(tmp_path: Path) -> None:
    sink = Sink(str(tmp_path))
    dead = tmp_path / "data" / local_files.temporary_name("part-00000-0123456789ab.parquet")
    dead.parent.mkdir()
    dead.write_bytes(b"half")
    with storage.open_whole(sink.filesystem, sink.path("data/living")) as stream:
        stream.write(b"first ")
        sink._remove_unlisted([])
        stream.write(b"second")
    assert [path.name for path in dead.parent.iterdir()] == ["living"]
    assert (tmp_path / "data/living").read_bytes() == b"first second"


@pytest.mark.parametrize("place", ["disk", "memory", pytest.param("store", marks=pytest.mark.s3)])
def test_of_all_who_create_a_file_one_succeeds(place: str, bucket: str, tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    where = {"disk": str(tmp_path), "memory": "memory://two-drivers", "store": bucket}[place]
    filesystem, root = storage.resolve(where)
    for number in range(5):
        path = f"{root}/{number}"
        with ThreadPoolExecutor(8) as pool:
            won = list(
                pool.map(
                    lambda who, path=path: storage.put_bytes(filesystem, path, b"%d" % who, replace=False),
                    range(8),
                )
            )
        assert won.count(True) == 1
        assert storage.read_bytes(filesystem, path) == b"%d" % won.index(True)
    assert len(storage.list_files(filesystem, root)) == 5


def test_disks_without_a_rename_that_keeps_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NFS has hard links instead; exFAT has neither."""
    monkeypatch.setattr(local_files, "LIBC", None)
    assert local_files.put(tmp_path / "x", b"1", durable=False, replace=False)
    assert not local_files.put(tmp_path / "x", b"2", durable=False, replace=False)

    def no_links(*_: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    assert local_files.put(tmp_path / "y", b"1", durable=False, replace=False)
    assert not local_files.put(tmp_path / "y", b"2", durable=False, replace=False)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"x": b"1", "y": b"1"}
