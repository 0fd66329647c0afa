"""Training jobs in this process: kept, tracked, reused, resumed, refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import genai_core as genai
from genai_core.errors import InvalidData, InvalidInput, MissingCapability, OutputExists, Unavailable
from pipelines import generate, train
from pipelines.context import Context
from pipelines.generate import GenerateJob
from pipelines.provenance import cards
from pipelines.sources import open_source
from pipelines.tracked.lineage import lineage, render
from pipelines.train import TrainJob
from pipelines.training.checkpoints import Checkpoints
from pipelines.training.encoding import encode_source, shares
from pipelines.training.reading import fit_codec
from tests.contract.spaces import small_table

QUICK = {"max_epochs": 2, "evaluations": 4}
SMALL_MODEL = {"kind": "autoregressive", "context": 16, "hidden": 16, "embedding": 4}


@pytest.fixture(autouse=True)
def data(tracked: Path) -> None:
    pq.write_table(small_table(1200), tracked / "data.parquet")


def job(**changes: Any) -> TrainJob:
    fields = {
        "job": "train",
        "name": "small",
        "source": {"kind": "parquet", "path": "data.parquet"},
        "model": SMALL_MODEL,
        "fit": QUICK,
        "track": {"enabled": False},
        "sink": {"path": "model"},
    }
    return TrainJob.model_validate(fields | changes)


def test_a_job_leaves_a_model_that_says_where_it_comes_from() -> None:
    result = train.run(job(), Context())
    model = genai.load("model")
    assert result["status"] == "done"
    assert result["model_digest"] == model.digest
    assert model.provenance["data"]["rows"] == result["rows"] == 1200
    assert model.provenance["data"]["digest"] == open_source(job().source).digest
    assert model.calibration_size("negative_log_likelihood") > 50
    assert not list(Path(".genai/checkpoints").iterdir()), "checkpoints of a finished job are removed"


def test_the_same_job_gives_the_same_model() -> None:
    first = train.run(job(), Context())
    again = train.run(job(sink={"path": "again"}), Context())
    other = train.run(job(sink={"path": "other"}, fit={**QUICK, "seed": 1}), Context())
    assert first["model_digest"] == again["model_digest"] != other["model_digest"]


def test_a_filter_decides_what_is_learnt() -> None:
    source = {"kind": "parquet", "path": "data.parquet", "filter": "colour == 'red' and n < 3"}
    train.run(job(source=source), Context())
    made = genai.load("model").sample(200)
    assert set(made["colour"].to_pylist()) == {"red"}
    assert max(made["n"].to_pylist()) <= 2


def test_the_split_is_the_same_for_any_number_of_workers(tmp_path: Path) -> None:
    source = open_source(job().source)
    codec = fit_codec(job(), source, Context())[0]
    held_out = []
    for world in (1, 3):
        parts = []
        for rank, share in enumerate(shares(source, world)):
            directory = tmp_path / f"{world}-{rank}"
            directory.mkdir()
            parts.append(encode_source(codec, source.reader, job().fit, directory, share).held_out.tokens)
        held_out.append(sorted(map(tuple, np.concatenate(parts).tolist())))
    assert held_out[0] == held_out[1]


def test_a_killed_fit_resumes_and_ends_in_the_same_model() -> None:
    pq.write_table(
        small_table(4600), "data.parquet"
    )  # scores of fewer rows take longer: see genai_core.folds
    long = {"max_epochs": 16, "evaluations": 12, "patience": 1000}
    undisturbed = train.run(job(sink={"path": "undisturbed"}, fit=long), Context())
    spec = job(fit=long).model_dump_json(by_alias=True)
    kept = Checkpoints(".genai/checkpoints", train._id(job(fit=long), open_source(job().source)))
    code = (
        "import sys; from pipelines.train import TrainJob, run; from pipelines.context import Context; "
        "run(TrainJob.model_validate_json(sys.argv[1]), Context())"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, spec],
        env={**os.environ, "PYTHONPATH": str(Path(train.__file__).parents[1])},
    )
    facts = None
    deadline = time.monotonic() + 120
    while child.poll() is None and time.monotonic() < deadline:
        if (facts := kept.facts()) is not None:
            break
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert facts is not None, "the fit was over before it could be killed"
    assert not Path("model").exists()
    resumed = train.run(job(fit=long), Context())
    assert resumed["model_digest"] == undisturbed["model_digest"]


def test_another_job_s_model_is_not_overwritten() -> None:
    first = train.run(job(), Context())
    with pytest.raises(OutputExists, match="another job"):
        train.run(job(fit={**QUICK, "seed": 9}), Context())
    Path("full").mkdir()
    Path("full/precious.txt").write_text("keep me")
    with pytest.raises(OutputExists, match="holds no model"):
        train.check(job(sink={"path": "full"}), Context())
    assert genai.read_header("model").digest == first["model_digest"]
    assert Path("full/precious.txt").exists()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (small_table(0), "no row"),
        (small_table(1), "at least 10"),
        (pa.table({"nested": [[1]] * 20}), "'nested'"),
    ],
)
def test_tables_that_cannot_be_learnt(table: pa.Table, message: str) -> None:
    pq.write_table(table, "bad.parquet")
    bad = job(source={"kind": "parquet", "path": "bad.parquet"})
    with pytest.raises(InvalidData, match=message):
        train.check(bad, Context())
        train.run(bad, Context())
    assert not Path("model").exists()


def test_a_model_must_be_kept_somewhere() -> None:
    with pytest.raises(ValueError, match="the model would be lost"):
        job(sink=None)


def test_a_job_that_is_done_is_not_done_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tracked = job(track={"experiment": "e", "register": "small"}, sink=None)
    first = train.run(tracked, Context())
    again = train.run(tracked, Context())
    assert again["reused"]
    assert (
        (again["model"], again["run_id"])
        == (first["model"], first["run_id"])
        == ("models:/small/1", first["run_id"])
    )
    other = train.run(
        job(track={"experiment": "e", "register": "small"}, sink=None, fit={**QUICK, "seed": 2}), Context()
    )
    assert other["model"] == "models:/small/2"


def test_misspelt_names_are_told_before_work() -> None:
    with pytest.raises(InvalidInput, match="did you mean 'colour'"):
        train.check(job(modality={"kind": "tabular", "exclude": ["color"]}), Context())


def test_a_few_rows_are_refused_by_check_already() -> None:
    pq.write_table(small_table(9), "data.parquet")
    with pytest.raises(InvalidData, match="holds 9 row"):
        train.check(job(), Context())


@pytest.mark.parametrize("step", [train.check, train.run])
def test_a_sink_in_a_store_is_refused_before_the_fit(step: Any) -> None:
    with pytest.raises(InvalidInput, match="writes to a local directory") as caught:
        step(job(sink={"path": "s3://me:secret@bucket/model"}), Context())
    assert "secret" not in str(caught.value)
    assert sorted(path.name for path in Path().iterdir() if path.name.startswith("s3")) == []


def test_check_knows_that_the_sink_is_another_job_s() -> None:
    train.run(job(), Context())
    train.check(job(), Context())
    with pytest.raises(OutputExists, match="another job's model"):
        train.check(job(fit=QUICK | {"seed": 5}), Context())


@pytest.mark.mlflow
def test_a_sink_that_is_asked_for_later_gets_the_model_that_is_there() -> None:
    tracked = {"track": {"enabled": True}}
    first = train.run(job(**tracked, sink=None), Context())
    second = train.run(job(**tracked), Context())
    assert second["reused"] is True
    assert genai.load("model").digest == first["model_digest"] == second["model_digest"]


@pytest.mark.parametrize(
    ("compute", "message"),
    [
        ({"workers": 9999}, "too many for this machine"),
        ({"runner": "127.0.0.1:9"}, "no Ray cluster at 127.0.0.1:9"),
    ],
)
def test_workers_that_cannot_be_there_are_refused_by_check(compute: dict[str, Any], message: str) -> None:
    with pytest.raises(Unavailable, match=message):
        train.check(job(compute=compute), Context())


def test_ray_training_does_not_wait_for_what_is_not_there() -> None:
    from pipelines.settings import ComputeSettings
    from pipelines.training.ray_training import _refuse_missing

    _refuse_missing({"CPU": 3.0}, ComputeSettings(workers=3))
    with pytest.raises(Unavailable, match=r"2 worker\(s\) want 1 GPU\(s\) and Ray has 0"):
        _refuse_missing({"CPU": 3.0}, ComputeSettings(workers=2, gpus_per_worker=0.5))


def test_no_secret_of_a_uri_goes_into_the_identity() -> None:
    source = {"kind": "parquet", "path": "s3://AKIAKEY:topsecret@bucket/lake?secret_key=verysecret"}
    text = str(job(source=source).identity)
    assert "topsecret" not in text
    assert "verysecret" not in text
    assert "bucket/lake" in text


@pytest.mark.parametrize("workers", ["1..4", {"min": 1, "max": 4}])
def test_workers_may_be_a_range(workers: Any) -> None:
    spec = job(compute={"workers": workers})
    assert (spec.compute.fewest, spec.compute.workers, spec.compute.crew) == (1, 4, "1..4")
    assert TrainJob.model_validate_json(spec.model_dump_json(by_alias=True)) == spec
    assert spec.identity["workers"] == "1..4"
    assert job(compute={"workers": 4}).identity["workers"] == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"compute": {"workers": "4..1"}}, "the fewest come first, as in 1..4"),
        ({"compute": {"workers": "many"}}, r"give a number of workers, FEWEST\.\.MOST such as 1\.\.4"),
        ({"compute": {"workers": {"min": 1}}}, "give a number of workers"),
        ({"compute": {"workers": "0..2"}}, "greater than or equal to 1"),
        (
            {"compute": {"workers": 2, "gpus_per_worker": 2}},
            "one GPU, the others would idle; give one to each of 4",
        ),
        ({"compute": {"workers": 4}, "fit": {"batch_size": 6, "accumulate": 2}}, "fewer than 4 worker"),
    ],
)
def test_workers_that_make_no_sense_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        job(**changes)


@pytest.mark.s3
def test_checkpoints_may_lie_in_a_store(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    undisturbed = train.run(job(), Context())
    store, saved = f"{bucket}/checkpoints", []
    save = Checkpoints.save

    def dying(self: Checkpoints, tensors: Any, facts: Any) -> None:
        save(self, tensors, facts)
        saved.append(facts["step"])
        if len(saved) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "save", dying)
        with pytest.raises(KeyboardInterrupt):
            train.run(job(checkpoints=store, sink={"path": "resumed"}), Context())
    assert not any(path.name.startswith("s3") for path in Path().iterdir())
    kept = Checkpoints(store, train._id(job(), open_source(job().source)))
    assert (kept.facts() or {})["step"] == saved[1]
    resumed = train.run(job(checkpoints=store, sink={"path": "resumed"}), Context())
    assert resumed["model_digest"] == undisturbed["model_digest"]
    assert kept.facts() is None


def test_half_precision_and_steps_in_parts_from_a_job_file() -> None:
    fit = QUICK | {"precision": "bfloat16", "accumulate": 4}
    first = train.run(job(fit=fit), Context())
    exact = train.run(job(sink={"path": "exact"}), Context())
    assert first["model_digest"] != exact["model_digest"]
    assert first["validation_loss"] == pytest.approx(exact["validation_loss"], rel=0.05)


def test_a_job_goes_on_from_a_model_and_says_so() -> None:
    first = train.run(job(fit=QUICK | {"health": "off"}), Context())
    more = small_table(1500)
    new = pa.array(["violet" if i % 5 == 0 else value for i, value in enumerate(more["colour"].to_pylist())])
    pq.write_table(more.set_column(more.column_names.index("colour"), "colour", new), "more.parquet")
    fields = {
        "source": {"kind": "parquet", "path": "more.parquet"},
        "model": {"from": "model"},
        "fit": QUICK | {"health": "off"},
        "sink": {"path": "child"},
    }
    assert "goes on from model" in train.check(job(**fields), Context())
    result = train.run(job(**fields), Context())
    model = genai.load("child")
    assert model.provenance["parent"]["digest"] == first["model_digest"]
    assert model.model.settings.context == SMALL_MODEL["context"]
    assert "violet" in model.sample(400, where={"colour": "violet"})["colour"].to_pylist()
    assert result["model_digest"] == model.digest


def test_a_model_that_does_not_fit_is_not_gone_on_from() -> None:
    train.run(job(fit=QUICK | {"health": "off"}), Context())
    pq.write_table(small_table(100).drop_columns(["colour"]), "short.parquet")
    cases: list[tuple[dict[str, Any], str]] = [
        ({"model": {"from": "nowhere"}}, "nowhere"),
        ({"model": {"kind": "vae", "from": "model"}}, "is a model of kind autoregressive; write model"),
        ({"model": {"from": "model", "hidden": 9}}, r"leave model\.hidden out"),
        ({"modality": {"kind": "tabular", "exclude": ["n"]}}, "leave modality out"),
        ({"source": {"kind": "parquet", "path": "short.parquet"}}, "column 'colour'"),
    ]
    for changes, message in cases:
        for act in (train.check, train.run):
            with pytest.raises(InvalidInput, match=message):
                act(job(**({"model": {"from": "model"}, "sink": {"path": "child"}} | changes)), Context())
    assert not Path("child").exists()


def test_a_private_job_says_what_it_has_spent_and_cannot_be_scored_with() -> None:
    from pipelines import score
    from pipelines.score import ScoreJob

    private = {**QUICK, "privacy": {"epsilon": 20, "delta": 1e-5}}
    fields: dict[str, Any] = {"modality": {"kind": "tabular"}, "fit": private}
    assert train.check(job(**fields), Context())
    result = train.run(job(**fields), Context())
    assert 19.5 < result["epsilon"] <= 20 and result["delta"] == 1e-5 and "validation_loss" not in result
    model = genai.load("model")
    assert model.provenance["privacy"]["epsilon"] == result["epsilon"] and not model.calibrations
    assert model.sample(50).num_rows == 50
    assert cards.of_path("model")["privacy"]["epsilon"] == result["epsilon"]
    drawing = {"model": "model", "rows": 20, "sink": {"path": "drawn"}, "track": {"enabled": False}}
    generate.run(GenerateJob.model_validate(drawing), Context(log=lambda line: None))
    said = render(lineage("drawn"))
    assert f"differential privacy: epsilon {result['epsilon']}" in said
    assert cards.of_path("drawn")["privacy"]["delta"] == 1e-5
    scoring = ScoreJob.model_validate(
        {
            "model": "model",
            "source": {"kind": "parquet", "path": "data.parquet"},
            "sink": {"path": "scored"},
            "track": {"enabled": False},
        }
    )
    with pytest.raises(MissingCapability, match="differential privacy: it keeps no scores"):
        score.check(scoring, Context())
    with pytest.raises(InvalidInput, match=r"in one process; leave out compute\.workers"):
        train.check(job(**fields, compute={"workers": 2}), Context())
    with pytest.raises(MissingCapability, match="found a gan model"):
        train.check(job(**fields, model={"kind": "gan"}), Context())
