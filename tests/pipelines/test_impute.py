"""Impute jobs: every cell that was there is as it was, every missing one is filled, in the order of the source."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import genai_core.artifact
from genai_core.errors import InvalidInput, MissingCapability
from pipelines import impute
from pipelines.context import Context
from pipelines.impute import ImputeJob
from pipelines.provenance.verification import verify
from pipelines.provenance.watermarks import Detector

HOLES = ("origin", "delay", "seats", "hour", "price", "carrier")


@pytest.fixture
def holes(small_table: pa.Table, workplace: Path) -> pa.Table:
    random = np.random.default_rng(3)
    table = small_table.append_column("key", pa.array([f"k{i}" for i in range(small_table.num_rows)]))
    for name in HOLES:
        column = table[name].combine_chunks()
        rows = np.where(random.random(len(column)) < 0.2, -1, np.arange(len(column)))
        found = column.take(pa.array(rows, mask=rows < 0))
        table = table.set_column(table.column_names.index(name), name, found)
    Path("lake").mkdir()
    pq.write_table(table, "lake/part.parquet", row_group_size=90)
    return pq.read_table("lake/part.parquet")


def job(small_model: Path, out: str = "out", **changes: Any) -> ImputeJob:
    spec = {"model": str(small_model), "seed": 7, "rows_per_shard": 100, "track": {"enabled": False}}
    source = {"kind": "parquet", "path": "lake"}
    return ImputeJob.model_validate({"source": source, "sink": {"path": out}, **spec, **changes})


def run(made: ImputeJob) -> tuple[dict[str, Any], pa.Table]:
    result = impute.run(made, Context(log=lambda text: None))
    files = sorted(Path(made.sink.path, "data").iterdir())
    return result, pa.concat_tables([pq.read_table(path) for path in files])


def test_only_missing_cells_are_filled(small_model: Path, holes: pa.Table) -> None:
    result, found = run(job(small_model, draws=2, imputed=True))
    again = holes.take(pa.array(np.repeat(np.arange(600), 2)))
    assert found.column_names == [*holes.column_names, "_draw", "_imputed"]
    assert found["_draw"].to_pylist() == [0, 1] * 600
    for name in holes.column_names:
        there = pc.is_valid(again[name])
        assert found[name].null_count == 0
        assert found[name].filter(there).to_pylist() == again[name].filter(there).to_pylist()
    counts = {name: 2 * holes[name].null_count for name in holes.column_names if holes[name].null_count}
    assert result["imputed"] == counts
    assert sum(len(names) for names in found["_imputed"].to_pylist()) == sum(counts.values())
    manifest = json.loads(Path("out/_MANIFEST.json").read_text())
    assert manifest["summary"]["imputed"] == counts


def test_the_same_job_gives_the_same_bytes(small_model: Path, holes: pa.Table) -> None:
    first, again = run(job(small_model)), run(job(small_model, "again"))
    assert first[0]["manifest"] == again[0]["manifest"]
    assert run(job(small_model, "other", seed=8))[0]["manifest"] != first[0]["manifest"]


def test_filled_cells_carry_a_watermark(
    small_model: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = genai_core.artifact.load(small_model).sample(4000, seed=5)
    for name in made.column_names:
        rows = np.where(np.random.default_rng(0).random(4000) < 0.8, -1, np.arange(4000))
        found = made[name].combine_chunks().take(pa.array(rows, mask=rows < 0))
        if name in HOLES:
            made = made.set_column(made.column_names.index(name), name, found)
    Path("lake").mkdir()
    pq.write_table(made, "lake/part.parquet")
    monkeypatch.setenv("MARK", "a key for tests only, of 32 bytes")
    run(job(small_model, imputed=True, rows_per_shard=5000, watermark={"key_env": "MARK"}))
    run(job(small_model, "plain", imputed=True, rows_per_shard=5000))
    marks = {
        (out, "part-" in one["file"]): one["watermark"]
        for out in ("out", "plain")
        for one in verify(out, None, Detector("MARK", None))
    }
    assert marks["out", True]["found"] and not marks["plain", True]["found"]
    monkeypatch.setenv("MARK", "another key for tests, of 32 bytes")
    assert not any(
        one["watermark"]["found"] for one in verify("out", None, Detector("MARK", None)) if one["watermark"]
    )


def test_check_says_what_will_happen_and_refuses_what_cannot(small_model: Path, holes: pa.Table) -> None:
    assert any(fact.startswith("source: 600 rows") for fact in impute.check(job(small_model), Context()))
    with pytest.raises(InvalidInput, match=r"columns names 'seat'.*did you mean 'seats'"):
        impute.check(job(small_model, columns=["seat"]), Context())
    pq.write_table(holes.append_column("_draw", pa.array(range(600))), "lake/part.parquet")
    with pytest.raises(InvalidInput, match="has a column '_draw' already"):
        impute.check(job(small_model, draws=2), Context())


def test_a_family_that_does_not_condition_is_refused(small_model: Path, holes: pa.Table) -> None:
    from genai_core.hyperparameters import Vae

    class Train:
        job, name, model = "train", "flights", Vae()
        modality = type("Modality", (), {"kind": "tabular"})
        track = type("Track", (), {"enabled": True, "register_as": "flights", "alias": None})

    with pytest.raises(
        MissingCapability, match="this vae model of tabular records cannot fill missing cells"
    ):
        impute.check(job(small_model, model="models:/flights@latest"), Context(earlier=[Train()]))
