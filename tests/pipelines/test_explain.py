"""`genai explain`: the row that is meant, the columns that make it odd, what would be normal, the row most like it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from genai_core import fit
from genai_core.errors import InvalidInput
from jobs.cli import main
from jobs.explain import render, wanted
from pipelines import lake, score
from pipelines.context import Context
from pipelines.explain import explain_rows
from pipelines.lake import LakeJob
from pipelines.score import ScoreJob

QUIET = Context(log=lambda text: None)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake of towns whose code and height follow from each other; of row 7 the code is another town's."""
    place = tmp_path_factory.mktemp("towns")
    random = np.random.default_rng(0)
    which = random.integers(0, 3, 3000)
    table = pa.table(
        {
            "town": np.array(["Bern", "Oslo", "Rome"])[which],
            "code": np.array(["BRN", "OSL", "FCO"])[which],
            "height": np.array([540, 20, 20])[which] + random.integers(-9, 10, 3000),
            "id": np.arange(3000),
        }
    )
    fit(table, exclude=["id"], seed=1, max_epochs=8, model={"context": 32, "hidden": 16}).save(
        place / "model"
    )
    rows = table.slice(0, 200).to_pylist()
    rows[7] |= {"town": "Bern", "code": "FCO", "height": 545}
    (place / "lake/day=1").mkdir(parents=True)
    pq.write_table(
        pa.Table.from_pylist(rows, table.schema), place / "lake/day=1/a.parquet", row_group_size=64
    )
    return place


def spec(home: Path, job: str) -> dict[str, Any]:
    source = {"kind": "parquet", "path": str(home / "lake"), "filter": "id < 150"}
    fields = {"model": str(home / "model"), "source": source, "sink": {"path": str(home / f"{job}d")}}
    return {
        **fields,
        "job": job,
        "keep": ["id", "town"],
        "scores": ["negative_log_likelihood"],
        "track": {"enabled": False},
    }


@pytest.fixture(scope="module", params=["score", "lake"])
def out(request: pytest.FixtureRequest, home: Path) -> str:
    if request.param == "score":
        score.run(ScoreJob.model_validate(spec(home, "score")), QUIET)
    else:
        lake.run(LakeJob.model_validate(spec(home, "lake")), QUIET)
    return str(home / f"{request.param}d")


def test_the_column_that_does_not_fit_is_named_with_what_would(out: str) -> None:
    (answer,) = explain_rows(out, {"id": "7"})
    assert answer["row"] == {"id": 7, "town": "Bern", "source_file": "day=1/a.parquet", "source_row": 7}
    by_column = {reason["column"]: reason for reason in answer["why"]}
    assert set(by_column) == {"town", "code", "height"}
    assert by_column["code"]["value"] == "FCO" and by_column["code"]["expected"] == "BRN"
    assert sum(reason["nats"] for reason in answer["why"]) == pytest.approx(
        answer["score"]["value"], rel=1e-5
    )
    assert answer["nearest"]["different"]["code"] == {"here": "FCO", "there": "BRN"}
    assert "town" not in answer["nearest"]["different"]
    text = render([answer])
    assert "code FCO: " in text and ", expected BRN" in text and "code: FCO here, BRN there" in text


def test_a_row_that_was_not_flagged_is_explained_too_and_several_may_be_meant(out: str) -> None:
    found = explain_rows(out, {"id": "3"}) + explain_rows(out, {"source_row": "149"})
    assert all(len(answer["why"]) == 3 for answer in found)
    with pytest.raises(InvalidInput, match="more than 20 rows match"):
        explain_rows(out, {"town": "Oslo"})
    with pytest.raises(InvalidInput, match="has id = 9999"):
        explain_rows(out, {"id": "9999"})
    with pytest.raises(InvalidInput, match="no column 'idd'; did you mean 'id'"):
        explain_rows(out, {"idd": "7"})


def test_on_the_command_line(out: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", out, "--row", "id=7", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"][0]["row"]["id"] == 7
    assert main(["explain", out, "--row", "id=7"]) == 0
    assert "expected BRN" in capsys.readouterr().out
    assert main(["explain", out, "--row", "id"]) == 2
    assert "COLUMN=VALUE" in capsys.readouterr().err
    assert main(["explain", str(Path(out).parent), "--row", "id=7"]) == 2
    assert "no finished output" in capsys.readouterr().err


def test_a_value_may_hold_an_equals_sign() -> None:
    assert wanted(["a=b=c", "n="]) == {"a": "b=c", "n": ""}
