"""The gate: what fails is held and nobody reads it, what passes is published by the protocol of every output."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from genai_core import load
from genai_core.errors import InvalidInput, JobFailed, OutputExists
from jobs.cli import main
from pipelines import gate as gates
from pipelines import generate
from pipelines.context import Context
from pipelines.generate import GenerateJob
from pipelines.outputs.sink import Sink
from pipelines.sources import open_source
from pipelines.sources.parquet import ParquetSource
from pipelines.tracked.lineage import lineage, render

QUIET = Context(log=lambda text: None)


@pytest.fixture
def spec(small_model: Path, workplace: Path) -> dict[str, Any]:
    """Rows of the model itself play the real ones: what it makes then is as good as real."""
    model = load(small_model)
    for name, seed in (("real", 100), ("unseen", 101)):
        Path(name).mkdir()
        pq.write_table(model.sample(300, seed=seed), f"{name}/a.parquet")
    sources = {
        label: {"kind": "parquet", "path": path} for label, path in (("real", "real"), ("holdout", "unseen"))
    }
    return {
        "model": str(small_model),
        "rows": 300,
        "seed": 7,
        "rows_per_shard": 100,
        "track": {"enabled": False},
        "gate": {**sources, "rows": 200, "c2st_auc": {"max": 0.7}, "coverage": {"min": 0.5}},
    }


def run(spec: dict[str, Any], gate: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    fields = {"sink": {"path": "out"}, **spec, **changes}
    if gate is not None:
        fields["gate"] = {**spec["gate"], **gate}
    job = GenerateJob.model_validate(fields)
    generate.check(job, QUIET)
    return generate.run(job, QUIET)


HARD = {"c2st_auc": {"max": 0.05}}  # nothing can pass: even real rows are near .5


def test_what_passes_is_published_with_the_bytes_of_a_job_without_a_gate(spec: dict[str, Any]) -> None:
    result = run(spec)
    plain = run({name: value for name, value in spec.items() if name != "gate"}, sink={"path": "plain"})
    assert result["gate"]["passed"] and set(result["gate"]["checked"]) == {
        "c2st_auc",
        "coverage",
        "copies",
        "nearer_to_train",
    }
    assert result["job_id"] == plain["job_id"] and result["rows"] == 300
    made = {path.name: path.read_bytes() for path in Path("out/data").iterdir()}
    assert made == {path.name: path.read_bytes() for path in Path("plain/data").iterdir()}
    assert not Path("out/_held").exists() and Path("out/_evaluation.html").exists()
    assert json.loads(Path("out/_evaluation.json").read_text())["measures"]["c2st_auc"]
    assert run(spec)["reused"]
    assert "passed its gate" in render(lineage("out"))


def test_what_fails_is_held_with_its_report_and_nobody_reads_it(
    spec: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(JobFailed, match=r"not published: c2st_auc 0\.\d+ is above 0.05.*genai publish out"):
        run(spec, HARD)
    assert not Path("out/_MANIFEST.json").exists() and not list(Path("out").glob("data/*.parquet"))
    assert Path("out/_held/report.html").exists()
    with pytest.raises(InvalidInput):
        open_source(ParquetSource(kind="parquet", path="out"))
    assert "held by its gate: c2st_auc" in render(lineage("out"))
    made = {path.name: path.stat().st_mtime_ns for path in Path("out/_held/data").iterdir()}
    judged = Path("out/_held/evaluation.json").stat().st_mtime_ns
    with pytest.raises(JobFailed, match="not published"):  # again: nothing is made, nothing is judged anew
        run(spec, HARD)
    assert {path.name: path.stat().st_mtime_ns for path in Path("out/_held/data").iterdir()} == made
    assert Path("out/_held/evaluation.json").stat().st_mtime_ns == judged
    with pytest.raises(OutputExists, match="did not pass the gate"):  # leaving the gate out is no way
        run({name: value for name, value in spec.items() if name != "gate"})


def test_copies_are_held_by_default(spec: dict[str, Any]) -> None:
    run({name: value for name, value in spec.items() if name != "gate"}, sink={"path": "plain"})
    pq.write_table(pq.read_table("plain/data"), "real/a.parquet")  # as if it knew its training rows by heart
    limits = {name: value for name, value in spec["gate"].items() if name not in ("c2st_auc", "coverage")}
    with pytest.raises(JobFailed, match=r"copies 1 is above 0, that of unseen real rows"):
        run({**spec, "gate": limits})


def test_overriding_publishes_and_is_recorded(
    spec: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(JobFailed):
        run(spec, HARD)
    assert main(["publish", "out", "--reason", "x"]) == 2
    assert main(["publish", "out", "--reason", "for a demonstration"]) == 0
    line = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert line["rows"] == 300 and line["gate"]["override"] == "for a demonstration"
    manifest = Sink("out").manifest()
    assert (
        manifest is not None
        and manifest["summary"]["gate"]["failed"]
        and pq.read_table("out/data").num_rows == 300
    )
    assert not Path("out/_held").exists()
    assert "published against its gate (for a demonstration): c2st_auc" in render(lineage("out", verify=True))
    assert "intact" in render(lineage("out"))
    assert main(["publish", "out", "--reason", "once more"]) == 2
    by_spec = run(spec, {**HARD, "override": "we know"}, sink={"path": "other"})
    assert by_spec["gate"]["override"] == "we know" and not by_spec["gate"]["passed"]


@pytest.mark.parametrize("moved", [1])
def test_publishing_that_was_interrupted_goes_on(
    spec: dict[str, Any], monkeypatch: pytest.MonkeyPatch, moved: int
) -> None:
    adopt = Sink.adopt

    def interrupted(self: Sink, other: Sink, record: dict[str, Any]) -> None:
        if record["id"] == moved:
            raise KeyboardInterrupt
        adopt(self, other, record)

    monkeypatch.setattr(Sink, "adopt", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(spec)
    assert not Path("out/_MANIFEST.json").exists()
    monkeypatch.setattr(Sink, "adopt", adopt)
    monkeypatch.setattr(gates, "decide", None)  # the decision stands
    result = run(spec)
    assert result["rows"] == 300 and result["gate"]["passed"] and result["runner"] == "none"
    assert pq.read_table("out/data").num_rows == 300 and not Path("out/_held").exists()


def test_a_gate_that_cannot_work_is_refused_before_anything_is_made(spec: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="target"):
        run(spec, {"utility": {"min": 0.5}})
    with pytest.raises(InvalidInput, match="no column 'town'"):
        run(spec, {"target": "town"})
    with pytest.raises(InvalidInput, match="same records"):
        run(spec, {"holdout": spec["gate"]["real"]})
    with pytest.raises(InvalidInput):
        run(spec, {"real": {"kind": "parquet", "path": "nowhere"}})
    assert not Path("out").exists()


def test_a_store_holds_and_publishes_by_the_same_protocol(spec: dict[str, Any], bucket: str) -> None:
    place = {"sink": {"path": f"{bucket}/out"}}
    with pytest.raises(JobFailed):
        run(spec, HARD, **place)
    held = gates.held_sink(Sink(f"{bucket}/out"))
    assert len(list(held.records())) == 3 and Sink(f"{bucket}/out").manifest() is None
    result = run(spec, {**HARD, "override": "tried on a store"}, **place)
    assert result["rows"] == 300 and not list(held.records())
    assert open_source(ParquetSource(kind="parquet", path=f"{bucket}/out")).rows == 300


def test_of_an_augmented_source_the_synthetic_rows_are_judged(spec: dict[str, Any]) -> None:
    from pipelines import augment
    from pipelines.augment import AugmentJob

    fields = {
        "model": spec["model"],
        "source": {"kind": "parquet", "path": "real"},
        "target": "carrier",
        "classes": {"AA": 100},
        "sink": {"path": "more"},
        "track": spec["track"],
        "gate": {**{n: spec["gate"][n] for n in ("real", "holdout", "rows")}, "column_shapes": {"min": 0.4}},
    }
    result = augment.run(AugmentJob.model_validate(fields), QUIET)
    assert result["gate"]["passed"] and result["rows"] == 400
    judged = json.loads(Path("more/_evaluation.json").read_text())
    assert judged["rows"]["synthetic"] == 100
    assert judged["measures"]["copies"]["synthetic"]["value"] == 0  # else its real rows would count as copies
