"""`genai schedule`: the manifest or file with which a scheduler that people already run starts a job file.

No daemon of our own. All forms say the same four things: one command, an honest exit code, a slot that does not depend
on when the run really starts, and that runs do not overlap.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from genai_core.errors import InvalidInput
from jobs.slots import Slot, check_cron, templates_in, times_of_day, zone_of
from jobs.spec import STDIN, Entry, entries

IMAGE = "genai-core:latest"  # what infra/Dockerfile is tagged as
PLACE = "/etc/genai"
DEADLINE_SECONDS = 86_400
RAY_VERSION = "2.60.0"


@dataclass(frozen=True)
class Request:
    """What shall be scheduled. `name` is a DNS label: it names the things in Kubernetes."""

    file: str
    cron: str
    timezone: str = "UTC"
    overrides: tuple[str, ...] = ()
    name: str | None = None
    image: str = IMAGE
    namespace: str | None = None

    @property
    def label(self) -> str:
        """`name`, or the file's, as Kubernetes wants it."""
        text = re.sub(r"[^a-z0-9-]+", "-", (self.name or Path(self.file).stem).lower()).strip("-")
        return text[:45].rstrip("-") or "genai"

    @property
    def text(self) -> str:
        """Of the job file."""
        return Path(self.file).read_text(encoding="utf-8-sig")

    def command(self, file: str, *slot: str) -> list[str]:
        """The command that runs the job."""
        settings = [word for override in self.overrides for word in ("--set", override)]
        return ["genai", "run", file, *slot, "--timezone", self.timezone, *settings]


def write(form: str, request: Request) -> str:
    """The text for one of FORMS. Raises InvalidInput: no cron expression, runs that would get in each other's way."""
    check_cron(request.cron)
    zone_of(request.timezone)
    if request.file == STDIN:
        raise InvalidInput("a schedule needs a job file to name, not standard input")
    slot = Slot.last_due(request.cron, request.timezone)
    _refuse_same_slots(entries(request.file, request.overrides, slot), request)
    return FORMS[form](request)


def _refuse_same_slots(found: Sequence[Entry], request: Request) -> None:
    """Runs of different slots must not meet in one output, nor two slots be one."""
    templates = templates_in(request.text) + [t for text in request.overrides for t in templates_in(text)]
    later = Slot.at("2031-06-15T12:34", request.timezone)
    moved = {entry.place: _sink(entry) for entry in entries(request.file, request.overrides, later)}
    for entry in found:
        if entry.job.job != "train" and _sink(entry) == moved[entry.place]:
            raise InvalidInput(
                f"{entry.place}: every run would write to {_sink(entry)!r}, and all but the first would be refused; "
                "put the slot into sink.path, such as out/{slot}"
            )
    if (
        templates
        and len(times_of_day(request.cron)) > 1
        and not any(":" in t and "H" in t for t in templates)
    ):
        raise InvalidInput(
            f"--cron {request.cron!r} fires more than once a day, but {', '.join(sorted(set(templates)))} differs "
            "from day to day only; use {slot:%Y-%m-%dT%H%M}"
        )


def _sink(entry: Entry) -> str | None:
    return getattr(getattr(entry.job, "sink", None), "path", None)


# -- the forms -----------------------------------------------------------------------------------------------


def _cron(request: Request) -> str:
    """For a crontab: one run at a time by flock; % has a meaning there and is escaped."""
    command = shlex.join(request.command(str(Path(request.file).absolute()), "--cron", request.cron))
    lock = f"/tmp/genai-{request.label}.lock"
    line = (
        f"cd {shlex.quote(str(Path.cwd()))} && exec flock --nonblock --conflict-exit-code 0 {lock} {command}"
    )
    escaped = line.replace("%", r"\%")
    return f"CRON_TZ={request.timezone}\n{request.cron} {escaped}\n"


def _kubernetes(request: Request) -> str:
    """A batch/v1 CronJob. The scheduled minute stands in the name of the Job that the controller makes of it."""
    script = f'exec {shlex.join(request.command(f"{PLACE}/job.yaml"))} --slot "@$((${{JOB_NAME##*-}} * 60))"'
    name_of_job = {"fieldRef": {"fieldPath": "metadata.labels['batch.kubernetes.io/job-name']"}}
    container = _container(request) | {
        "command": ["sh", "-c", script],
        "env": [{"name": "JOB_NAME", "valueFrom": name_of_job}],
    }
    job = {
        "backoffLimit": 3,
        "activeDeadlineSeconds": DEADLINE_SECONDS,
        "template": {
            "metadata": {"labels": {"app.kubernetes.io/name": "genai-core"}},
            "spec": {
                "restartPolicy": "Never",
                "automountServiceAccountToken": False,
                "securityContext": {
                    "runAsNonRoot": True,
                    "runAsUser": 1000,
                    "fsGroup": 1000,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": [container],
                "volumes": _volumes(request),
            },
        },
    }
    spec = {
        "schedule": request.cron,
        "timeZone": request.timezone,
        "concurrencyPolicy": "Forbid",
        "startingDeadlineSeconds": 3600,
        "successfulJobsHistoryLimit": 3,
        "failedJobsHistoryLimit": 5,
        "jobTemplate": {"spec": job},
    }
    made = {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": _metadata(request), "spec": spec}
    return _documents(_config_map(request), made)


def _raycronjob(request: Request) -> str:
    """A ray.io/v1 RayCronJob (KubeRay, an alpha feature): a cluster of its own for every slot.

    It has no concurrency policy: leave more time between two runs than one takes.
    """
    entry = shlex.join(request.command(f"{PLACE}/job.yaml", "--cron", request.cron))
    pod = {"spec": {"containers": [_container(request, "ray")], "volumes": _volumes(request)}}
    cluster = {
        "rayVersion": RAY_VERSION,
        "headGroupSpec": {"rayStartParams": {"dashboard-host": "0.0.0.0"}, "template": pod},
        "workerGroupSpecs": [
            {
                "groupName": "workers",
                "replicas": 1,
                "minReplicas": 0,
                "maxReplicas": 4,
                "rayStartParams": {},
                "template": pod,
            }
        ],
    }
    job = {
        "entrypoint": entry,
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": 600,
        "activeDeadlineSeconds": DEADLINE_SECONDS,
        "backoffLimit": 1,
        "rayClusterSpec": cluster,
    }
    spec = {"schedule": request.cron, "timeZone": request.timezone, "jobTemplate": job}
    made = {"apiVersion": "ray.io/v1", "kind": "RayCronJob", "metadata": _metadata(request), "spec": spec}
    return _documents(_config_map(request), made)


def _airflow(request: Request) -> str:
    """A DAG file: Airflow knows the slot, and fills in what it missed (catchup)."""
    local = f"data_interval_end.in_timezone({request.timezone!r})"
    slot = f"{{{{ {local}.strftime('%Y-%m-%dT%H:%M') }}}}"
    words = request.command(str(Path(request.file).absolute()), "--slot", "SLOT")
    command = " ".join(f'"{slot}"' if word == "SLOT" else shlex.quote(word) for word in words)
    return f'''"""{request.label}: made by `genai schedule`; change the job file, not this one."""

import pendulum
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG
from airflow.timetables.trigger import CronTriggerTimetable

with DAG(
    dag_id={json.dumps(request.label)},
    schedule=CronTriggerTimetable({json.dumps(request.cron)}, timezone={json.dumps(request.timezone)}),
    start_date=pendulum.datetime({_today()}, tz={json.dumps(request.timezone)}),
    catchup=True,
    max_active_runs=1,
):
    BashOperator(task_id="run", bash_command={json.dumps(command)}, cwd={json.dumps(str(Path.cwd()))}, retries=3)
'''


def _today() -> str:
    now = datetime.now(UTC)
    return f"{now.year}, {now.month}, {now.day}"


def _github(request: Request) -> str:
    """A workflow: GitHub starts late and knows UTC alone; `--cron` finds the slot. A run by hand can name one."""
    words = shlex.join(request.command(request.file))
    given = f'{words} --slot "$SLOT"'
    due = f"{words} --cron {shlex.quote(request.cron)}"
    steps = [
        {"uses": "actions/checkout@v5"},
        {"uses": "actions/setup-python@v6", "with": {"python-version": "3.11"}},
        {"run": "pip install -r requirements.lock && pip install --no-deps -e ."},
        {
            "env": {"SLOT": "${{ inputs.slot }}"},
            "run": f'if [ -n "$SLOT" ]; then {given}; else {due}; fi',
        },
    ]
    workflow = {
        "name": request.label,
        "on": {
            "schedule": [{"cron": cron} for cron in _in_utc(request.cron, request.timezone)],
            "workflow_dispatch": {"inputs": {"slot": {"description": "a missed slot, such as 2026-11-01"}}},
        },
        "permissions": {"contents": "read"},
        "concurrency": {"group": request.label, "cancel-in-progress": False},
        "jobs": {"run": {"runs-on": "ubuntu-latest", "timeout-minutes": 350, "steps": steps}},
    }
    return _documents(workflow)


def _in_utc(cron: str, timezone: str) -> list[str]:
    """The expression at every offset that the zone has in a year; a fire too many finds its slot done already.

    Raises InvalidInput where hours cannot be moved without moving days.
    """
    zone = zone_of(timezone)
    offsets = {datetime(2026, month, 1, 12, tzinfo=zone).utcoffset() for month in (1, 4, 7, 10)}
    minutes = sorted({int(offset.total_seconds() // 60) for offset in offsets if offset is not None})
    if minutes == [0]:
        return [cron]
    minute, hour, *days = cron.split()
    if not (minute.isdigit() and hour.isdigit() and days == ["*", "*", "*"]):
        raise InvalidInput(
            f"GitHub's schedules are in UTC: --cron {cron!r} in {timezone} cannot be said there; use a plain daily "
            "time such as '0 2 * * *', or --timezone UTC"
        )
    times = [(int(hour) * 60 + int(minute) - offset) % 1440 for offset in minutes]
    return [f"{time % 60} {time // 60} * * *" for time in sorted(times)]


FORMS: dict[str, Callable[[Request], str]] = {
    "airflow": _airflow,
    "cron": _cron,
    "github": _github,
    "kubernetes": _kubernetes,
    "raycronjob": _raycronjob,
}


# -- what Kubernetes wants -----------------------------------------------------------------------------------


def _metadata(request: Request) -> dict[str, Any]:
    found: dict[str, Any] = {"name": request.label, "labels": {"app.kubernetes.io/name": "genai-core"}}
    return found | ({"namespace": request.namespace} if request.namespace else {})


def _config_map(request: Request) -> dict[str, Any]:
    data = {"job.yaml": request.text}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _metadata(request), "data": data}


def _volumes(request: Request) -> list[dict[str, Any]]:
    return [{"name": "job", "configMap": {"name": request.label}}, {"name": "work", "emptyDir": {}}]


def _container(request: Request, name: str = "job") -> dict[str, Any]:
    """Least privilege; credentials and MLFLOW_TRACKING_URI from a secret of the job's name, where there is one."""
    return {
        "name": name,
        "image": request.image,
        "workingDir": "/work",
        "envFrom": [{"secretRef": {"name": request.label, "optional": True}}],
        "volumeMounts": [
            {"name": "job", "mountPath": PLACE, "readOnly": True},
            {"name": "work", "mountPath": "/work"},
        ],
        "resources": {"requests": {"cpu": "1", "memory": "2Gi"}, "limits": {"memory": "4Gi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }


class _Dumper(yaml.SafeDumper):
    """Every part written out, and texts of several lines as they are: people will read and change this."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text_block(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text_block)


def _documents(*documents: dict[str, Any]) -> str:
    return yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, width=120)
