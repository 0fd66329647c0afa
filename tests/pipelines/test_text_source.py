"""Text files and JSON lines as rows."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from genai_core.errors import InvalidData
from pipelines.sources import Source, SourceSettings, open_source
from pipelines.sources.text import _lines, _windows


def opened(path: Path, kind: str = "text", **settings: object) -> Source:
    return open_source(
        TypeAdapter(SourceSettings).validate_python({"kind": kind, "path": str(path), **settings})
    )


def rows(source: Source) -> list[dict]:
    return [row for batch in source.batches(batch_rows=2) for row in batch.to_pylist()]


def test_lines_of_files_with_their_numbers(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbffirst\r\n\nthird")
    with gzip.open(tmp_path / "b.txt.gz", "wb") as file:
        file.write("größe\n".encode())
    (tmp_path / "c.csv").write_text("not a text")
    source = opened(tmp_path)
    assert source.schema == pa.schema([("file", pa.string()), ("text", pa.string()), ("line", pa.int64())])
    assert rows(source) == [
        {"file": "a.txt", "text": "first", "line": 1},
        {"file": "a.txt", "text": "", "line": 2},
        {"file": "a.txt", "text": "third", "line": 3},
        {"file": "b.txt.gz", "text": "größe", "line": 1},
    ]
    assert rows(opened(tmp_path, filter="text != ''", columns=["line"]))[1] == {"line": 3}


def test_whole_files_and_folders_as_columns(tmp_path: Path) -> None:
    for name in ("ham", "spam"):
        (tmp_path / f"kind={name}").mkdir()
        (tmp_path / f"kind={name}" / "1.txt").write_text(f"{name}\n{name}\n")
    assert rows(opened(tmp_path, split="whole")) == [
        {"file": "kind=ham/1.txt", "text": "ham\nham\n", "kind": "ham"},
        {"file": "kind=spam/1.txt", "text": "spam\nspam\n", "kind": "spam"},
    ]


def test_windows_cover_the_text_and_the_last_one_ends_with_it(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("äbcdefghij")
    found = rows(opened(tmp_path, split="windows", length=4))
    assert [(row["offset"], row["text"]) for row in found] == [(0, "äbcd"), (4, "efgh"), (6, "ghij")]
    found = rows(opened(tmp_path, split="windows", length=4, stride=3))
    assert [(row["offset"], row["text"]) for row in found] == [(0, "äbcd"), (3, "defg"), (6, "ghij")]
    assert [row["text"] for row in rows(opened(tmp_path, split="windows", length=40))] == ["äbcdefghij"]
    with pytest.raises(ValidationError, match="a stride of 5 leaves out text"):
        opened(tmp_path, split="windows", length=4, stride=5)


@given(st.text("aé日\n", max_size=40), st.integers(1, 9), st.integers(1, 9), st.integers(1, 7))
def test_any_windows_are_the_same_however_the_file_is_read(
    text: str, length: int, stride: int, block: int
) -> None:
    data = text.encode()
    blocks = [data[i : i + block] for i in range(0, len(data), block)]
    stride = min(stride, length)
    found = [(window.decode(), at) for window, at in _windows(iter(blocks), length, stride)]
    starts = list(range(0, max(len(text) - length, 0) + 1, stride)) if len(text) >= length else []
    if text and (not starts or starts[-1] + length < len(text)):
        starts.append(max(len(text) - length, 0))
    assert found == [(text[at : at + length], at) for at in starts]
    assert [line.decode() for line in _lines(iter(blocks))] == text.removesuffix("\n").split("\n") * bool(
        text
    )


def test_bytes_that_are_no_text_stay_and_are_faults_of_rows(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"fine\n\xff\xfe\nfine")
    (tmp_path / "b.txt").write_text("also fine")
    source = opened(tmp_path)
    assert source.schema.field("text").type == pa.binary()
    assert [row["text"] for row in rows(source)] == [b"fine", b"\xff\xfe", b"fine", b"also fine"]
    assert rows(opened(tmp_path / "a.txt", split="windows", length=6))[0]["text"] == b"fine\n\xff"


def test_empty_files_hold_no_rows(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"")
    with pytest.raises(InvalidData, match="holds no rows"):
        opened(tmp_path)
    (tmp_path / "b.txt").write_text("one")
    assert [row["file"] for row in rows(opened(tmp_path))] == ["b.txt"]
    (tmp_path / "c.txt.gz").write_bytes(b"no gzip")
    with pytest.raises(InvalidData, match=r"c\.txt\.gz is not a readable text file"):
        opened(tmp_path)


def test_objects_inside_objects_are_columns_and_lists_stay(tmp_path: Path) -> None:
    lines = [
        {"id": 1, "text": "a", "user": {"name": "x", "from": {"city": "y"}}, "tags": ["t"]},
        {"id": 2, "text": "b", "user": None},
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    source = opened(tmp_path, "jsonl")
    assert source.schema.names == ["id", "text", "user.name", "user.from.city", "tags"]
    assert rows(source)[0] == {"id": 1, "text": "a", "user.name": "x", "user.from.city": "y", "tags": ["t"]}
    assert rows(source)[1]["user.from.city"] is None


def test_types_of_json_can_be_given(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"zip": 1234}\n{"zip": 5678}\n')
    assert opened(tmp_path, "jsonl").schema.field("zip").type == pa.int64()
    assert opened(tmp_path, "jsonl", types={"zip": "double"}).schema.field("zip").type == pa.float64()
    (tmp_path / "a.jsonl").write_text('{"zip": 1234}\n{"zip": "x"}\n')
    with pytest.raises(InvalidData, match=r"a\.jsonl is not a readable jsonl file: .*changed from"):
        opened(tmp_path, "jsonl")
