"""The report: it shows what was found, needs nothing from elsewhere, and what the data says stays text."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from genai_core.drift import Shift
from pipelines import lake
from pipelines.context import Context
from pipelines.lake import LakeJob
from pipelines.lakes.partitions import Partition
from pipelines.pages.report import Findings, natural, page

HOSTILE = "<script>document.title='pwned'</script>\x1b[31m\"'&"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
VOID = {"meta", "line", "rect", "br"}


def findings(**changes: Any) -> Findings:
    partitions = [Partition(f"month={m}", 1000 * m, m) for m in range(1, 13)]
    partitions[3] = Partition("month=4", 4000, 0, Shift(0.4, 1e-9, True), {HOSTILE: Shift(0.3, 1e-9)}, True)
    why = [
        {"column": "tailnum", "nats": 7.24, "value": None, "expected": "N14228"},
        {"column": HOSTILE, "nats": 3.0, "value": HOSTILE, "expected": HOSTILE},
    ]
    row = {
        "id": 7,
        "town": HOSTILE,
        "source_file": HOSTILE,
        "source_row": 3,
        "nll": 88.25,
        "p_value": 5e-5,
        "why": why,
    }
    fields: dict[str, Any] = {
        "title": HOSTILE,
        "score": "nll",
        "unit": "nats",
        "facts": {"Rows": "78,000 of lake", "Model": HOSTILE},
        "partitions": partitions,
        "histogram": {
            "edges": np.linspace(0, 60, 61),
            "rows": np.arange(60),
            "held_out": np.arange(60)[::-1],
        },
        "cut": 55.0,
        "listed": [row],
        "history": {"run=1": [{"rows": 10, "flagged": 1}], HOSTILE: [{"rows": 20, "flagged": 4}]},
        "skipped": {HOSTILE: "torn"},
        "drifted": {"a.parquet": HOSTILE},
    }
    return Findings(**fields | changes)


class Shape(HTMLParser):
    """Which elements there are, and whether every one is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.open: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def test_what_the_data_says_stays_text() -> None:
    text = page(findings()).decode()
    shape = Shape(text)
    assert not shape.open and "script" not in shape.seen
    names = {name for name, _ in shape.attributes}
    assert not {name for name in names if name.startswith("on")} and not names & {"src", "href"}
    assert "\x1b" not in text and "\\x1b" in text
    assert not re.search(r"https?://|url\(|@import", text)


def test_it_says_what_was_found_why_and_what_moved() -> None:
    text = page(findings()).decode()
    assert "tailnum missing: 7.2 nats, expected N14228" in text
    assert "scores up by 40% of the mass" in text and "rows withheld" in text
    assert text.index(">month=2<") < text.index(">month=10<")
    assert text.count('class="flag"') == 12 + 2 and 'class="cut"' in text
    empty = page(
        findings(partitions=(), histogram=None, cut=None, listed=(), history={}, skipped={}, drifted={})
    ).decode()
    assert "No row is flagged" in empty and "<svg" not in empty and not Shape(empty).open


def test_partitions_sort_by_their_numbers() -> None:
    assert sorted(["m=10", "m=9", "a=2/b=11", "a=2/b=3", ""], key=natural) == [
        "",
        "a=2/b=3",
        "a=2/b=11",
        "m=9",
        "m=10",
    ]


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium")
def test_a_browser_shows_it(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_bytes(page(findings()))
    done = subprocess.run(
        [
            str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
            "--virtual-time-budget=2000", "--dump-dom", f"file://{file}",
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    title = re.search(r"<title>(.*?)</title>", done.stdout)
    assert title is not None and title[1].startswith("&lt;script&gt;")  # no script has run
    assert done.stdout.count("<rect") > 60 and "tailnum missing: 7.2 nats" in done.stdout


def test_a_lake_job_reports_a_partition_that_moved_as_drift_and_flags_none_of_its_rows(
    workplace: Path, drifting_model: tuple[Path, Any]
) -> None:
    directory, rows = drifting_model
    odd = rows(1000, 0)
    odd = odd.set_column(1, "size", pa.array([90.0] * 100 + odd["size"].to_pylist()[100:]))
    for name, table in (("day=1", odd), ("day=2", rows(1000, 3)), ("day=10", rows(1000, 0))):
        Path("lake", name).mkdir(parents=True)
        pq.write_table(table, f"lake/{name}/a.parquet")
    fields = {"model": str(directory), "source": {"kind": "parquet", "path": "lake"}, "sink": {"path": "out"}}
    job = LakeJob.model_validate(
        {
            **fields,
            "fdr": 0.1,
            "keep": ["town"],
            "scores": ["negative_log_likelihood"],
            "track": {"enabled": False},
        }
    )
    quiet = Context(log=lambda text: None)
    result = lake.run(job, quiet)
    assert (result["moved_partitions"], result["withheld_partitions"], result["withheld_rows"]) == (
        1,
        1,
        1000,
    )
    listed = pq.read_table(Path("out", result["run"], "_anomalies.parquet"))
    assert "day=2/a.parquet" not in listed["source_file"].to_pylist()
    assert (
        sum(row["source_file"] == "day=1/a.parquet" and row["source_row"] < 100 for row in listed.to_pylist())
        == 100
    )
    reasons = [row["why"][0] for row in listed.to_pylist()[:5]]
    assert {(reason["column"], reason["value"]) for reason in reasons} == {("size", "90")}
    assert all(-3 < float(reason["expected"]) < 3 for reason in reasons)  # what size usually is
    text = Path("out/_report.html").read_text()
    assert "Partitions that moved as a whole" in text and "rows withheld" in text and "size 90: " in text
    Path("lake/day=11").mkdir()
    pq.write_table(rows(200, 0), "lake/day=11/a.parquet")
    second = lake.run(job, quiet)
    assert second["moved_partitions"] == 0
    assert "Run after run" in Path("out/_report.html").read_text()


def test_that_a_partition_has_one_value_of_its_key_is_no_drift(
    workplace: Path, drifting_model: tuple[Path, Any]
) -> None:
    directory, rows = drifting_model
    table = rows(3000, 0)
    for town in ("Bern", "Oslo", "Rome"):
        Path(f"lake/town={town}").mkdir(parents=True)
        pq.write_table(table.filter(pc.field("town") == town), f"lake/town={town}/a.parquet")
    fields = {"model": str(directory), "source": {"kind": "parquet", "path": "lake"}, "sink": {"path": "out"}}
    scores = {"scores": ["negative_log_likelihood"], "fdr": 0.1}
    result = lake.run(
        LakeJob.model_validate({**fields, **scores, "track": {"enabled": False}}), Context(log=print)
    )
    found = json.loads(Path("out", result["run"], "_partitions.json").read_text())
    assert set(found) == {"town=Bern", "town=Oslo", "town=Rome"}
    assert not any("town" in facts.get("columns", {}) for facts in found.values())


@pytest.fixture(scope="module")
def drifting_model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A model of towns and sizes, and a maker of rows whose sizes are shifted."""
    from genai_core import fit

    random = np.random.default_rng(0)

    def rows(number: int, shift: float) -> pa.Table:
        town = pa.array(random.choice(["Bern", "Oslo", "Rome"], number))
        return pa.table({"town": town, "size": random.normal(shift, 1, number).round(1)})

    directory = tmp_path_factory.mktemp("drift") / "model"
    fit(rows(4000, 0), max_epochs=2, seed=1, model={"context": 16, "hidden": 8, "embedding": 4}).save(
        directory
    )
    return directory, rows
