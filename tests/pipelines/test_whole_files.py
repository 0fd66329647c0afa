"""Sources in which a file is a row: names, bytes, labels from folders, filters, shards, damaged and changed files."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pytest
from pydantic import TypeAdapter

from genai_core.errors import InvalidData
from pipelines.plan import plan_scoring
from pipelines.sources import Source, SourceSettings, open_source

SUFFIX = {"audio": "wav", "images": "png"}
PAYLOAD = {"audio": "audio", "images": "image"}


def opened(kind: str, path: Path | str, **settings: object) -> Source:
    found = {"kind": kind, "path": str(path), **settings}
    return open_source(TypeAdapter(SourceSettings).validate_python(found))


@pytest.fixture(params=SUFFIX)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def folder(kind: str, tmp_path: Path) -> Path:
    for name, data in {"cat/1": b"one", "cat/2": b"", "dog/1": b"three", "top": b"four"}.items():
        path = tmp_path / f"{name}.{SUFFIX[kind]}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    (tmp_path / "notes.txt").write_text("not a record")
    return tmp_path


def test_rows_are_files_with_their_folder_as_label(kind: str, folder: Path) -> None:
    source = opened(kind, folder)
    table = pa.Table.from_batches(source.batches())
    assert table.schema == source.schema
    end = SUFFIX[kind]
    assert table.to_pydict() == {
        "file": [f"cat/1.{end}", f"cat/2.{end}", f"dog/1.{end}", f"top.{end}"],
        PAYLOAD[kind]: [b"one", b"", b"three", b"four"],
        "label": ["cat", "cat", "dog", None],
    }


def test_filters_and_columns(kind: str, folder: Path) -> None:
    table = pa.Table.from_batches(opened(kind, folder, filter="label == 'dog'", columns=["file"]).batches())
    assert table.to_pydict() == {"file": [f"dog/1.{SUFFIX[kind]}"]}
    with pytest.raises(InvalidData, match="passes the filter"):
        opened(kind, folder, filter="label == 'cow'").require_rows()


def test_a_key_folder_is_a_column_and_no_label(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "digit=7" / f"x.{SUFFIX[kind]}"
    path.parent.mkdir()
    path.write_bytes(b"seven")
    (row,) = pa.Table.from_batches(opened(kind, tmp_path).batches()).to_pylist()
    assert (row["digit"], row["label"]) == (7, None)


def test_many_files_become_few_shards(kind: str, tmp_path: Path) -> None:
    for number in range(250):
        (tmp_path / f"{number:03}.{SUFFIX[kind]}").write_bytes(b"x")
    plan = plan_scoring(opened(kind, tmp_path), rows_per_shard=100)
    assert [shard.rows for shard in plan.shards] == [100, 100, 50]


def test_a_changed_file_is_refused(kind: str, folder: Path) -> None:
    source = opened(kind, folder)
    piece = next(source.pieces())
    os.utime(folder / piece.path, ns=(1, 1))
    with pytest.raises(InvalidData, match="has changed since the job was planned"):
        source.read_with_rows(piece)


def test_a_folder_without_such_files_is_said(kind: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no record")
    with pytest.raises(InvalidData, match=r"holds no .*notes.txt"):
        opened(kind, tmp_path)
