"""A lake job with `calibration: weighted`: a part that moved has p-values of its own, in any shards, and says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from genai_core import fit
from genai_core.errors import MissingCapability
from pipelines import lake
from pipelines.context import Context
from pipelines.lake import LakeJob
from pipelines.score import ScoreJob, score_names

QUIET = Context(log=lambda _: None)
ODD = 200


def rows(seed: int, number: int, oslo: float, other: str = "B") -> pa.Table:
    """Sizes scatter in Oslo three times as widely as elsewhere; so they are odder there, and are no anomalies."""
    random = np.random.default_rng(seed)
    town = np.where(random.random(number) < oslo, "Oslo", random.choice(["Bern", "Rome"], number))
    size = random.normal(0, np.where(town == "Oslo", 3.0, 1.0)).round(1)
    return pa.table({"town": town, "size": size, "grade": random.choice(["A", other], number)})


def with_odd(table: pa.Table) -> pa.Table:
    size = table["size"].to_numpy().copy()
    size[:ODD] = 60
    return table.set_column(1, "size", pa.array(size))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("weighted") / "model"
    settings = {"context": 16, "hidden": 16, "embedding": 4}
    fit(rows(0, 12_000, 0.1), max_epochs=3, seed=1, model=settings).save(directory)
    return directory


def scored(model: Path, out: str, **changes: Any) -> tuple[dict[str, Any], pa.Table, dict[str, Any]]:
    """The result of a job, its list, and what it says of the partitions."""
    fields = {"model": str(model), "source": {"kind": "parquet", "path": "lake"}, "sink": {"path": out}}
    fields |= {"scores": ["negative_log_likelihood"], "fdr": 0.3, "track": {"enabled": False}}
    result = lake.run(LakeJob.model_validate(fields | changes), QUIET)
    run = Path(out, result["run"])
    return (
        result,
        pq.read_table(run / "_anomalies.parquet"),
        json.loads((run / "_partitions.json").read_text()),
    )


def write(**tables: pa.Table) -> None:
    for day, table in tables.items():
        Path("lake", f"day={day[1:]}").mkdir(parents=True)
        pq.write_table(table, Path("lake", f"day={day[1:]}", "a.parquet"))


def wrongly(listed: pa.Table) -> int:
    """Listed rows that nobody made odd."""
    return int(pc.sum(pc.greater_equal(listed["source_row"], ODD)).as_py() or 0)


def test_fewer_rows_of_a_part_that_moved_are_flagged_wrongly_and_no_anomaly_is_lost(
    workplace: Path, model: Path
) -> None:
    write(d1=with_odd(rows(1, 3000, 0.1)), d2=with_odd(rows(2, 3000, 0.35)))
    _, plain, _ = scored(model, "plain")
    result, listed, parts = scored(model, "weighted", calibration="weighted")
    assert result["weighted_partitions"] == 1 and "weighted" not in parts["day=1"]
    assert parts["day=2"]["weighted"] and 300 < parts["day=2"]["effective_rows"] < 3000
    assert wrongly(plain) > 0.35 * plain.num_rows and wrongly(listed) < 0.3 * listed.num_rows
    assert listed.num_rows - wrongly(listed) == 2 * ODD  # all that were made odd
    own = pc.field("source_file") == "day=1/a.parquet"
    assert listed.filter(own)["weighted_p_value"].equals(listed.filter(own)["p_value"])
    moved = listed.filter(~own)
    assert pc.all(pc.greater(moved["weighted_p_value"], moved["p_value"])).as_py()
    assert pc.max(listed["weighted_p_value"]).as_py() <= 0.3
    names = pq.read_schema(next(Path("weighted", result["run"], "data").rglob("*.parquet"))).names
    assert "weighted_p_value" not in names and "weighted_p_value" not in plain.column_names
    report = Path("weighted", result["run"], "_report.html").read_text()
    assert "1 partition(s) whose columns moved have p-values of their own" in report
    assert "effective held-out rows" in report


def test_a_part_that_moved_is_not_withheld_when_its_own_p_values_are_as_they_should_be(
    workplace: Path, model: Path
) -> None:
    write(d1=rows(7, 3000, 0.1), d2=with_odd(rows(8, 3000, 0.55)))
    result, plain, _ = scored(model, "plain")
    assert result["withheld_partitions"] == 1 and plain.num_rows < 10
    result, listed, parts = scored(model, "weighted", calibration="weighted")
    assert result["withheld_partitions"] == 0 and "scores" not in parts["day=2"]
    assert listed.num_rows - wrongly(listed) >= ODD and wrongly(listed) < 0.35 * listed.num_rows


def test_the_list_is_the_same_in_any_shards(workplace: Path, model: Path) -> None:
    write(d1=rows(3, 1500, 0.1), d2=with_odd(rows(4, 1500, 0.55)))
    whole = scored(model, "whole", calibration="weighted")
    cut = scored(model, "cut", calibration="weighted", rows_per_shard=170)
    assert whole[1].equals(cut[1]) and whole[2] == cut[2] and whole[1].num_rows >= ODD


def test_a_part_that_too_few_held_out_rows_are_like_keeps_its_p_values_and_the_report_says_so(
    workplace: Path, model: Path
) -> None:
    table = rows(5, 2000, 0.1)
    lonely = table.filter(pc.and_(pc.equal(table["town"], "Oslo"), pc.greater(table["size"], 5.5)))
    lonely = pa.concat_tables([lonely] * (1 + 200 // lonely.num_rows))
    write(d1=rows(6, 1000, 0.1), d2=lonely)
    result, listed, parts = scored(model, "out", calibration="weighted")
    assert parts["day=2"]["weighted"] is False and parts["day=2"]["effective_rows"] < 100
    assert result["weighted_partitions"] == 0
    assert listed["weighted_p_value"].equals(listed["p_value"])
    assert "1 would have fewer than 100" in Path("out", result["run"], "_report.html").read_text()


def test_it_is_for_tables() -> None:
    fields = {"model": "m", "source": {"kind": "images", "path": "p"}, "sink": {"path": "out"}}
    job = ScoreJob.model_validate(fields | {"calibration": "weighted"})
    with pytest.raises(MissingCapability, match=r"weighted is for tables.*image.*plain"):
        score_names(job, "vae", "image")
