"""Paths and URIs become file systems; whole files appear at once or not at all; stores' answers become advice."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pyarrow.fs as pafs
import pytest

from genai_core.errors import InvalidInput, Unavailable
from pipelines.stores import storage


def test_local_paths_start_at_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    filesystem, path = storage.resolve("lake/flights")
    assert (filesystem.type_name, path) == ("local", str(tmp_path / "lake/flights"))
    assert storage.resolve(f"file://{tmp_path}/a%20b")[1] == f"{tmp_path}/a b"
    assert storage.resolve("~/x")[1] == str(Path.home() / "x")


def test_keys_of_a_store_are_taken_as_they_are() -> None:
    filesystem, path = storage.resolve("s3://bucket/lake#1/month=1/a%20b/?region=eu-west-1")
    assert path == "bucket/lake#1/month=1/a%20b"
    assert filesystem.region == "eu-west-1"


def test_other_uris_are_left_to_fsspec() -> None:
    filesystem, path = storage.resolve("memory://test-storage/x")
    storage.put_bytes(filesystem, path + "/y", b"1")
    assert storage.read_bytes(filesystem, path + "/y") == b"1"
    with pytest.raises(InvalidInput, match=r"no file system for nosuch://.*s3://"):
        storage.resolve("nosuch://x")


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("out/scores", "out/scores"),
        ("s3://KEY:secret/with/slash@bucket/x", "s3://***@bucket/x"),
        ("s3://KEY:secret@bucket/x", "s3://***@bucket/x"),
        ("s3://bucket/x?region=eu&token=abc", "s3://bucket/x?region=eu&token=***"),
        ("https://host/x?sig=abc", "https://host/x?sig=***"),
    ],
)
def test_secrets_are_masked(uri: str, shown: str) -> None:
    assert storage.mask(uri) == shown


def test_a_written_file_is_whole_and_nothing_else_is_left(tmp_path: Path) -> None:
    filesystem, path = storage.resolve(str(tmp_path / "new/folder/file"))
    storage.put_bytes(filesystem, path, b"first")
    storage.put_bytes(filesystem, path, b"second")
    assert storage.read_bytes(filesystem, path) == b"second"
    assert [info.path for info in storage.list_files(filesystem, str(tmp_path))] == [path]


def test_a_failed_write_leaves_the_old_file_and_no_temporary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filesystem, path = storage.resolve(str(tmp_path / "file"))
    storage.put_bytes(filesystem, path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Unavailable, match="no space left"), storage.explained(path):
        storage.put_bytes(filesystem, path, b"new")
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"old"]


def test_a_stream_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    filesystem, path = storage.resolve(str(tmp_path / "folder/file"))
    with pytest.raises(RuntimeError), storage.open_whole(filesystem, path) as stream:
        stream.write(b"half")
        raise RuntimeError
    assert storage.list_files(filesystem, str(tmp_path)) == []
    with storage.open_whole(filesystem, path) as stream:
        stream.write(b"all")
    assert Path(path).read_bytes() == b"all"


def test_temporary_names_are_hidden_unique_and_recognised() -> None:
    names = {storage.temporary_name("part.parquet") for _ in range(100)}
    assert len(names) == 100
    assert all(storage.is_temporary(name) for name in names)
    assert not storage.is_temporary("part.parquet")


def test_what_is_not_there_is_no_error_where_that_is_a_fair_answer(tmp_path: Path) -> None:
    filesystem, path = storage.resolve(str(tmp_path / "missing"))
    storage.delete(filesystem, path)
    assert storage.list_files(filesystem, path) == []
    assert not storage.exists(filesystem, path)
    with pytest.raises(FileNotFoundError), storage.explained(path):
        storage.read_bytes(filesystem, path)


def test_free_space_is_that_of_the_nearest_directory(tmp_path: Path) -> None:
    there, later = storage.free_bytes(str(tmp_path)), storage.free_bytes(str(tmp_path / "not/yet/there"))
    assert there is not None
    assert later == pytest.approx(there, rel=0.1)


def test_the_etag_of_a_local_file_changes_with_it(tmp_path: Path) -> None:
    file = tmp_path / "x"
    filesystem = pafs.LocalFileSystem()
    file.write_bytes(b"one")
    before = storage.etag(filesystem, filesystem.get_file_info(str(file)))
    os.utime(file, ns=(1, 1))
    assert storage.etag(filesystem, filesystem.get_file_info(str(file))) != before


@pytest.mark.s3
def test_a_store_is_written_read_listed_and_told_apart(bucket: str) -> None:
    filesystem, path = storage.resolve(f"{bucket}/folder/x")
    assert storage.free_bytes(bucket) is None
    storage.put_bytes(filesystem, path, b"one")
    first = storage.etag(filesystem, filesystem.get_file_info(path))
    storage.put_bytes(filesystem, path, b"two")
    assert storage.read_bytes(filesystem, path) == b"two"
    assert storage.etag(filesystem, filesystem.get_file_info(path)) != first != ""
    assert [info.size for info in storage.list_files(filesystem, storage.resolve(bucket)[1])] == [3]
    with storage.open_whole(filesystem, path) as stream:
        stream.write(b"three")
    assert storage.read_bytes(filesystem, path) == b"three"
    storage.delete(filesystem, path)
    assert not storage.exists(filesystem, path)


@pytest.mark.s3
def test_a_missing_bucket_is_explained(bucket: str) -> None:
    filesystem, path = storage.resolve("s3://no-such-bucket-here/x")
    with (
        pytest.raises(Unavailable, match="the bucket does not exist"),
        storage.explained("s3://no-such-bucket-here"),
    ):
        storage.put_bytes(filesystem, path, b"")


def test_a_store_that_cannot_be_reached_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "y")
    filesystem, path = storage.resolve("s3://KEY:secret@bucket/x")
    with (
        pytest.raises(Unavailable, match="AWS_ENDPOINT_URL") as caught,
        storage.explained("s3://KEY:secret@bucket/x"),
    ):
        storage.exists(filesystem, path)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "advice"),
    [
        ("AWS Error INVALID_ACCESS_KEY_ID during HeadObject", "AWS_ACCESS_KEY_ID"),
        ("AWS Error SIGNATURE_DOES_NOT_MATCH during PutObject", "AWS_SECRET_ACCESS_KEY"),
        ("AWS Error ACCESS_DENIED during PutObject operation", "do not allow"),
        ("AWS Error UNKNOWN (HTTP status 403) during HeadObject", "do not allow"),
    ],
)
def test_wrong_credentials_are_explained(answer: str, advice: str) -> None:
    with pytest.raises(Unavailable, match=advice), storage.explained("s3://bucket/x"):
        raise OSError(answer)
    with pytest.raises(Unavailable, match="no permission"), storage.explained("/data/x"):
        raise PermissionError(errno.EACCES, "Permission denied")
