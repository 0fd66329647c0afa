"""`genai schedule`: each form is valid for its reader, runs the right command, and refuses what would collide."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from genai_core.errors import InvalidInput
from jobs.cli import SCHEDULERS, genai, main
from jobs.outcome import INVALID
from jobs.schedule import FORMS, IN_PODS, Request, write
from jobs.slots import Slot
from jobs.spec import entries

NIGHTLY = """\
job: generate
model: models:/flights@latest
rows: 10
where: {origin: "J'F %K {{ x }} $(id)"}
sink: {path: "out/{slot}"}
"""


IN_A_LAKE = NIGHTLY.replace("out/", "s3://lake/out/")


@pytest.fixture
def lake_file(file: str) -> str:
    """As `file`, with a sink that a pod can reach."""
    Path(file).write_text(IN_A_LAKE)
    return file


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nightly.yaml").write_text(NIGHTLY)
    return "nightly.yaml"


def request(file: str, **changes: object) -> Request:
    return Request(**{"file": file, "cron": "30 2 * * *", "timezone": "Europe/Berlin", **changes})  # type: ignore[arg-type]


def test_the_command_line_offers_every_form() -> None:
    assert tuple(sorted(FORMS)) == SCHEDULERS


def test_kubernetes(lake_file: str) -> None:
    config, job = yaml.safe_load_all(write("kubernetes", request(lake_file)))
    assert config["data"]["job.yaml"] == IN_A_LAKE
    assert (job["kind"], job["apiVersion"]) == ("CronJob", "batch/v1")
    assert job["spec"]["schedule"] == "30 2 * * *" and job["spec"]["timeZone"] == "Europe/Berlin"
    assert job["spec"]["concurrencyPolicy"] == "Forbid"
    first, second = job["spec"]["jobTemplate"]["spec"]["podFailurePolicy"]["rules"]
    assert first["action"] == "FailJob" and first["onExitCodes"]["values"] == [INVALID], "bad input stays bad"
    assert second["action"] == "Ignore", "a node that is taken away is nobody's failure"


@pytest.mark.parametrize(
    ("job_name", "slot"),
    [
        (
            f"nightly-{1793496600 // 60}",
            "@1793496600",
        ),  # the controller's: the scheduled minute, however late
        ("nightly-2026-11-01", "2026-11-01"),  # a missed slot, named by hand
        ("nightly-20261101", "20261101"),
        ("nightly-2026-11-01t0230", "2026-11-01t0230"),
    ],
)
def test_a_pod_knows_its_slot_from_its_jobs_name(lake_file: str, job_name: str, slot: str) -> None:
    _, job = yaml.safe_load_all(write("kubernetes", request(lake_file)))
    (container,) = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    script = container["command"][2].replace("exec genai", "echo genai")
    said = subprocess.run(["sh", "-c", script], env={"JOB_NAME": job_name}, capture_output=True, text=True)
    assert (said.returncode, said.stderr) == (0, "")
    assert said.stdout.split()[-2:] == ["--slot", slot]
    assert str(Slot.at(slot, "Europe/Berlin")).startswith("2026-11-01T0")


def test_a_job_started_by_hand_without_a_slot_is_refused_not_run_for_1970() -> None:
    with pytest.raises(InvalidInput, match="is no time"):
        Slot.at("now")


@pytest.mark.parametrize("form", IN_PODS)
def test_what_a_pod_would_lose_is_refused(file: str, form: str) -> None:
    with pytest.raises(InvalidInput, match=r"sink.path 'out/.*--claim"):
        write(form, request(file))
    *_, made = yaml.safe_load_all(write(form, request(file, claim="genai-work")))
    assert "'claimName': 'genai-work'" in str(made)
    Path(file).write_text(NIGHTLY.replace("out/", "/srv/out/"))
    with pytest.raises(InvalidInput, match="beside the claim"):
        write(form, request(file, claim="genai-work"))


@pytest.mark.parametrize(
    ("name", "label"), [("2026 Nightly!", "genai-2026-nightly"), ("a" * 36, "a" * 36), ("..", "genai")]
)
def test_names_are_what_kubernetes_accepts(file: str, name: str, label: str) -> None:
    assert request(file, name=name).label == label


def test_a_long_name_is_refused_rather_than_cut_to_that_of_another_job(lake_file: str) -> None:
    with pytest.raises(InvalidInput, match="--name"):
        write("kubernetes", request(lake_file, name="a" * 37))


def test_raycronjob(lake_file: str) -> None:
    config, job = yaml.safe_load_all(write("raycronjob", request(lake_file)))
    assert (job["kind"], job["apiVersion"]) == ("RayCronJob", "ray.io/v1")
    assert job["spec"]["timeZone"] == "Europe/Berlin"
    assert job["spec"]["jobTemplate"]["entrypoint"] == "sh /etc/genai/run.sh"
    words = shlex.split(config["data"]["run.sh"])
    assert words[:3] == ["exec", "genai", "run"] and words[words.index("--cron") + 1] == "30 2 * * *"
    assert "compute.runner=127.0.0.1:6379" in words, "else it would start a second Ray inside the head"
    assert job["spec"]["jobTemplate"]["shutdownAfterJobFinishes"]


@pytest.mark.parametrize(("cron", "gap"), [("0 12 * * *", 23 * 3600), ("0 */2 * * *", 2 * 3600)])
def test_a_raycronjob_ends_before_its_next_slot(lake_file: str, cron: str, gap: int) -> None:
    """KubeRay has no concurrency policy: every attempt has a deadline. One day of Berlin has 23 hours."""
    Path(lake_file).write_text(IN_A_LAKE.replace("{slot}", "{slot:%Y-%m-%dT%H%M}"))
    _, job = yaml.safe_load_all(write("raycronjob", request(lake_file, cron=cron)))
    spec = job["spec"]["jobTemplate"]
    assert spec["activeDeadlineSeconds"] * (1 + spec["backoffLimit"]) < gap


def test_a_raycronjob_that_fires_too_often_is_refused(lake_file: str) -> None:
    Path(lake_file).write_text(IN_A_LAKE.replace("{slot}", "{slot:%Y-%m-%dT%H%M}"))
    with pytest.raises(InvalidInput, match="would let them overlap"):
        write("raycronjob", request(lake_file, cron="*/10 * * * *"))


def test_what_the_user_overrides_wins(lake_file: str) -> None:
    given = request(lake_file, overrides=("compute.runner=ray",))
    config, _ = yaml.safe_load_all(write("raycronjob", given))
    words = shlex.split(config["data"]["run.sh"])
    overrides = tuple(words[n + 1] for n, word in enumerate(words) if word == "--set")
    (entry,) = entries(lake_file, overrides, Slot.at("2026-11-01"))
    assert entry.job.compute.runner == "ray"


def crontab_command(text: str) -> str:
    """The command of a crontab line as cron hands it to sh."""
    zone, line = text.splitlines()
    assert zone == "CRON_TZ=Europe/Berlin" and line.startswith("30 2 * * * ")
    assert not re.search(r"(?<!\\)%", line), "cron ends a command at a bare %"
    return line.replace(r"\%", "%").removeprefix("30 2 * * * ")


def test_cron(file: str, tmp_path: Path) -> None:
    command = crontab_command(write("cron", request(file, overrides=("where.origin=100 % of $(id)",))))
    (tmp_path / "genai").write_text('#!/bin/sh\nprintf "%s\\n" "$@"; exit 1\n')
    (tmp_path / "genai").chmod(0o755)
    done = subprocess.run(["sh", "-c", command], env=path_of(tmp_path), capture_output=True, text=True)
    assert done.returncode == 1, "the job's own exit code"
    assert done.stdout.splitlines()[-1] == "where.origin=100 % of $(id)"


def test_cron_skips_a_slot_while_the_last_run_is_busy_and_says_so(file: str, tmp_path: Path) -> None:
    """Two real runs of the line at once: a pipe holds the first until the second has been refused."""
    command = crontab_command(write("cron", request(file)))
    os.mkfifo(tmp_path / "gate")
    (tmp_path / "genai").write_text("#!/bin/sh\necho started; read -r _ < gate\n")
    (tmp_path / "genai").chmod(0o755)
    shell: list[str] = ["sh", "-c", command]
    with subprocess.Popen(shell, env=path_of(tmp_path), stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout and first.stdout.readline() == "started\n"
        second = subprocess.run(shell, env=path_of(tmp_path), capture_output=True, text=True)
        (tmp_path / "gate").write_text("\n")
    assert (second.returncode, second.stdout) == (75, "") and "--slot makes up for it" in second.stderr
    assert first.returncode == 0


def path_of(folder: Path) -> dict[str, str]:
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


CLUSTER = "http://genai-head-svc:8265"


@pytest.mark.parametrize("form", sorted(set(FORMS) - {"raycronjob"}))
def test_a_cluster_can_do_the_work(lake_file: str, form: str) -> None:
    text = write(form, request(lake_file, cluster=CLUSTER, overrides=("seed=8",)))
    assert "genai submit" in text and f"--address {CLUSTER} --wait" in text and "genai run /" not in text
    words = request(lake_file, cluster=CLUSTER, overrides=("seed=8",)).command(
        lake_file, "--slot", "2026-11-01"
    )
    assert genai.commands["submit"].make_context("submit", words[2:]), "the command understands it"


def test_the_pod_that_waits_for_a_cluster_has_its_token(lake_file: str) -> None:
    _, job = yaml.safe_load_all(write("kubernetes", request(lake_file, cluster=CLUSTER)))
    (container,) = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    (token,) = [one for one in container["env"] if one["name"] == "RAY_AUTH_TOKEN"]
    assert token["valueFrom"]["secretKeyRef"]["name"] == "ray-token" and "value" not in token


def test_what_a_cluster_cannot_see_is_refused(file: str) -> None:
    with pytest.raises(InvalidInput, match="relative"):
        write("cron", request(file, cluster=CLUSTER))
    with pytest.raises(InvalidInput, match="a cluster of its own"):
        Path(file).write_text(IN_A_LAKE)
        write("raycronjob", request(file, cluster=CLUSTER))


@pytest.mark.parametrize("form", IN_PODS)
def test_no_secret_gets_into_a_config_map(lake_file: str, form: str) -> None:
    Path(lake_file).write_text(IN_A_LAKE.replace("s3://lake/", "s3://me:hunter2@lake/"))
    with pytest.raises(InvalidInput, match="spells out a secret") as caught:
        write(form, request(lake_file))
    assert "hunter2" not in str(caught.value)


def test_airflow(file: str) -> None:
    text = write("airflow", request(file))
    calls = {
        n.func.id: n
        for n in ast.walk(ast.parse(text))
        if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
    }
    keys = {k.arg: k.value for k in calls["DAG"].keywords}
    assert ast.literal_eval(keys["max_active_runs"]) == 1 and ast.literal_eval(keys["catchup"]) is True
    command = ast.literal_eval({k.arg: k.value for k in calls["BashOperator"].keywords}["bash_command"])
    assert "in_timezone('Europe/Berlin')" in command and command.startswith("genai run ")


def test_github(file: str) -> None:
    workflow = yaml.safe_load(write("github", request(file)))
    assert [one["cron"] for one in workflow["on"]["schedule"]] == ["30 0 * * *", "30 1 * * *"]
    assert workflow["concurrency"] == {"group": "nightly", "cancel-in-progress": False}
    assert workflow["permissions"] == {"contents": "read"}
    step = workflow["jobs"]["run"]["steps"][-1]
    assert "inputs.slot" in step["env"]["SLOT"] and "inputs" not in step["run"], "no input inside a script"
    with pytest.raises(InvalidInput, match="in UTC"):
        write("github", request(file, cron="0 2 * * 1"))


@pytest.mark.parametrize(
    ("given", "words"), [("", ["--cron", "30 2 * * *"]), ("2026-11-01", ["--slot", "2026-11-01"])]
)
def test_a_workflow_makes_up_for_the_slot_that_it_is_given(
    file: str, tmp_path: Path, given: str, words: list[str]
) -> None:
    """The step's own script, as the runner's shell gets it; a slot that is a command stays text."""
    script = yaml.safe_load(write("github", request(file)))["jobs"]["run"]["steps"][-1]["run"]
    (tmp_path / "genai").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "genai").chmod(0o755)
    for slot in (given, given and f"{given}; touch hacked"):
        env = path_of(tmp_path) | {"SLOT": slot}
        done = subprocess.run(
            ["bash", "-e", "-c", script], env=env, capture_output=True, text=True, check=True
        )
        assert done.stdout.splitlines()[-2:] == [words[0], slot or words[1]]
    assert not (tmp_path / "hacked").exists()


@pytest.mark.parametrize(
    ("changes", "text", "part"),
    [
        ({"cron": "0 2 * *"}, NIGHTLY, "five fields"),
        ({"timezone": "Mars/Olympus"}, NIGHTLY, "is no zone"),
        ({}, NIGHTLY.replace("{slot}", "same"), "every run would write to"),
        ({"cron": "0 * * * *"}, NIGHTLY, "more than once a day"),
        ({"file": "-"}, NIGHTLY, "standard input"),
    ],
)
def test_what_would_not_work_at_night_is_refused_by_day(
    file: str, changes: dict[str, str], text: str, part: str
) -> None:
    Path(file).write_text(text)
    with pytest.raises(InvalidInput, match=part):
        write("cron", request(**{"file": file, **changes}))


def test_the_command_prints_and_refuses(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schedule", file, "--cron", "0 2 * * *", "--as", "cron"]) == 0
    assert "genai run" in capsys.readouterr().out
    assert main(["schedule", "missing.yaml", "--cron", "0 2 * * *", "--as", "cron"]) == 2
    assert "there is no such file" in capsys.readouterr().err
