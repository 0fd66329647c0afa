"""The report of a fit: curves, limits, what was done; a train job logs it, also when it fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from genai_core.errors import TrainingFailed
from genai_core.loop import Fit
from genai_core.monitors.signals import signal
from pipelines import train
from pipelines.context import Context
from pipelines.pages.training_report import training_page
from pipelines.tracking import Run
from pipelines.train import TrainJob
from tests.browser import Browser, needs_browser
from tests.contract.spaces import small_table


def facts(**event: Any) -> dict[str, Any]:
    """As a checkpoint keeps them."""
    history = [
        {"step": 10.0 * i, "validation_loss": 3.0 - i / 4, "loss_fit": 3.0, "health_coverage": 0.3 * i}
        for i in range(1, 4)
    ]
    found = {"step": 20, **signal("coverage", 0.3, "made records cover 30% <b>").as_dict(), "did": "back"}
    health = {"events": [found | event]}
    return {"history": history, "health": health, "best": 2.25, "best_step": 30, "step": 30, "seconds": 4.0}


def test_the_page_shows_curves_limits_and_what_was_done_when_and_runs_nothing() -> None:
    page = training_page("<script>alert(1)</script>", facts())
    assert page.count("<svg") == 3  # validation loss, training losses, coverage
    assert 'class="warn"' in page and 'class="act"' in page and 'class="mark"' in page
    assert "Alarms: coverage." in page
    assert "went back to the last good weights" in page
    assert "<script" not in page and "30% &lt;b&gt;" in page
    assert "http" not in page.replace("http-equiv", "")


@needs_browser
def test_a_browser_draws_lines_and_fills_nothing(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text(training_page("x", facts()))
    with Browser(tmp_path) as browser:
        browser.open(tmp_path / "report.html")
        fills = browser.run("[...document.querySelectorAll('path')].map(p => getComputedStyle(p).fill)")
        assert len(fills) > 6 and set(fills) == {"none"}
        assert browser.errors == []


def test_a_page_of_a_fit_that_failed_before_its_first_validation() -> None:
    empty = {"history": [], "health": {}, "best": float("inf"), "best_step": 0, "step": 0, "seconds": 0.0}
    assert "No alarm." in training_page("x", empty)


def test_a_train_job_logs_its_report_and_says_what_was_found_also_when_it_fails(
    tracked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq.write_table(small_table(300), tracked / "data.parquet")
    kept: dict[str, Any] = {}
    monkeypatch.setattr(Run, "log_artifact", lambda self, content, name: kept.update({name: content}))
    said: list[str] = []
    job = TrainJob.model_validate(
        {
            "job": "train",
            "name": "small",
            "source": {"kind": "parquet", "path": "data.parquet"},
            "model": {"kind": "autoregressive", "context": 16, "hidden": 16, "embedding": 4},
            "fit": {"max_epochs": 2, "evaluations": 2},
            "track": {"enabled": False},
            "sink": {"path": "model"},
        }
    )
    gradient = Fit._gradient
    monkeypatch.setattr(Fit, "_gradient", lambda *a: tuple(v * float("nan") for v in gradient(*a)))
    with pytest.raises(TrainingFailed, match="not finite"):
        train.run(job, Context(log=said.append))
    assert "not finite" in kept["training_report.html"]
    assert any("small: step 0: alarm: not_finite" in line and "went back" in line for line in said)
