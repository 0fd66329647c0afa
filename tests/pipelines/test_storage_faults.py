"""Jobs over a store that fails: the same manifest as undisturbed, or a clear error and nothing half; never for ever."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest

from genai_core.errors import GenAIError, InvalidData, JobFailed, Unavailable
from pipelines import generate, score
from pipelines.context import Context
from pipelines.outputs.sink import Sink
from pipelines.running import shard_work
from pipelines.sources import ParquetSource, open_source
from pipelines.stores import s3, storage
from tests.pipelines.fault_proxy import FAULTS, SHORT, FaultProxy

ROWS, SHARDS = 300, 3
pytestmark = pytest.mark.s3


@pytest.fixture
def proxy(
    bucket: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch, workplace: Path
) -> Iterator[FaultProxy]:
    """Stands before the store; patience is short, so that tests are."""
    monkeypatch.setattr(storage, "REQUEST_SECONDS", 1.0)
    monkeypatch.setattr(s3, "ATTEMPTS", 3)
    monkeypatch.setattr(shard_work, "RETRY_SECONDS", 0.01)
    with FaultProxy(s3_endpoint).running() as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL", running.address)
        yield running


def generating(small_model: Path, out: str, rows_per_shard: int = ROWS // SHARDS) -> dict[str, Any]:
    """Generate into `out`; the result."""
    job = {
        "model": str(small_model),
        "rows": ROWS,
        "seed": 7,
        "rows_per_shard": rows_per_shard,
        "sink": {"path": out},
        "track": {"enabled": False},
        "compute": {"retries": 1},
    }
    return generate.run(generate.GenerateJob.model_validate(job), Context(log=lambda text: None))


def scoring(small_model: Path, source: str, out: str) -> dict[str, Any]:
    """Score a Parquet file on the store into `out`; the result."""
    job = {
        "model": str(small_model),
        "source": {"kind": "parquet", "path": source},
        "fdr": 0.5,
        "rows_per_shard": ROWS // SHARDS,
        "sink": {"path": out},
        "track": {"enabled": False},
    }
    return score.run(score.ScoreJob.model_validate(job), Context(log=lambda text: None))


@pytest.fixture(scope="module")
def manifest(small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The hash of what an undisturbed job writes, on a disk."""
    return str(generating(small_model, str(tmp_path_factory.mktemp("undisturbed") / "out"))["manifest"])


def upload(uri: str, table: pa.Table) -> str:
    filesystem, path = storage.resolve(uri)
    with storage.open_whole(filesystem, path) as stream:
        pq.write_table(table, stream, row_group_size=50)
    return uri


def names(uri: str) -> list[str]:
    filesystem, path = storage.resolve(uri)
    return [info.path.removeprefix(path + "/") for info in storage.list_files(filesystem, path)]


def test_one_fault_at_every_kind_of_request_leaves_no_trace(
    proxy: FaultProxy, bucket: str, small_model: Path, small_table: pa.Table
) -> None:
    source = upload(f"{bucket}/rows.parquet", small_table.slice(0, ROWS))
    undisturbed = scoring(small_model, source, f"{bucket}/undisturbed")
    for fault in FAULTS:
        proxy.heal()
        for part in ("_JOB.json", "data/part-00001", "_shards/00001", "_anomalies.parquet", "_MANIFEST.json"):
            proxy.fail(fault, "PUT", part)
        for part in ("list-type=2&max", "rows.parquet", "data/part-00000"):
            proxy.fail(fault, "GET", part)
        if fault != "cut":  # the answer to a HEAD has no body
            proxy.fail(fault, "HEAD", "rows.parquet")
        disturbed = scoring(small_model, source, f"{bucket}/{fault}")
        assert len(proxy.faults()) >= 7, fault
        assert disturbed["manifest"] == undisturbed["manifest"], fault
        assert names(f"{bucket}/{fault}") == names(f"{bucket}/undisturbed"), fault
        lists = [read(f"{bucket}/{out}/_anomalies.parquet") for out in (fault, "undisturbed")]
        assert lists[0] == lists[1], fault


def read(uri: str) -> bytes:
    return storage.read_bytes(*storage.resolve(uri))


def test_random_faults_end_in_the_same_manifest_or_in_an_error_that_names_the_store(
    proxy: FaultProxy, bucket: str, small_model: Path, manifest: str
) -> None:
    injected = 0
    for seed in range(4):
        out, result = f"{bucket}/disturbed{seed}", None
        proxy.heal()
        proxy.fail_at_random(seed, 0.15, ("500", "503", "reset", "lost", "cut"))
        for _ in range(10):
            try:
                result = generating(small_model, out)
                break
            except GenAIError as error:
                assert f"{out}: " in str(error)
        injected += len(proxy.faults())
        assert result is not None
        assert result["manifest"] == manifest
    assert injected > 10


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("500", "fault of its own"),
        ("503", "overloaded"),
        ("reset", "cannot be reached"),
        ("cut", "cannot be"),
    ],
)
def test_a_store_that_stays_broken_ends_the_job_soon_and_the_same_command_resumes_it(
    proxy: FaultProxy, bucket: str, small_model: Path, manifest: str, fault: str, said: str
) -> None:
    out = f"{bucket}/out"
    proxy.fail(fault, "PUT", "data/part-00001", times=None)
    with pytest.raises(JobFailed, match=f"shard 1 could not be written: {out}: .*{said}.*the same command"):
        generating(small_model, out)
    tries = len(proxy.asked("PUT", "data/part-00001"))
    assert tries == s3.ATTEMPTS * 2  # compute.retries is 1
    assert "_MANIFEST.json" not in names(out)
    assert not [name for name in names(out) if "part-00001" in name or "_quarantine" in name]
    proxy.heal()
    result = generating(small_model, out)
    assert result["resumed_shards"] == 1
    assert proxy.asked("GET", "/data/") == []  # what is finished is neither read
    assert proxy.asked("PUT", "data/part-00000") == []  # nor written again
    assert result["manifest"] == manifest


def test_a_finish_that_fails_keeps_every_shard(proxy: FaultProxy, bucket: str, small_model: Path) -> None:
    proxy.fail("503", "PUT", "_MANIFEST.json", times=None)
    with pytest.raises(JobFailed, match=r"overloaded.*All shards are committed"):
        generating(small_model, f"{bucket}/out")
    proxy.heal()
    assert generating(small_model, f"{bucket}/out")["resumed_shards"] == SHARDS
    assert [put.key.rpartition("/")[2] for put in proxy.asked("PUT")] == ["_MANIFEST.json", "_RUN.json"]


@pytest.mark.parametrize("fault", ["500", "cut", "stall"])
def test_a_source_that_cannot_be_read_is_named(
    proxy: FaultProxy, bucket: str, small_model: Path, fault: str
) -> None:
    generating(small_model, f"{bucket}/out", ROWS)
    source = open_source(ParquetSource(path=f"{bucket}/out"))
    proxy.heal()
    proxy.fail(fault, "GET", "/data/", times=None)
    with pytest.raises(Unavailable, match="part-00000"):
        list(source.batches())
    assert 1 <= len(proxy.asked("GET", "/data/")) <= 4 * s3.ATTEMPTS
    proxy.heal()
    assert sum(batch.num_rows for batch in source.batches()) == ROWS


def test_a_body_that_lies_about_its_length_gives_no_wrong_rows(
    proxy: FaultProxy, bucket: str, small_model: Path
) -> None:
    """pyarrow fills the missing half with whatever its memory holds: with the right bytes, at times."""
    generating(small_model, f"{bucket}/out", ROWS)
    source = open_source(ParquetSource(path=f"{bucket}/out"))
    right = pa.Table.from_batches(list(source.batches()))
    proxy.fail(SHORT, "GET", "/data/", times=None)
    with contextlib.suppress(InvalidData, Unavailable):
        assert pa.Table.from_batches(list(source.batches())).equals(right)


def test_listing_and_looking_end_in_an_error_that_names_the_store(proxy: FaultProxy, bucket: str) -> None:
    for method in ("GET", "HEAD", "PUT"):
        proxy.fail("503", method, times=None)
    sink = Sink(f"{bucket}/out")
    for ask in (sink.job, sink.manifest, lambda: list(sink.records()), lambda: sink.prepare({})):
        with pytest.raises(Unavailable, match=f"{bucket}/out: "):
            ask()


@pytest.mark.parametrize(("fault", "fresh"), [("409", True), ("503", True), ("lost", False)])
def test_a_conditional_put_survives_a_fault(proxy: FaultProxy, bucket: str, fault: str, fresh: bool) -> None:
    """A lost answer is found again as an object that is there: with these bytes."""
    filesystem, path = storage.resolve(f"{bucket}/once")
    proxy.fail(fault, "PUT", "once")
    assert storage.put_bytes(filesystem, path, b"mine", replace=False) is fresh
    assert storage.read_bytes(filesystem, path) == b"mine"
    assert not storage.put_bytes(filesystem, path, b"yours", replace=False)
    assert storage.read_bytes(filesystem, path) == b"mine"


@pytest.mark.parametrize(
    ("fault", "said"), [("409", "CONFLICT"), ("403", "do not allow"), ("501", "NOT_IMPLEMENTED")]
)
def test_a_conditional_put_that_is_refused_is_an_error(
    proxy: FaultProxy, bucket: str, fault: str, said: str
) -> None:
    filesystem, path = storage.resolve(f"{bucket}/once")
    proxy.fail(fault, "PUT", "once", times=None)
    with pytest.raises(Unavailable, match=f"{bucket}: .*{said}"), storage.explained(bucket):
        storage.put_bytes(filesystem, path, b"mine", replace=False)
    assert not storage.exists(filesystem, path)


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_who_may_not_call_uploads_off_finishes_all_the_same(
    proxy: FaultProxy, bucket: str, small_model: Path, manifest: str, method: str
) -> None:
    filesystem, root = storage.resolve(bucket)
    s3._client(filesystem).create_multipart_upload(Bucket=root, Key="out/_anomalies.parquet")
    proxy.fail("403", method, "uploadId" if method == "DELETE" else "uploads", times=None)
    assert generating(small_model, f"{bucket}/out")["manifest"] == manifest
    assert proxy.faults() == ["403"]


def listed(filesystem: pafs.FileSystem, bucket: str) -> list[str]:
    """The unfinished uploads of a bucket."""
    place = {"Bucket": bucket.removeprefix("s3://"), "Key": ""}
    return [upload["Key"] for upload in s3._uploads(s3._client(filesystem), place)]


def test_an_upload_in_parts_is_there_as_a_whole_or_not_at_all(
    proxy: FaultProxy, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "PART_BYTES", 5 << 20)
    filesystem, path = storage.resolve(f"{bucket}/out/large")
    data = bytes(range(256)) * (12 << 12)  # three parts
    for fault, method, part in (
        ("503", "PUT", "partNumber=2"),
        ("cut", "PUT", "partNumber=3"),
        ("500", "POST", "uploadId"),
    ):
        proxy.fail(fault, method, part, times=None)
        with pytest.raises(Unavailable, match=f"{bucket}/out: "), storage.explained(f"{bucket}/out"):
            storage.put_bytes(filesystem, path, data)
        proxy.heal()
        assert names(f"{bucket}/out") == listed(filesystem, bucket) == []
    proxy.fail("reset", "PUT", "partNumber=2")
    storage.put_bytes(filesystem, path, data)
    assert len(proxy.asked("PUT", "partNumber")) == 4
    assert storage.read_bytes(filesystem, path) == data


def test_finishing_calls_off_what_killed_writers_left(
    proxy: FaultProxy, bucket: str, small_model: Path
) -> None:
    filesystem, root = storage.resolve(bucket)
    client = s3._client(filesystem)
    for key in ("out/data/part-00001-0123456789ab.parquet", "out/_anomalies.parquet", "output-of-others/x"):
        client.create_multipart_upload(Bucket=root, Key=key)
    storage.put_bytes(filesystem, f"{root}/out/data/part-00001-0123456789ab.parquet", b"stray")
    with pytest.raises(GenAIError, match="is not empty"):
        generating(small_model, f"{bucket}/out")
    storage.delete(filesystem, f"{root}/out/data/part-00001-0123456789ab.parquet")
    proxy.fail("503", "PUT", "_MANIFEST.json", times=None)
    with pytest.raises(JobFailed):
        generating(small_model, f"{bucket}/out")
    storage.put_bytes(filesystem, f"{root}/out/data/part-00001-0123456789ab.parquet", b"stray")
    proxy.heal()
    generating(small_model, f"{bucket}/out")
    assert listed(filesystem, bucket) == ["output-of-others/x"]
    data = [name for name in names(f"{bucket}/out") if name.startswith("data/")]
    assert data == [shard["file"] for shard in (Sink(f"{bucket}/out").manifest() or {})["shards"]]


@pytest.mark.parametrize("uri", ["s3", "memory://faults"])
def test_a_stream_that_breaks_off_publishes_nothing(proxy: FaultProxy, bucket: str, uri: str) -> None:
    filesystem, path = storage.resolve((bucket if uri == "s3" else uri) + "/folder/large")
    with pytest.raises(RuntimeError), storage.open_whole(filesystem, path) as stream:
        stream.write(b"half")
        raise RuntimeError
    assert not storage.exists(filesystem, path)
    with storage.open_whole(filesystem, path) as stream:
        stream.write(b"")
    assert storage.read_bytes(filesystem, path) == b""
