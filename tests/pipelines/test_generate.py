"""Generate jobs: exactly the model's schema, the same bytes for the same job, refusals before anything is written."""

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

from genai_core import fit, load
from genai_core.errors import InvalidArtifact, InvalidInput, MissingCapability, OutputExists, Unavailable
from genai_core.hyperparameters import Gan, TabularSettings
from pipelines import batch_job, generate
from pipelines.context import Context
from pipelines.generate import GenerateJob
from pipelines.outputs import footer as footers
from pipelines.plan import shard_seed


@pytest.fixture
def spec(small_model: Path, workplace: Path) -> dict[str, Any]:
    return {
        "model": str(small_model),
        "rows": 250,
        "seed": 7,
        "rows_per_shard": 100,
        "track": {"enabled": False},
    }


def job(spec: dict[str, Any], out: str = "out", **changes: Any) -> GenerateJob:
    return GenerateJob.model_validate({"sink": {"path": out}, **spec, **changes})


def run(spec: dict[str, Any], out: str = "out", **changes: Any) -> dict[str, Any]:
    return generate.run(job(spec, out, **changes), Context(log=lambda text: None))


def files(path: str) -> dict[str, bytes]:
    root = Path(path)
    found = {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}
    found.pop("_RUN.json", None)  # run and time: the one file in which equal jobs differ
    return found


def test_rows_are_those_that_the_model_draws_with_the_shards_seeds(
    spec: dict[str, Any], small_model: Path
) -> None:
    result = run(spec)
    model = load(small_model)
    expected = [model.sample(rows, seed=shard_seed(7, i)) for i, rows in enumerate((100, 100, 50))]
    found = [pq.read_table(path) for path in sorted(Path("out/data").iterdir())]
    assert all(table.schema.equals(model.schema, check_metadata=True) for table in found)
    assert [a.equals(b) for a, b in zip(found, expected, strict=True)] == [True] * 3
    assert result["rows"] == 250
    assert result["shards"] == 3
    assert result["status"] == "done"
    assert result["output"] == "out"
    assert result["runner"] == "inline"


def test_the_same_job_gives_the_same_bytes_and_other_seeds_others(spec: dict[str, Any]) -> None:
    first, second = run(spec), run(spec, "again")
    assert files("out") == files("again")
    assert first["manifest"] == second["manifest"]
    other = run(spec, "other", seed=8)
    assert other["manifest"] != first["manifest"]
    assert not set(files("out")) & {name for name in files("other") if name.startswith("data/")}


def test_a_finished_job_is_not_done_again_and_another_one_refused(spec: dict[str, Any]) -> None:
    first = run(spec)
    before = files("out")
    again = run(spec)
    assert again["reused"]
    assert {k: again[k] for k in ("job_id", "rows", "manifest")} == {
        k: first[k] for k in ("job_id", "rows", "manifest")
    }
    with pytest.raises(
        OutputExists, match=r"finished output of another job .*spec.seed \(7 there, 8 asked\)"
    ):
        run(spec, seed=8)
    with pytest.raises(OutputExists, match=r"spec.seed \(7 there, 8 asked\)"):
        generate.check(job(spec, seed=8), Context())
    assert files("out") == before


def test_where_it_runs_does_not_make_it_another_job(spec: dict[str, Any]) -> None:
    first = run(spec)
    again = run(spec, name="other", compute={"workers": 2, "retries": 0})
    assert again["job_id"] == first["job_id"]


def test_every_file_says_where_it_comes_from(spec: dict[str, Any], small_model: Path) -> None:
    run(spec, where={"origin": "JFK"})
    manifest = json.loads(Path("out/_MANIFEST.json").read_text())
    header = load(small_model)
    for number, path in enumerate(sorted(Path("out/data").iterdir())):
        found = footers.read(pafs.LocalFileSystem(), str(path.absolute()))
        assert found == {**manifest["provenance"], "shard": number, "seed": shard_seed(7, number)}
        assert found["synthetic"] is True
        assert found["model"]["digest"] == header.digest
        assert found["training_data"] == header.provenance["data"]
        assert found["training_job"] == "train-0123456789abcdef0123"
        assert found["spec"]["where"] == {"origin": "JFK"}
        assert found["versions"]["torch"]
    assert set(pq.read_table("out/data").column("origin").to_pylist()) == {"JFK"}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"where": {"orign": "JFK"}}, InvalidInput, "did you mean 'origin'"),
        ({"where": {"origin": "XXX"}}, InvalidInput, "XXX"),
        ({"model": "nowhere"}, InvalidInput, "nowhere"),
        ({"rows": 10**12}, InvalidInput, "set rows_per_shard to"),
        ({"rows": 10**12, "rows_per_shard": 10**7}, Unavailable, r"need about .* GB"),
        ({"compute": {"runner": "127.0.0.1:1"}}, Unavailable, "no Ray cluster at"),
        ({"sink": {"path": "s3://bucket/x"}}, Unavailable, "AWS_ENDPOINT_URL"),
        ({"sink": {"path": "taken"}}, OutputExists, "is not empty"),
        ({"sink": {"path": "file/out"}}, Unavailable, "a file is in the way"),
    ],
)
def test_what_cannot_work_is_refused_by_check_and_by_run_and_nothing_is_written(
    spec: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "y")
    Path("taken").mkdir()
    Path("taken/thesis.txt").write_text("mine")
    Path("file").write_text("")
    before = files(".")
    for act in (generate.check, generate.run):
        with pytest.raises(error, match=message):
            act(job(spec, **changes), Context(log=lambda text: None))
    assert files(".") == before


def test_a_changed_model_is_refused(spec: dict[str, Any], small_model: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in small_model.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    weights = bytearray((broken / "weights.safetensors").read_bytes())
    weights[-1] ^= 1
    (broken / "weights.safetensors").write_bytes(weights)
    with pytest.raises(InvalidArtifact, match="was changed after it was written"):
        run(spec, model=str(broken))
    assert not Path("out").exists()


@pytest.mark.parametrize(
    "changes",
    [{"rows": 0}, {"rows": -5}, {"seed": -1}, {"temperature": 0}, {"rows_per_shard": 0}, {"rowz": 3}],
)
def test_absurd_values_are_refused(spec: dict[str, Any], changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        job(spec, **changes)


def test_check_says_what_will_happen_and_writes_nothing(spec: dict[str, Any]) -> None:
    facts = generate.check(job(spec), Context())
    assert "250 rows in 3 shard(s)" in facts
    assert any("(autoregressive, 9 columns" in fact for fact in facts)
    assert "output: out (free)" in facts
    assert files(".") == {}
    run(spec)
    assert "output: out (this job is finished already)" in generate.check(job(spec), Context())


def test_a_model_that_an_earlier_job_will_train_is_taken_on_trust(spec: dict[str, Any]) -> None:
    class Train:
        job, name, model, modality = "train", "flights", Gan(), TabularSettings()
        track = type("Track", (), {"enabled": True, "register_as": "flights", "alias": None})

    context = Context(earlier=[Train()])
    facts = generate.check(job(spec, model="models:/flights@latest"), context)
    assert any("(gan), which the job flights above will train" in fact for fact in facts)
    with pytest.raises(MissingCapability, match="this gan model cannot generate with where"):
        generate.check(job(spec, model="models:/flights@latest", where={"origin": "JFK"}), context)


def test_secrets_in_a_job_are_not_written_anywhere(spec: dict[str, Any]) -> None:
    found = batch_job.masked({"path": "s3://KEY:sesame@bucket/x", "list": ["https://u:sesame@h/x", 1, None]})
    assert "sesame" not in json.dumps(found)
    assert found["list"][1:] == [1, None]


@pytest.mark.s3
def test_a_store_takes_the_same_output(spec: dict[str, Any], bucket: str, tmp_path: Path) -> None:
    local, remote = run(spec), run(spec, f"{bucket}/out")
    assert remote["manifest"] == local["manifest"]
    assert pa.concat_tables([pq.read_table(f"{bucket}/out/data")]).num_rows == 250


def test_conditions_shares_and_temperatures_by_column(spec: dict[str, Any]) -> None:
    asked: dict[str, Any] = {
        "where": {"delay": {"min": 0, "max": 20}},
        "balance": {"origin": {"JFK": 1.0}, "late": {"true": 0.5}},
        "temperature": {"price": 0.5},
    }
    run(spec, **asked)
    found = pq.read_table("out/data")
    assert min(found["delay"].to_pylist()) >= 0
    assert max(found["delay"].to_pylist()) <= 20
    assert set(found["origin"].to_pylist()) == {"JFK"}
    assert 0.4 < np.mean(found["late"].to_pylist()) < 0.6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"where": {"delay": {"mini": 3}}}, r"where\.delay: found 'mini'.*did you mean 'min'"),
        ({"where": {"delay": {"min": 10_000}}}, r"where\.delay: no value that this model can draw"),
        ({"balance": {"origin": {"LHR": 0.5}}}, r"balance\.origin: the training data holds no 'LHR'"),
        ({"where": {"late": True}, "balance": {"late": {"true": 0.5}}}, r"where\.late and balance\.late"),
        ({"temperature": {"prize": 0.5}}, "temperature names 'prize'.*did you mean 'price'"),
    ],
)
def test_conditions_that_cannot_be_are_found_by_check(
    spec: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    for act in (generate.check, generate.run):
        with pytest.raises(InvalidInput, match=message):
            act(job(spec, **changes), Context(log=lambda text: None))
    assert not Path("out").exists()


def given(spec: dict[str, Any], table: pa.Table) -> dict[str, Any]:
    Path("seeds").mkdir()
    pq.write_table(table, "seeds/part.parquet", row_group_size=70)
    return {k: v for k, v in spec.items() if k != "rows"} | {"given": {"kind": "parquet", "path": "seeds"}}


def test_given_rows_keep_their_values_and_their_order(spec: dict[str, Any], small_table: pa.Table) -> None:
    seeds = small_table.select(["origin", "seats"]).append_column("key", pa.array(range(600)))
    spec = given(spec, seeds) | {"per_row": 2, "where": {"late": True}}
    facts = generate.check(job(spec), Context())
    assert any(fact.startswith("1,200 rows in ") for fact in facts)
    result = run(spec)
    assert result["rows"] == 1200
    assert result["shards"] > 3
    found = pa.concat_tables(pq.read_table(path) for path in sorted(Path("out/data").iterdir()))
    again = seeds.take(pa.array(np.repeat(np.arange(600), 2)))
    assert found.column_names == ["key", *small_table.column_names]
    assert all(found[name].equals(again[name].cast(found[name].type)) for name in seeds.column_names)
    assert set(found["late"].to_pylist()) == {True}
    assert len(set(found["price"].to_pylist())) > 300


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"rows": 5}, ValidationError, "one of them"),
        ({"given": None, "rows": 5, "per_row": 2}, ValidationError, "per_row goes with given"),
        ({"prompt": "x"}, ValidationError, "neither watermark nor prompt"),
        ({"where": {"origin": "JFK"}}, InvalidInput, r"given and where\.origin both"),
        ({"sink": {"path": "seeds/out"}}, InvalidInput, "lies in the source"),
    ],
)
def test_given_rows_that_contradict_are_refused(
    spec: dict[str, Any], small_table: pa.Table, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    spec = given(spec, small_table.select(["origin"]))
    with pytest.raises(error, match=message):
        generate.check(job(spec, **changes), Context())


def test_rows_that_break_a_constraint_are_counted_and_said(tmp_path: Path, workplace: Path) -> None:
    random = np.random.default_rng(0)
    low = random.integers(0, 90, 400)
    table = pa.table(
        {"low": low, "high": low + random.integers(0, 9, 400), "kind": random.choice(["a", "b"], 400)}
    )
    declared = [{"kind": "order", "columns": ["low", "high"]}]
    model = fit(table, modality={"kind": "tabular", "constraints": declared}, max_epochs=1)
    model.save(tmp_path / "kept")
    spec = {"model": str(tmp_path / "kept"), "rows": 200, "track": {"enabled": False}, "rows_per_shard": 100}
    said: list[str] = []
    result = generate.run(job(spec), Context(log=said.append))
    assert result["constraints"] == {"low <= high": 0} and result["constraints_broken"] == 0
    assert not any("break" in line for line in said)
    asked = {"low": {"min": 50}, "high": {"max": 40}}
    result = generate.run(job(spec, "other", where=asked), Context(log=said.append))
    assert result["constraints"] == {"low <= high": 200}
    assert any("200 row(s) break low <= high: what was asked for" in line for line in said)
    assert json.loads(Path("other/_MANIFEST.json").read_text())["summary"]["constraints"] == {
        "low <= high": 200
    }
