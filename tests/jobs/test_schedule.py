"""`genai schedule`: each form is valid for its reader, runs the right command, and refuses what would collide."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from genai_core.errors import InvalidInput
from jobs.cli import SCHEDULERS, main
from jobs.schedule import FORMS, Request, write

NIGHTLY = """\
job: generate
model: models:/flights@latest
rows: 10
where: {origin: "J'F %K {{ x }} $(id)"}
sink: {path: "out/{slot}"}
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nightly.yaml").write_text(NIGHTLY)
    return "nightly.yaml"


def request(file: str, **changes: object) -> Request:
    return Request(**{"file": file, "cron": "30 2 * * *", "timezone": "Europe/Berlin", **changes})  # type: ignore[arg-type]


def test_the_command_line_offers_every_form() -> None:
    assert tuple(sorted(FORMS)) == SCHEDULERS


def test_kubernetes(file: str) -> None:
    config, job = yaml.safe_load_all(write("kubernetes", request(file)))
    assert config["data"]["job.yaml"] == NIGHTLY
    assert (job["kind"], job["apiVersion"]) == ("CronJob", "batch/v1")
    assert job["spec"]["schedule"] == "30 2 * * *" and job["spec"]["timeZone"] == "Europe/Berlin"
    assert job["spec"]["concurrencyPolicy"] == "Forbid"
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] and not pod["automountServiceAccountToken"]
    (container,) = pod["containers"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    # the controller names a Job by the scheduled minute: that is the slot, however late the pod starts
    script = container["command"][2].replace("exec genai", "echo genai")
    env = {"JOB_NAME": f"nightly-{1793496600 // 60}"}
    said = subprocess.run(["sh", "-c", script], env=env, capture_output=True, text=True, check=True).stdout
    assert said.split()[-2:] == ["--slot", "@1793496600"]


def test_raycronjob(file: str) -> None:
    _, job = yaml.safe_load_all(write("raycronjob", request(file)))
    assert (job["kind"], job["apiVersion"]) == ("RayCronJob", "ray.io/v1")
    assert job["spec"]["timeZone"] == "Europe/Berlin"
    words = shlex.split(job["spec"]["jobTemplate"]["entrypoint"])
    assert words[:2] == ["genai", "run"] and words[words.index("--cron") + 1] == "30 2 * * *"
    assert job["spec"]["jobTemplate"]["shutdownAfterJobFinishes"]


def test_cron(file: str) -> None:
    text = write("cron", request(file, overrides=("where.origin=100 % of $(id)",)))
    zone, line = text.splitlines()
    assert zone == "CRON_TZ=Europe/Berlin" and line.startswith("30 2 * * * ")
    assert not re.search(r"(?<!\\)%", line), "cron ends a command at a bare %"
    words = shlex.split(line.replace(r"\%", "%").removeprefix("30 2 * * * "))
    assert "flock" in words and words[-1] == "where.origin=100 % of $(id)"


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
