"""What a URI may begin with: which package is missing is said with the command that brings it."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pyarrow as pa
import pytest

from genai_core.errors import InvalidInput, Unavailable
from pipelines.outputs.sink import Sink
from pipelines.plan import job_id, plan_generation
from pipelines.stores import storage


@pytest.mark.parametrize(
    ("uri", "kind", "path"),
    [
        ("s3://bucket/x", "s3", "bucket/x"),
        ("s3a://bucket/x", "s3", "bucket/x"),
        ("gs://bucket/x", "gcs", "bucket/x"),
        ("abfss://container@account.dfs.core.windows.net/x", "abfs", "container/x"),
        ("memory://x", "py::fsspec+memory", "/x"),
    ],
)
def test_a_scheme_is_a_file_system(uri: str, kind: str, path: str) -> None:
    filesystem, inside = storage.resolve(uri)
    assert (filesystem.type_name, inside) == (kind, path)


@pytest.mark.parametrize(
    ("uri", "package"),
    [("az://container/x", "adlfs"), ("oss://bucket/x", "ossfs"), ("sftp://host/x", "paramiko")],
)
def test_a_missing_package_is_said_with_its_command(uri: str, package: str) -> None:
    if find_spec(package):
        pytest.skip(f"{package} is installed")
    with pytest.raises(
        InvalidInput, match=f"no file system for {uri.partition(':')[0]}://.*pip install {package}"
    ):
        storage.resolve(uri)


def test_an_unknown_scheme_lists_the_known_ones() -> None:
    with pytest.raises(InvalidInput, match=r"no file system for nosuch://.*s3://.*hdfs://") as refused:
        storage.resolve("nosuch://x")
    assert "pip install" not in str(refused.value)


def test_a_uri_with_odd_signs_is_bad_input_without_its_secrets() -> None:
    with pytest.raises(InvalidInput, match=r"abfs://\*\*\*@account.* write spaces") as refused:
        storage.resolve("abfs://name:secret@account.dfs.core.windows.net/a b")
    assert "secret" not in str(refused.value)


def test_google_is_not_asked_for_longer_than_a_shard_may_take() -> None:
    for uri, seconds in (("gs://b/x", storage.GOOGLE_SECONDS), ("gs://b/x?retry_limit_seconds=5", 5)):
        filesystem, path = storage.resolve(uri)
        assert filesystem.__reduce__()[1][0]["retry_time_limit"].total_seconds() == seconds
        assert path == "b/x"


def test_hadoop_without_its_client_says_what_to_set() -> None:
    """In a process of its own: the loader complains on standard error, and keeps what it has found."""
    code = "from pipelines import storage; storage.resolve('hdfs://127.0.0.1:1/x')"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    if "Unable to load lib" not in ended.stderr:
        pytest.skip("libhdfs is installed")
    assert "Unavailable: hdfs://127.0.0.1:1/x: Hadoop's client is missing: set JAVA_HOME" in ended.stderr


def test_what_fsspec_has_is_a_place_for_output() -> None:
    parts = {"seed": 7}
    job = {"job_id": job_id("generate", parts), "verb": "generate", "parts": parts}
    sink, plan = Sink("memory://schemes/out"), plan_generation(20, 7, 10)
    assert sink.prepare(job) == set()
    for shard in plan.shards:
        record = sink.write_shard(shard, pa.table({"n": list(range(10))}), {})
        assert (
            sink.write_shard(shard, pa.table({"n": list(range(10, 20))}), {}) == record
        )  # the first one holds
    manifest = sink.finish(plan, {})
    assert manifest["rows"] == 20
    assert sink.finish(plan, {}, {"later": 1}) == manifest
    found = [info.path for info in storage.list_files(sink.filesystem, sink.path("data"))]
    assert found == [sink.path(shard["file"]) for shard in manifest["shards"]]


@pytest.mark.s3
def test_a_store_without_credentials_says_which_to_set(
    bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", f"{tmp_path}/none")
    monkeypatch.setenv("AWS_CONFIG_FILE", f"{tmp_path}/none")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")  # another place: clients are kept by place
    filesystem, path = storage.resolve(f"{bucket}/x")
    with pytest.raises(Unavailable, match=r"no credentials.*AWS_PROFILE"), storage.explained(bucket):
        storage.put_bytes(filesystem, path, b"")
