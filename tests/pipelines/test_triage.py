"""Triage: anomalies are accepted and rejected in a real browser, and the labels are what a job reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.cli import main
from pipelines import score
from pipelines.context import Context
from pipelines.score import ScoreJob
from tests.browser import Browser, needs_browser

QUIET = Context(log=lambda text: None)
EVIL = '<script>document.title="run"</script>'


@pytest.fixture
def spec(workplace: Path, small_model: Path, small_table: pa.Table) -> dict[str, Any]:
    """Rows of which some are strange, in a file whose name a CSV has to quote."""
    delays = small_table["delay"].to_numpy().copy()
    delays[::60] = 1e6
    table = small_table.set_column(1, "delay", pa.array(delays)).append_column("id", pa.array([EVIL] * 600))
    Path("lake").mkdir()
    pq.write_table(table, 'lake/a "b", c.parquet')
    fields = {
        "source": {"kind": "parquet", "path": "lake"},
        "scores": ["negative_log_likelihood"],
        "top_k": 10,
    }
    return {**fields, "model": str(small_model), "keep": ["id"], "track": {"enabled": False}}


def run(spec: dict[str, Any], out: str, **changes: Any) -> pa.Table:
    score.run(ScoreJob.model_validate({**spec, "sink": {"path": out}, **changes}), QUIET)
    return pq.read_table(f"{out}/_anomalies.parquet")


@needs_browser
def test_labels_are_clicked_saved_and_read(spec: dict[str, Any], tmp_path: Path) -> None:
    listed = run(spec, "first")
    assert main(["triage", "first"]) == 0
    with Browser(tmp_path) as browser:
        browser.open(Path("first/_triage.html").resolve())
        assert (
            browser.run("document.title") == "Which of these are anomalies?"
        )  # no script of the data's has run
        assert browser.run("document.getElementById('keep').disabled")
        browser.click("li.one:nth-of-type(1) button.reject")
        browser.click("li.one:nth-of-type(2) button.accept")
        browser.press("j")
        browser.press("r")  # the third
        browser.press("a")  # the fourth, to which a label goes on
        browser.click("li.one:nth-of-type(4) button.accept")  # taken back
        browser.wait_for("document.getElementById('said').textContent === '3 of 10 judged'")
        browser.click("#keep")
        labels = browser.downloaded("labels.csv")
        assert browser.errors == []
    again = run(spec, "second", labels=str(labels))
    rows = listed["source_row"].to_pylist()
    assert rows[0] not in again["source_row"].to_pylist() and rows[2] not in again["source_row"].to_pylist()
    assert rows[1] in again["source_row"].to_pylist()


def test_what_has_no_anomalies_is_refused(workplace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Path("empty").mkdir()
    assert main(["triage", "empty"]) == 2
    assert "no finished output of a score or lake job" in capfd.readouterr().err
