"""Evaluate jobs: figures, report and run; a page that a browser shows, in which the data's texts stay texts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from genai_core.errors import InvalidData, SchemaMismatch
from genai_core.evaluation.measures import MEASURES
from jobs.cli import main
from pipelines import evaluate, tracking
from pipelines.context import Context
from pipelines.evaluate import EvaluateJob
from pipelines.pages import evaluation_page
from tests.browser import Browser, needs_browser
from tests.pipelines.test_report import HOSTILE, Shape

QUIET = Context(log=lambda text: None)


def rows(seed: int, number: int = 240) -> pa.Table:
    random = np.random.default_rng(seed)
    town = random.choice(["Bern", HOSTILE, "Rome"], number, p=[0.5, 0.3, 0.2])
    size = random.normal(10, 2, number).round(2)
    return pa.table({"town": town, HOSTILE: size, "late": size > 11})


@pytest.fixture
def spec(workplace: Path) -> dict[str, Any]:
    for seed, name in enumerate(("train", "unseen", "made")):
        Path(name).mkdir()
        pq.write_table(rows(seed), f"{name}/a.parquet")
    sources = {
        label: {"kind": "parquet", "path": path}
        for label, path in (("real", "train"), ("holdout", "unseen"), ("synthetic", "made"))
    }
    return {**sources, "rows": 200, "sink": {"path": "out"}, "track": {"enabled": False}}


def run(spec: dict[str, Any], **changes: Any) -> dict[str, Any]:
    job = EvaluateJob.model_validate({**spec, **changes})
    evaluate.check(job, QUIET)
    return evaluate.run(job, QUIET)


def test_the_command_evaluates_a_job_file_tells_mlflow_and_does_not_do_it_twice(
    spec: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str], empty_database: Path
) -> None:
    shutil.copy(empty_database, "mlflow.db")
    text = json.dumps({"job": "evaluate", **spec, "target": "late", "track": {"experiment": "trust"}})
    Path("job.yaml").write_text(text)
    assert main(["check", "job.yaml", "--json"]) == 0
    assert main(["evaluate", "job.yaml", "--json"]) == 0
    line = json.loads(capfd.readouterr().out.splitlines()[-1])
    found = json.loads(Path("out/evaluation.json").read_text())
    assert set(found["measures"]) <= set(MEASURES) and "utility" in found["measures"]
    assert line["measures"]["c2st_auc"] == round(found["measures"]["c2st_auc"]["synthetic"]["value"], 4)
    assert found["sources"]["holdout"]["path"] == "unseen" and found["details"]["searched"] == 240
    told = tracking._client("sqlite:///mlflow.db").get_run(line["run_id"])
    assert told.data.metrics["c2st_auc"] == pytest.approx(line["measures"]["c2st_auc"], abs=1e-4)
    assert "c2st_auc_real" in told.data.metrics
    before = Path("out/evaluation.json").stat().st_mtime_ns
    assert main(["run", "job.yaml", "--json"]) == 0  # `genai run` does the same
    assert json.loads(capfd.readouterr().out.splitlines()[-1])["reused"]
    assert Path("out/evaluation.json").stat().st_mtime_ns == before
    Path("other.yaml").write_text("job: generate\nmodel: m\nrows: 5\nsink: {path: x}\n")
    assert main(["evaluate", "other.yaml", "--json"]) == 2


def test_what_cannot_be_compared_is_refused_before_work(spec: dict[str, Any]) -> None:
    with pytest.raises(SchemaMismatch, match="no column 'fare'"):
        run(spec, target="fare")
    with pytest.raises(InvalidData, match="same records"):
        run(spec, holdout=spec["real"])
    pq.write_table(rows(1).drop_columns(["town"]), "unseen/a.parquet")
    with pytest.raises(SchemaMismatch, match="holdout: unseen has no column 'town'"):
        run(spec)
    assert not Path("out").exists()


@needs_browser
def test_a_browser_shows_the_report_and_the_datas_texts_stay_texts(
    spec: dict[str, Any], tmp_path: Path
) -> None:
    made = rows(3, 400)
    made = made.filter(pa.array([town != "Rome" for town in made["town"].to_pylist()]))
    pq.write_table(made, "made/a.parquet")
    run(spec)
    found = json.loads(Path("out/evaluation.json").read_text())
    found["details"]["columns"] *= 40  # as of a wide table
    found["details"]["pairs"]["losses"] *= 300
    Path("out/wide.html").write_bytes(evaluation_page.page(found, HOSTILE))
    assert Path("out/wide.html").stat().st_size < 2_000_000
    text = Path("out/report.html").read_text()
    shape = Shape(text)
    assert not shape.open and "script" not in shape.seen and "\x1b" not in text
    assert not [name for name, _ in shape.attributes if name.startswith("on")]
    assert "prefers-color-scheme: dark" in text
    with Browser(tmp_path) as browser:
        browser.open(Path("out/wide.html").resolve())
        took = "performance.getEntriesByType('navigation')[0].loadEventEnd"
        assert browser.run(took) > 0
        assert browser.run("document.title").startswith("<script>") and not browser.errors
        assert browser.run("document.querySelectorAll('svg[role=img][aria-label]').length") > 60
        assert "town = Rome never occurs" in browser.run("document.querySelector('.verdicts').innerText")
        assert browser.run("document.documentElement.scrollWidth <= window.innerWidth")
