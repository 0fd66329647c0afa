"""Submitting before there is a cluster: what may travel, which jobs are the same, what the entry point refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from genai_core.errors import InvalidInput
from jobs import entrypoint
from jobs.cli import main
from jobs.portable import asks_tracking, require_portable, spells_secret, variables
from jobs.slots import Slot
from jobs.spec import entries
from jobs.submissions import Subject
from jobs.submit import Request, _packed, attempts, identify
from pipelines.running.ray_jobs import Submission, dashboard_address

GENERATE = """\
job: generate   # every night
model: models:/flights@latest
rows: 10
where: {origin: "NO", code: "1e-3", share: 1e-5, name: "é 😀"}
sink: {path: "s3://lake/out/{slot}"}
track: {uri: "http://mlflow:5000"}
"""
TRAIN = """\
job: train
name: t
source: {kind: parquet, path: s3://lake/flights}
checkpoints: s3://lake/checkpoints
compute: {runner: inline, cpus_per_worker: 2}
"""
SLOT = Slot.at("2026-11-01")
SPECS = sorted((Path(__file__).parents[2] / "jobs" / "specs").glob("*.yaml"))


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "MLFLOW_TRACKING_URI", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "night.yaml").write_text(GENERATE)
    (tmp_path / "train.yaml").write_text(TRAIN)
    (tmp_path / "both.yaml").write_text(f"{TRAIN}---\n{GENERATE}")
    return tmp_path


def read(file: str, *overrides: str, slot: Slot | None = SLOT) -> Any:
    return entries(file, overrides, slot)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("source.path=lake", "source.path 'lake' is relative"),
        ("source.path=~/lake", "is relative"),
        ("sink.path=out", "--set sink.path=s3://bucket/folder"),
        ("model=mymodel", "name a registered model"),
        ("checkpoints=.genai/checkpoints", "checkpoints '.genai/checkpoints' is relative"),
        ("track.uri=sqlite:///mlflow.db", "a database in this folder"),
        ("sink.path=s3://key:se/cret@lake/out", "sink.path spells out a secret"),
        ("source.path=s3://lake/x?secret_key=abc", "source.path spells out a secret"),
        ("track.uri=http://user:pass@mlflow:5000", "track.uri spells out a secret"),
    ],
)
def test_what_a_cluster_cannot_use_or_should_not_see_is_refused(override: str, words: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        require_portable(
            read("night.yaml" if override.startswith(("sink", "model")) else "both.yaml", override)
        )
    assert words in str(caught.value) and ".yaml:" in str(caught.value)
    assert not {"cret", "pass", "abc"} & set(str(caught.value).replace(":", " ").split())


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(InvalidInput) as caught:
        require_portable(
            read("both.yaml", "checkpoints=ck", "source.path=lake", "track.uri=sqlite:///mlflow.db")
        )
    assert len(str(caught.value).splitlines()) == 4  # both jobs are tracked


def test_what_every_machine_sees_may_travel() -> None:
    require_portable(
        read("both.yaml", "source.path=/lake/x", "checkpoints=hdfs://name:8020/a@b", "track.uri=databricks")
    )
    require_portable(read("both.yaml", "source.path=abfs://container@account.dfs.core.windows.net/x"))
    require_portable(read("night.yaml", "model=/models/flights", "track.uri=sqlite:////shared/mlflow.db"))


def test_secrets_are_told_from_addresses() -> None:
    assert spells_secret("s3://AKIA:ab/cd@bucket/x") and spells_secret("https://u:p@host")
    assert spells_secret("s3://b/x?X-Amz-Signature=abc") and spells_secret("postgresql://u:p@h/db")
    for harmless in (
        "s3://anonymous@bucket/x",
        "hdfs://host:8020/a@b",
        "s3://b/x?region=eu",
        "/a:b@c",
        "http://h:1",
    ):
        assert not spells_secret(harmless), harmless


def test_variables_travel_by_name_and_secrets_never(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "abc123")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "abc123")
    monkeypatch.setenv("LANG", "C")
    assert variables(["LANG", "AWS_ENDPOINT_URL=http://store"]) == {
        "MLFLOW_TRACKING_URI": "http://mlflow:5000",
        "LANG": "C",
        "AWS_ENDPOINT_URL": "http://store",
    }
    refused = {
        "AWS_SECRET_ACCESS_KEY": "looks like a secret",
        "RAY_AUTH_TOKEN": "looks like a secret",
        "X=http://u:abc123@h": "looks like a secret",
        "NOT_THERE": "--env NOT_THERE=VALUE",
        "a b": "write NAME",
        "MLFLOW_TRACKING_URI=sqlite:///mlflow.db": "a database in this folder",
    }
    for asked, words in refused.items():
        with pytest.raises(InvalidInput, match=words) as caught:
            variables([asked])
        assert "abc123" not in str(caught.value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:abc123@mlflow:5000")
    with pytest.raises(InvalidInput, match="set it on the cluster"):
        variables([])


@pytest.mark.parametrize(
    ("address", "words"),
    [
        (None, "which cluster"),
        ("ray://head:10001", "loses a job with its connection"),
        ("head:6379", "http://HOST:8265"),
        ("auto", "http://HOST:8265"),
        ("http://user:abc123@head:8265", "leave user, password"),
    ],
)
def test_only_a_dashboard_is_an_address(address: str | None, words: str) -> None:
    with pytest.raises(InvalidInput, match=words) as caught:
        dashboard_address(address)
    assert "abc123" not in str(caught.value)


def test_what_is_given_goes_before_ray_s_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://b:8265")
    assert dashboard_address(None) == "http://b:8265"
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://a:8265/")
    assert dashboard_address(None) == "http://a:8265"
    assert dashboard_address("https://c/ray/") == "https://c/ray"


def test_the_same_job_is_the_same_whoever_writes_it_and_wherever_it_runs(work: Path) -> None:
    known = identify(read("night.yaml"), SLOT)
    (work / "other.yaml").write_text(GENERATE.replace("   # every night", "").replace("rows: 10", "rows: 99"))
    assert identify(read("other.yaml", "rows=10"), SLOT) == known
    assert identify(read("night.yaml", "compute.workers=8", "compute.runner=ray"), SLOT) == known
    different = [
        identify(read("night.yaml", "rows=11"), SLOT),
        identify(read("night.yaml", slot=Slot.at("2026-11-02")), Slot.at("2026-11-02")),
        identify(read("night.yaml"), Slot.at("2026-11-01T05:00")),
        identify(read("both.yaml"), SLOT),
        identify(read("train.yaml"), SLOT),
        identify(read("train.yaml", "compute.workers=2"), SLOT),  # other batches, another model
    ]
    assert len({known, *different}) == 7
    assert Subject(known[1]).is_file is False and Subject("night.yaml").is_file


def test_attempts_are_counted_not_sorted_as_text() -> None:
    known = [Submission(f"genai-a{end}", "failed") for end in ("-10", "", "-9", "-x", "b", "-2")]
    assert [one.id for one in attempts(known, "genai-a")] == [
        "genai-a",
        "genai-a-2",
        "genai-a-9",
        "genai-a-10",
    ]


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.name)
def test_every_shipped_job_arrives_as_it_left(path: Path, work: Path) -> None:
    found = read(str(path))
    parcel = _packed(found, Request(str(path), slot=SLOT), {}, work)
    content = json.loads((work / entrypoint.PARCEL).read_text())
    (work / "there.yaml").write_text(entrypoint.job_file(content["jobs"], "10.0.0.1:6379"))
    arrived = [entry.job for entry in entries("there.yaml")]
    placed = [job for job in arrived if "compute" in type(job).model_fields]
    assert [job.model_dump(exclude={"compute"}) for job in arrived] == [
        entry.job.model_dump(exclude={"compute"}) for entry in found
    ]
    assert all(job.compute.runner == "10.0.0.1:6379" for job in placed)
    assert [getattr(job.model, "start", None) for job in arrived if job.job == "train"] == [
        entry.job.model.start for entry in found if entry.job.job == "train"
    ]
    # what has no place works in the driver
    assert parcel.metadata["genai.slot"] == str(SLOT) and parcel.cpus == (len(placed) < len(arrived))


def test_the_cluster_runs_what_is_not_inline_and_the_text_goes_along(work: Path) -> None:
    found = read("both.yaml", "fit.seed=8", "rows=11")
    parcel = _packed(found, Request("both.yaml", slot=SLOT), {"A": "b"}, work)
    content = json.loads((work / entrypoint.PARCEL).read_text())
    text = entrypoint.job_file(content["jobs"], "10.0.0.1:6379")
    (work / "there.yaml").write_text(text)
    train, generate = (entry.job for entry in entries("there.yaml"))
    assert (train.compute.runner, generate.compute.runner) == ("inline", "10.0.0.1:6379")
    assert (train.fit.seed, generate.rows, generate.sink.path) == (8, 11, "s3://lake/out/2026-11-01")
    assert generate.where == {"origin": "NO", "code": "1e-3", "share": 1e-5, "name": "é 😀"}
    assert "# job: generate   # every night\n" in text and "# --set rows=11\n" in text
    assert parcel.cpus == 2  # what works in the entry point's own process does not work on the head
    assert content["tracks"] and parcel.variables == {"A": "b"}
    assert [asks_tracking(entry.job) for entry in found] == [True, False]


def test_the_entry_point_refuses_other_versions_and_a_cluster_without_tracking(
    work: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refused(**changes: Any) -> str:
        content = {
            "file": "n.yaml",
            "jobs": [],
            "versions": entrypoint.versions(["python", "ray"]),
            "tracks": False,
        }
        (work / entrypoint.PARCEL).write_text(json.dumps(content | changes))
        assert entrypoint.main() == 2
        out, error = capfd.readouterr()
        line = json.loads(out.splitlines()[-1])
        assert line["status"] == "invalid" and line["error"] in error + out
        return str(line["error"])

    assert "ray 1.0 wanted, " in refused(versions={"ray": "1.0"})
    assert "nothing-such 1 wanted, none found" in refused(versions={"nothing-such": "1"})
    assert "python 2.7 wanted, 3." in refused(versions={"python": "2.7"})
    assert "says where runs are tracked" in refused(tracks=True)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    assert "holds no job" in refused(tracks=True)  # as far as `genai run` itself


def test_a_status_is_told_of_a_file_without_any_cluster(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "night.yaml", "--slot", "2026-11-01", "--set", "sink.path=/nowhere/out"]) == 0
    out, error = capfd.readouterr()
    line = json.loads(out.splitlines()[-1])
    assert (line["status"], line["known_from"]) == ("not started", "output and tracking")
    assert "which cluster?" in line["cluster"] and "generate: not started" in error


@pytest.mark.parametrize(
    "words", [("submit", "-"), ("status", "genai-0123456789ab"), ("submit", "night.yaml")]
)
def test_bad_input_is_two(words: tuple[str, ...], capfd: pytest.CaptureFixture[str]) -> None:
    assert main([*words]) == 2
    out, error = capfd.readouterr()
    assert json.loads(out.splitlines()[-1])["status"] == "invalid" and error.startswith("error: ")
