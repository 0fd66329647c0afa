"""Augment jobs: every real row once, synthetic rows of the classes asked for, and a word on whether they help."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

import genai_core
from genai_core.errors import InvalidData, InvalidInput, JobFailed, OutputExists
from pipelines import augment
from pipelines.augment import SYNTHETIC, AugmentJob, rows_to_add
from pipelines.context import Context
from pipelines.outputs import footer as footers
from pipelines.provenance.verification import verify
from pipelines.provenance.watermarks import Detector
from pipelines.sources import open_source

TINY = {"context": 16, "hidden": 8, "embedding": 4}


@pytest.fixture
def spec(small_table: pa.Table, small_model: Path, workplace: Path) -> dict[str, Any]:
    Path("lake").mkdir()
    numbered = small_table.append_column("number", pa.array(range(600)))
    pq.write_table(numbered.slice(0, 250), "lake/a.parquet")
    pq.write_table(numbered.slice(250), "lake/b.parquet")
    return {
        "model": str(small_model),
        "source": {"kind": "parquet", "path": "lake"},
        "target": "late",
        "classes": {"true": 130},
        "rows_per_shard": 100,
        "check_seeds": 1,
        "seed": 3,
        "track": {"enabled": False},
    }


def job(spec: dict[str, Any], out: str = "out", **changes: Any) -> AugmentJob:
    return AugmentJob.model_validate({"sink": {"path": out}, **spec, **changes})


def run(spec: dict[str, Any], out: str = "out", **changes: Any) -> dict[str, Any]:
    said: list[str] = []
    return augment.run(job(spec, out, **changes), Context(log=said.append)) | {"said": "\n".join(said)}


def test_real_rows_stay_as_they_are_and_synthetic_ones_are_told_apart(spec: dict[str, Any]) -> None:
    result = run(spec, on_no_gain="skip")
    found = pq.read_table("out/data")
    assert (result["rows"], result["synthetic_rows"], result["added"]) == (730, 130, {"true": 130})
    real = found.filter(pa.compute.invert(found[SYNTHETIC])).drop_columns([SYNTHETIC]).sort_by("number")
    source = open_source(job(spec).source)
    assert real.equals(pa.concat_tables([pq.read_table("lake/a.parquet"), pq.read_table("lake/b.parquet")]))
    made = found.filter(found[SYNTHETIC])
    assert made["late"].to_pylist() == [True] * 130
    assert made["number"].null_count == 130  # the model does not know it
    assert "the model does not know number: null in synthetic rows" in result["said"]
    assert found.schema.remove(len(found.schema) - 1).equals(source.schema)


def test_every_file_says_whether_its_rows_are_synthetic(spec: dict[str, Any]) -> None:
    run(spec, on_no_gain="skip")
    for path in Path("out/data").iterdir():
        said = footers.read(pafs.LocalFileSystem(), str(path.absolute()))
        assert said is not None
        assert pq.read_table(path)[SYNTHETIC].unique().to_pylist() == [said["synthetic"]]


def test_the_same_job_gives_the_same_bytes(spec: dict[str, Any]) -> None:
    first, second = run(spec, on_no_gain="skip"), run(spec, "again", on_no_gain="skip")
    assert first["manifest"] == second["manifest"]
    assert run(spec, "other", on_no_gain="skip", seed=4)["manifest"] != first["manifest"]
    assert run(spec, on_no_gain="skip")["reused"]


def test_synthetic_rows_carry_a_watermark_and_real_ones_do_not(
    spec: dict[str, Any], monkeypatch: pytest.MonkeyPatch, small_model: Path
) -> None:
    asked = {"watermark": {"key_env": "MARK"}, "on_no_gain": "skip", "classes": {"true": 4000}}
    with pytest.raises(InvalidInput, match="MARK is empty"):
        augment.check(job(spec, **asked), Context())
    monkeypatch.setenv("MARK", "a key for tests only, of 32 bytes")
    assert any(fact.startswith("watermark: key ") for fact in augment.check(job(spec, **asked), Context()))
    run(spec, **asked, rows_per_shard=5000)
    run(spec, "plain", **asked | {"watermark": None}, rows_per_shard=5000)
    for out, marked in (("out", True), ("plain", False)):
        verdicts = verify(out, None, Detector("MARK", None))
        found = {one["synthetic"]: one["watermark"] for one in verdicts if "part-" in one["file"]}
        assert (found[False]["rows"], found[False]["found"]) == (0, False)
        assert (found[True]["rows"], found[True]["found"]) == (4000, marked)
    pq.write_table(pq.read_table("out/data"), "joined.parquet")
    (joined,) = verify("joined.parquet", None, Detector("MARK", str(small_model)))
    assert (joined["watermark"]["rows"], joined["watermark"]["found"]) == (4000, True)


def test_rows_that_do_not_help_are_written_with_a_warning_or_refused(spec: dict[str, Any]) -> None:
    """`late` is drawn at random: nothing can be learnt of it."""
    result = run(spec)
    manifest = json.loads(Path("out/_MANIFEST.json").read_text())
    assert result["status"] == "done"
    assert result["uplift"]["verdict"] in ("no gain shown", "harms")
    assert result["warning"] == manifest["summary"]["warning"]
    assert "NOT KNOWN" in result["uplift"]["test_rows_are"]  # the model's data was another
    assert result["warning"] in result["said"]
    assert b"average precision" in Path("out/_uplift.html").read_bytes()
    with pytest.raises(JobFailed, match="Not published, since on_no_gain is refuse"):
        run(spec, "refused", on_no_gain="refuse")
    assert not Path("refused/_MANIFEST.json").exists()
    assert Path("refused/_uplift.html").exists()
    with pytest.raises(InvalidData, match="has not finished"):
        open_source(job(spec, source={"kind": "parquet", "path": "refused"}).source)


def _two_classes(rows: int, share: float, seed: int) -> pa.Table:
    random = np.random.default_rng(seed)
    odd = random.random(rows) < share
    numbers = (random.normal(0, 1, (3, rows)) + 1.2 * odd).round(1)
    return pa.table({**dict(zip("xyz", numbers, strict=True)), "odd": odd})


def test_rows_that_help_are_said_to_help(workplace: Path) -> None:
    """Tested on the rows that the model's own training held out; no classifier learns from them."""
    pq.write_table(_two_classes(6000, 0.012, 0), "real.parquet")
    source = {"kind": "parquet", "path": "real.parquet"}
    clean = _two_classes(8000, 0.5, 1)  # of a model that knows both classes well
    model = genai_core.fit(clean, max_epochs=3, seed=1, model=TINY, score_effort=0.05)
    spec = {"model": "model", "source": source, "target": "odd", "classes": {"true": 3000}}
    spec |= {"track": {"enabled": False}, "check_seeds": 2}
    digest = open_source(job(spec).source).digest
    model.provenance |= {"data": {"digest": digest}, "job": {"fit": {"seed": 5, "validation_fraction": 0.5}}}
    model.save("model")
    result = run(spec)
    found = result["uplift"]
    assert found["test_rows_are"].startswith("those of the source that the model's own training held out")
    assert found["train_rows"] + found["test_rows"] == 6000
    assert 2800 < found["test_rows"] < 3200
    assert found["gain"]["low"] > 0
    assert found["verdict"] == "helps"
    assert "warning" not in result
    with pytest.raises(InvalidInput, match=r"the model was trained on real\.parquet"):
        augment.check(job(spec, "elsewhere", holdout=source), Context())


def test_a_holdout_of_its_own_is_what_is_tested_on(spec: dict[str, Any], small_table: pa.Table) -> None:
    numbered = small_table.append_column("number", pa.array(range(600)))
    pq.write_table(numbered.slice(100, 300), "held.parquet")
    held = {"kind": "parquet", "path": "held.parquet"}
    facts = augment.check(job(spec, holdout=held), Context())
    assert any("none of the data sets that the model has learnt from" in fact for fact in facts)
    found = run(spec, holdout=held)["uplift"]
    assert (found["train_rows"], found["test_rows"], found["synthetic_rows"]) == (600, 300, 130)
    with pytest.raises(OutputExists, match=r"spec\.holdout"):
        run(spec)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target": "lat"}, "did you mean 'late'"),
        ({"target": "hour"}, "more than 50 values"),
        ({"classes": {"yes": 5}}, "has no class 'yes'"),
        ({"classes": {}, "balance": {"false": 0.5}}, "already, a share of 0.5 or more"),
        ({"classes": {}, "at_least": 0.1}, "no class of 'late' is below the share"),
        ({"classes": {}, "at_least": 0.6}, "2 classes cannot all have that share"),
        ({"holdout": {"kind": "parquet", "path": "lake"}}, "holdout is the source itself"),
        ({"sink": {"path": "lake/out"}}, "lies in the source"),
        ({"holdout_share": 0.005}, "set on_no_gain: skip"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(
    spec: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        run(spec | changes)
    assert not Path("out").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"balance": {"true": 0.5}},
        {"classes": {}, "balance": {"true": 0.6, "false": 0.4}},
        {"on_no_gain": "x"},
    ],
)
def test_a_job_that_contradicts_itself_is_refused(spec: dict[str, Any], changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        job(spec, **changes)


@pytest.mark.parametrize(
    ("asked", "counts", "expected"),
    [
        ({}, {"a": 900, "b": 100}, {"b": 200}),
        ({"at_least": 0.1}, {"a": 900, "b": 100}, {}),
        ({"at_least": 0.2}, {"a": 800, "b": 150, "c": 50}, {"b": 117, "c": 217}),
        ({"balance": {"b": 0.5}}, {"a": 900, "b": 100}, {"b": 800}),
        ({"classes": {"b": 7}}, {"a": 900, "b": 100}, {"b": 7}),
    ],
)
def test_how_many_rows_are_added(
    spec: dict[str, Any], asked: dict[str, Any], counts: dict[str, int], expected: dict[str, int]
) -> None:
    assert rows_to_add(counts, job(spec, **{"classes": {}, **asked})) == expected
