"""Human judgement: pages that people click through in a real browser, and what their answers come to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from genai_core.errors import InvalidInput, OutputExists
from genai_core.evaluation.fooling import Answers, fooling, rate_of
from genai_core.pictures.encoded import png
from jobs.cli import main
from pipelines import judge
from pipelines.context import Context
from pipelines.judge import JudgeJob
from tests.browser import Browser, needs_browser

QUIET = Context(log=lambda text: None)
EVIL = "<img src=x onerror=alert(1)>\x1b[31m"


def picture(level: int) -> bytes:
    return png(Image.fromarray(np.full((8, 8), level, np.uint8)))


@pytest.fixture
def spec(workplace: Path) -> dict[str, Any]:
    """Real pictures are dark, synthetic ones bright, but for one that was copied."""
    for name, levels in (("real", range(0, 60)), ("made", [*range(200, 239), 7])):
        Path(name).mkdir()
        pq.write_table(pa.table({"picture": [picture(level) for level in levels]}), f"{name}/a.parquet")
    sources = {
        label: {"kind": "parquet", "path": path} for label, path in (("real", "real"), ("synthetic", "made"))
    }
    return {**sources, "modality": {"kind": "image"}, "pairs": 8, "seed": 3, "sink": {"path": "out"}}


def run(spec: dict[str, Any], **changes: Any) -> dict[str, Any]:
    job = JudgeJob.model_validate({**spec, **changes})
    judge.check(job, QUIET)
    return judge.run(job, QUIET)


@needs_browser
def test_people_click_through_the_pairs_save_their_answers_and_are_counted(
    spec: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(spec)["pairs"] == 8
    real_is = json.loads(Path("out/key.json").read_text())["real_is"]
    bright = """(() => { const pair = document.querySelector(".pair:not([hidden])");
        return [...pair.querySelectorAll("img")].map(img => {
          const c = document.createElement("canvas").getContext("2d"); c.drawImage(img, 0, 0);
          return c.getImageData(0, 0, 1, 1).data[0]; }); })()"""
    with Browser(tmp_path) as browser:
        browser.open(Path("out/blind.html").resolve())
        assert browser.run("document.querySelectorAll('.pair:not([hidden])').length") == 1
        for number in range(8):
            left, right = browser.run(bright)
            side = "left" if left < right else "right"
            # the first seven are judged by what is seen, half of them by key; in the last, somebody is fooled
            chosen = side if number < 7 else {"left": "right", "right": "left"}[side]
            if number % 2:
                browser.press("ArrowLeft" if chosen == "left" else "ArrowRight")
            else:
                browser.click(f".pair:not([hidden]) button[data-side={chosen}]")
            browser.wait_for(f"document.querySelector('progress').value === {number + 1}")
        browser.run("document.getElementById('judge').value = 'Eva/<b>'")
        browser.click("#keep")
        saved = browser.downloaded("answers-Eva__b_.json")
        assert browser.errors == []
    found = judge.judged("out", [str(saved)])
    assert list(found.judges) == ["Eva/<b>"]
    wrong = [trial for trial, side in enumerate(real_is) if answer_of(saved, trial) != side]
    assert found.all.fooled == len(wrong) and 7 in wrong and len(wrong) <= 2  # the copy looks real, too
    assert main(["judge", "out", str(saved)]) == 0
    said = capfd.readouterr()
    assert json.loads(said.out.splitlines()[-1])["fooled"] == len(wrong)
    assert "of 8 pairs" in said.err and "compatible with guessing" in said.err


def answer_of(saved: Path, trial: int) -> str:
    answers = {answer["trial"]: answer["chosen"] for answer in json.loads(saved.read_text())["answers"]}
    return str(answers[trial])


def test_nothing_on_the_page_gives_the_sides_away_and_the_copy_is_found(spec: dict[str, Any]) -> None:
    run(spec)
    page, key = Path("out/blind.html").read_text(), json.loads(Path("out/key.json").read_text())
    assert {"left", "right"} == set(key["real_is"]) and key["job_id"] not in page
    assert "real_is" not in page and "made" not in page.replace("was made by a model", "")
    assert "script-src 'sha256-" in page and "unsafe-inline'; script" not in page
    neighbours = Path("out/neighbours.html").read_text()
    assert neighbours.count('class="copy"') == 1 and "1 of them are copies" in neighbours
    assert run(spec)["reused"] is True
    with pytest.raises(OutputExists, match="another job"):
        run(spec, seed=4)


def test_rows_and_texts_are_escaped(workplace: Path) -> None:
    pq.write_table(pa.table({"name": [EVIL] * 20, "n": range(20)}), "a.parquet")
    source = {"kind": "parquet", "path": "a.parquet"}
    for modality in ({"kind": "tabular"}, {"kind": "text", "column": "name"}):
        out = str(modality["kind"])
        spec = {"real": source, "synthetic": source, "modality": modality, "pairs": 4, "sink": {"path": out}}
        run(spec)
        for page in ("blind.html", "neighbours.html"):
            text = Path(out, page).read_text()
            assert "&lt;img src=x" in text and "<img src=x" not in text and "\x1b" not in text
            assert "\\x1b[31m" in text


def test_answers_that_do_not_belong_are_refused(
    spec: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    run(spec)
    page = json.loads(Path("out/key.json").read_text())["page"]
    one = {"trial": 0, "chosen": "left", "milliseconds": 5}
    bad = {
        "belong to other pages": {"page": "x", "answers": [one]},
        "not what the page saves": {"page": page, "answers": [one | {"chosen": "middle"}]},
        "name a pair twice": {"page": page, "answers": [one, one]},
        "more than 8": {"page": page, "answers": [one | {"trial": 8}]},
    }
    for message, content in bad.items():
        Path("answers.json").write_text(json.dumps(content))
        with pytest.raises(InvalidInput, match=message):
            judge.judged("out", ["answers.json"])
    assert main(["judge", "real", "answers.json"]) == 2
    assert "give the output of a judge job" in capfd.readouterr().err


def test_the_rate_and_its_interval() -> None:
    # Clopper-Pearson for 3 of 10: the textbook's .0667 to .6525
    rate = rate_of([True] * 3 + [False] * 7)
    assert (rate.rate, round(rate.low, 4), round(rate.high, 4)) == (0.3, 0.0667, 0.6525)
    answers = [{"trial": i, "chosen": "left"} for i in range(4)]
    two = [Answers.model_validate({"page": "p", "judge": name, "answers": answers}) for name in ("", "Bo")]
    found = fooling(two, ["left", "left", "right", "left"])
    assert (found.all.pairs, found.all.fooled) == (8, 2)
    assert {name: judged.fooled for name, judged in found.judges.items()} == {"judge 1": 1, "Bo": 1}
