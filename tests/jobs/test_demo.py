"""demo.py and demo_report.py: the whole demo in small, twice, and what it prints."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest

from genai_core.evaluation.fidelity import Fidelity, Likeness
from genai_core.evaluation.two_sample import Giveaway
from jobs import demo, demo_report

SMALLER = {
    "train_flights.yaml": ["source.filter=month == 1", "fit.max_seconds=3"],
    "generate_flights.yaml": ["rows=3000"],
    "score_flights.yaml": ["source.filter=month == 12 and day <= 2"],
}


def test_the_demo_in_small_runs_and_the_second_time_reuses_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = demo.genai

    def smaller(arguments: list[str], **options: Any) -> Any:
        overrides = SMALLER.get(Path(arguments[-1]).name, [])
        return whole([*arguments, *(word for one in overrides for word in ("--set", one))], **options)

    monkeypatch.setattr(demo, "genai", smaller)
    monkeypatch.setattr(demo_report, "ROWS", 1000)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # the demo keeps to itself
    monkeypatch.chdir(tmp_path)
    assert demo.main() == 0
    first = capfd.readouterr().out
    assert all(len(line) <= 120 for line in first.splitlines())
    for told in ("C2ST AUC", " 10  2013-12-", "trained by train-", "models:/flights/1", "demo/mlflow.db"):
        assert told in first
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]

    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "demo").rglob("*.parquet")}
    assert demo.main() == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "demo").rglob("*.parquet")} == stamps
    assert "models:/flights/1" in capfd.readouterr().out


def test_a_job_that_fails_ends_the_demo_with_its_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo.flights_lake, "build", lambda path: path)
    monkeypatch.setattr(demo, "JOBS", {"train": "no_such_job.yaml"})
    assert demo.main() == 2
    assert "no_such_job.yaml" in capfd.readouterr().err


def test_output_of_an_older_model_makes_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo" / "out" / "synthetic").mkdir(parents=True)
    demo.forget_output()
    assert not (tmp_path / "demo" / "out").exists()
    demo.forget_output()


def test_the_fidelity_table_has_the_real_row_beside_it() -> None:
    alike = Likeness(20_000, 0.991, 0.98, 0.5, {"a": 0.991}, ())
    giveaways = (Giveaway("dest", 0.2), Giveaway("day", 0.001))
    text = demo_report.fidelity_table(
        Fidelity(Likeness(20_000, 0.9, None, 0.75, {"a": 0.9}, giveaways), alike), (0.5, 0)
    )
    lines = text.splitlines()
    assert lines[0].startswith("20,000 rows each")
    assert lines[3].split() == ["synthetic", "0.900", "-", "0.750", "50.00%"]
    assert lines[4].split() == ["real", "0.991", "0.980", "0.500", "0.00%"]
    assert "dest (+0.200)" in lines[-1] and "day" not in lines[-1]


def test_hashes_and_paths_are_cut_to_fit_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = demo_report._shortened(f"  └─ sha256:{'ab' * 32} {tmp_path}/demo/out {'word ' * 20}")
    assert text.startswith("  └─ sha256:abababababab... demo/out word")
    assert [len(line) - len(line.lstrip()) for line in text.splitlines()] == [2, 7]


def test_a_flight_is_named_by_its_hour_in_utc() -> None:
    row = {"carrier": "UA", "flight": 15, "origin": "EWR", "dest": "HNL"}
    when = dt.datetime(2013, 12, 1, 9, tzinfo=dt.timezone(dt.timedelta(hours=-5)))
    assert demo_report._flight(row | {"time_hour": when}) == "2013-12-01 14:00Z  UA 15    EWR → HNL"
