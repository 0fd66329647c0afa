"""The nightly lake job that ships, run by slot as a scheduler runs it: what came since, and what came late."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from genai_core import fit
from jobs.cli import main
from jobs.flights_lake import read

SPEC = Path(__file__).parents[2] / "jobs" / "specs" / "lake_flights.yaml"


@pytest.fixture(scope="module")
def flights() -> pa.Table:
    """Three days of flights."""
    return read().filter((pc.field("month") == 1) & (pc.field("day") <= 3))


@pytest.fixture(scope="module")
def model(flights: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("nightly") / "model"
    small = {"context": 16, "hidden": 8, "embedding": 4}
    kept = flights.drop_columns(["month", "day", "time_hour"])
    fit(kept, seed=1, max_epochs=1, model=small).save(directory)
    return directory


def put(flights: pa.Table, day: int, name: str, rows: slice = slice(None)) -> None:
    folder = Path("lake/flights/month=1", f"day={day}")
    folder.mkdir(parents=True, exist_ok=True)
    table = flights.filter(pc.field("day") == day).drop_columns(["month", "day"])
    pq.write_table(
        table.slice(rows.start or 0, (rows.stop or table.num_rows) - (rows.start or 0)), folder / name
    )


def night(model: Path, slot: str, capfd: pytest.CaptureFixture[str]) -> dict:
    """The command of the scheduler; what its last line says."""
    sets = [f"model={model}", "track.enabled=false"]
    words = [word for one in sets for word in ("--set", one)]
    assert main(["run", str(SPEC), "--slot", slot, "--quiet", *words]) == 0
    return json.loads(capfd.readouterr().out.splitlines()[-1])


def test_nights(
    flights: pa.Table,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    days = [pc.sum(pc.equal(flights["day"], day)).as_py() for day in (1, 2, 3)]
    put(flights, 1, "a.parquet")
    assert night(model, "2013-01-02", capfd)["rows"] == days[0]
    put(flights, 2, "a.parquet", slice(0, 500))
    assert night(model, "2013-01-03", capfd)["rows"] == 500
    again = night(model, "2013-01-03", capfd)  # the scheduler tries a night again
    assert again["reused"] and again["rows"] == 0
    put(flights, 2, "late.parquet", slice(500, None))
    put(flights, 3, "a.parquet")
    third = night(model, "2013-01-04", capfd)
    assert third["rows"] == days[1] - 500 + days[2]
    assert third["files"] == {"files": 2, "unchanged": 2, "skipped": 0, "deleted": 0}
    found = pq.read_table("out/flights-scores", partitioning="hive")
    assert found.num_rows == sum(days) and {"run", "month", "day"} <= set(found.column_names)
    page = Path("out/flights-scores/_report.html").read_text()
    assert "Run after run" in page and "month=1/day=3" in page


def test_it_can_be_scheduled_with_one_sink_for_all_nights(capfd: pytest.CaptureFixture[str]) -> None:
    command = ["schedule", str(SPEC), "--cron", "0 2 * * *", "--timezone", "America/New_York", "--as", "cron"]
    assert main(command) == 0
    assert "lake_flights.yaml" in capfd.readouterr().out
