"""Every kind of source: one exact schema, every row once however it is cut, filters that mean the same everywhere."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from pydantic import TypeAdapter

from genai_core.errors import InvalidData, InvalidInput
from pipelines import filters
from pipelines.sources import SOURCES, Source, SourceSettings, open_source

WHOLE_FILES = (
    "audio",
    "images",
)  # a file is a row there: see tests/pipelines/test_whole_files.py; text has columns of its own
TABLE_LOGS = ("delta", "iceberg")  # a log says which files there are: see tests/pipelines/test_table_logs.py
ROWS = (7, 0, 12, 1)  # of the files; an empty one among them
WRITERS: dict[str, Callable[[pa.Table, Path], None]] = {
    "csv": lambda table, path: pacsv.write_csv(table, path),
    "jsonl": lambda table, path: path.write_text(
        "".join(json.dumps(row) + "\n" for row in table.to_pylist())
    ),
    "parquet": lambda table, path: pq.write_table(table, path, row_group_size=5),
}


def written(kind: str, lake: Path) -> pa.Table:
    """A small lake in folders by month; returns all of its rows in the order of the files."""
    first, tables = 0, []
    for month, rows in enumerate(ROWS, 1):
        numbers = np.arange(first, first + rows)
        table = pa.table(
            {"n": pa.array(numbers, pa.int64()), "s": pa.array([f"row {n}" for n in numbers], pa.string())}
        )
        folder = lake / f"month={month}"
        folder.mkdir(parents=True)
        WRITERS[kind](table, folder / f"part.{kind}")
        tables.append(table.append_column("month", pa.array([month] * rows, pa.int32())))
        first += rows
    return pa.concat_tables(tables)


def opened(kind: str, path: Path, **settings: object) -> Source:
    return open_source(
        TypeAdapter(SourceSettings).validate_python({"kind": kind, "path": str(path), **settings})
    )


@pytest.fixture(params=[kind for kind in SOURCES if kind not in (*WHOLE_FILES, *TABLE_LOGS, "text")])
def kind(request: pytest.FixtureRequest) -> str:
    assert request.param in WRITERS, f"say in WRITERS how a file of kind {request.param} is written"
    return str(request.param)


def test_batches_have_exactly_the_schema_and_all_rows_in_order(kind: str, tmp_path: Path) -> None:
    everything = written(kind, tmp_path)
    source = opened(kind, tmp_path)
    batches = list(source.batches(batch_rows=4))
    assert all(
        batch.schema.equals(source.schema, check_metadata=True) and batch.num_rows <= 4 for batch in batches
    )
    assert pa.Table.from_batches(batches, source.schema).equals(everything)
    assert source.rows == sum(ROWS) == sum(fragment.rows for fragment in source.fragments())


@pytest.mark.parametrize("rows_per_piece", [None, 1, 3, 100])
@pytest.mark.parametrize("filter_", [None, "n >= 3 and month != 4"])
def test_pieces_cover_every_row_once(
    kind: str, tmp_path: Path, rows_per_piece: int | None, filter_: str | None
) -> None:
    everything = written(kind, tmp_path)
    source = opened(kind, tmp_path, filter=filter_)
    tables = []
    for piece in source.pieces(rows_per_piece):
        table, rows = source.read_with_rows(piece)
        starts = {f"month={m + 1}/part.{kind}": sum(ROWS[:m]) for m in range(len(ROWS))}
        assert table.column("n").to_pylist() == (rows + starts[piece.path]).tolist()
        assert all(piece.start <= row < piece.stop for row in rows)
        tables.append(table)
    expected = everything.filter(filters.parse(filter_, source.schema)) if filter_ else everything
    assert pa.concat_tables(tables).sort_by("n").equals(expected)


def test_columns_are_projected_in_the_order_asked_for_and_the_filter_may_use_others(
    kind: str, tmp_path: Path
) -> None:
    written(kind, tmp_path)
    source = opened(kind, tmp_path, columns=["month", "s"], filter="n in (3, 8)")
    assert source.schema.names == ["month", "s"]
    rows = [row for batch in source.batches() for row in batch.to_pylist()]
    assert rows == [{"month": 1, "s": "row 3"}, {"month": 3, "s": "row 8"}]
    assert [batch.schema.names for batch in source.batches(["s"])] == [["s"], ["s"]]


def test_a_reader_that_has_travelled_reads_the_same(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    written(kind, tmp_path / "lake")
    source = opened(kind, Path("lake"), filter="n > 2")
    monkeypatch.chdir(tmp_path / "elsewhere")  # a worker's working directory
    reader = pickle.loads(pickle.dumps(source.reader))  # noqa: S301  as Ray sends it
    for piece in source.pieces(4):
        assert reader.read_with_rows(piece)[0].equals(source.read_with_rows(piece)[0])


def test_files_that_folder_names_rule_out_are_not_opened(kind: str, tmp_path: Path) -> None:
    written(kind, tmp_path)
    source = opened(kind, tmp_path, filter="month > 3")
    assert [fragment.path for fragment in source.fragments()] == [f"month=4/part.{kind}"]
    with pytest.raises(InvalidData, match=r"no file of .* passes the filter"):
        opened(kind, tmp_path, filter="month > 12")


def test_the_digest_is_that_of_what_is_read(kind: str, tmp_path: Path) -> None:
    written(kind, tmp_path)
    digest = opened(kind, tmp_path).digest
    assert opened(kind, tmp_path).digest == digest
    others = [opened(kind, tmp_path, filter="n > 2"), opened(kind, tmp_path, columns=["n"])]
    assert digest not in {other.digest for other in others}
    os.utime(tmp_path / f"month=1/part.{kind}", ns=(1, 1))
    assert opened(kind, tmp_path).digest != digest


def test_a_file_that_changes_after_planning_is_refused(kind: str, tmp_path: Path) -> None:
    written(kind, tmp_path)
    source = opened(kind, tmp_path)
    first, *_, last = source.pieces()
    os.utime(tmp_path / first.path, ns=(1, 1))
    with pytest.raises(InvalidData, match=r"month=1.* has changed since the job was planned"):
        source.read_with_rows(first)
    (tmp_path / last.path).unlink()
    with pytest.raises(InvalidData, match=r"month=4.* is no longer there"):
        source.read_with_rows(last)


def test_no_row_passing_is_said_before_work(kind: str, tmp_path: Path) -> None:
    written(kind, tmp_path)
    opened(kind, tmp_path, filter="n == 19").require_rows()
    with pytest.raises(InvalidData, match=r"no row of .* passes the filter 'n == 190'"):
        opened(kind, tmp_path, filter="n == 190").require_rows()


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"columns": ["n", "t"]}, "no column 't'"),
        ({"filter": "monht == 1"}, "no column 'monht'; did you mean 'month'"),
    ],
)
def test_misspelt_columns_are_named(
    kind: str, tmp_path: Path, settings: dict[str, object], part: str
) -> None:
    written(kind, tmp_path)
    with pytest.raises(InvalidInput, match=r"did you mean|columns: n, s, month") as caught:
        opened(kind, tmp_path, **settings)
    assert part in str(caught.value)


def test_what_is_missing_or_empty_is_said(kind: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="does not exist"):
        opened(kind, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidData, match=r"holds no .* it is empty"):
        opened(kind, tmp_path / "empty")
    (tmp_path / "empty" / "README.md").write_text("hello")
    with pytest.raises(InvalidData, match=r"holds no .*README.md"):
        opened(kind, tmp_path / "empty")
    WRITERS[kind](pa.table({"n": pa.array([], pa.int64())}), tmp_path / f"none.{kind}")
    with pytest.raises(InvalidData, match="holds no rows"):
        opened(kind, tmp_path / f"none.{kind}")


def test_damaged_files_are_named(kind: str, tmp_path: Path) -> None:
    # an empty file is no damage where every line is a record
    (tmp_path / f"zero.{kind}").write_bytes(b"{" if kind == "jsonl" else b"")
    with pytest.raises(InvalidData, match=rf"zero.{kind} is not a readable {kind} file"):
        opened(kind, tmp_path)
