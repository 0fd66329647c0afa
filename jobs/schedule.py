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

from genai_core.errors import InvalidInput
from jobs import kubernetes
from jobs.outcome import INVALID
from jobs.portable import places, require_portable, spells_secret
from jobs.slots import Slot, check_cron, shortest_gap, templates_in, times_of_day, zone_of
from jobs.spec import STDIN, Entry, entries

DEADLINE_SECONDS = 86_400
START_SECONDS = 300  # what a cluster of its own may take to come up and to go away again
BUSY = 75  # exit code of a crontab line whose last run is still busy: EX_TEMPFAIL, which no job ends with
KEPT = ("source.path", "sink.path", "model")  # what must outlive a pod; checkpoints save time alone
FIRST_MINUTE = 25_000_000  # minutes since 1970 up to 2017: a number below is a date such as 20261101


@dataclass(frozen=True)
class Request:
    """What shall be scheduled.

    `cluster`: the dashboard of a Ray cluster that the job is handed to, instead of running where the schedule does.
    `claim`: the PersistentVolumeClaim in which relative paths lie, on Kubernetes.
    """

    file: str
    cron: str
    timezone: str = "UTC"
    overrides: tuple[str, ...] = ()
    name: str | None = None
    image: str | None = None
    namespace: str | None = None
    claim: str | None = None
    cluster: str | None = None

    @property
    def label(self) -> str:
        """`name`, or the file's, as a DNS label: it names the things in Kubernetes. Raises InvalidInput."""
        text = re.sub(r"[^a-z0-9-]+", "-", (self.name or Path(self.file).stem).lower()).strip("-")
        text = text if text[:1].isalpha() else f"genai-{text}".strip("-")
        if len(text) > kubernetes.MAX_NAME:
            raise InvalidInput(
                f"the name {text!r} has {len(text)} characters, {kubernetes.MAX_NAME} at most fit what schedulers "
                "append to it; give a shorter one: --name"
            )
        return text

    @property
    def text(self) -> str:
        """Of the job file."""
        return Path(self.file).read_text(encoding="utf-8-sig")

    def command(self, file: str, *slot: str, more: Sequence[str] = ()) -> list[str]:
        """The command that runs the job; what the user overrides wins over `more`."""
        settings = [word for override in (*more, *self.overrides) for word in ("--set", override)]
        verb = (
            ["run", file] if self.cluster is None else ["submit", file, "--address", self.cluster, "--wait"]
        )
        return ["genai", *verb, *slot, "--timezone", self.timezone, *settings]


def write(form: str, request: Request) -> str:
    """The text for one of FORMS. Raises InvalidInput: no cron expression, runs that would get in each other's way."""
    check_cron(request.cron)
    zone_of(request.timezone)
    if request.file == STDIN:
        raise InvalidInput("a schedule needs a job file to name, not standard input")
    slot = Slot.last_due(request.cron, request.timezone)
    found = entries(request.file, request.overrides, slot)
    _refuse_same_slots(found, request)
    if request.cluster is not None:
        require_portable(found)
    elif form in IN_PODS:
        _refuse_lost_paths(found, request)
    return FORMS[form](request)


def _refuse_lost_paths(found: Sequence[Entry], request: Request) -> None:
    """A pod has none of this machine's files, and what it writes beside a volume ends with it."""
    for entry in found:
        for key, path in places(entry.job).items():
            if spells_secret(path):
                raise InvalidInput(
                    f"{entry.place}: {key} spells out a secret, which would lie open in a ConfigMap; leave it out: a "
                    f"Secret named {request.label} becomes the job's environment"
                )
            if key not in KEPT or "://" in path or path.startswith("models:/"):
                continue
            if request.claim is None:
                raise InvalidInput(
                    f"{entry.place}: {key} {path!r} would lie in a pod, whose files end with it; give a URI such as "
                    "s3://bucket/folder, or --claim NAME, the PersistentVolumeClaim that holds it"
                )
            if Path(path).is_absolute() and not path.startswith(f"{kubernetes.WORK}/"):
                raise InvalidInput(
                    f"{entry.place}: {key} {path!r} lies beside the claim, which is mounted at {kubernetes.WORK}; "
                    "give a relative path, or a URI"
                )


def _refuse_same_slots(found: Sequence[Entry], request: Request) -> None:
    """Runs of different slots must not meet in one output, nor two slots be one."""
    templates = templates_in(request.text) + [t for text in request.overrides for t in templates_in(text)]
    later = Slot.at("2031-06-15T12:34", request.timezone)
    moved = {entry.place: _sink(entry) for entry in entries(request.file, request.overrides, later)}
    for entry in found:
        # a lake job knows from its output what it has scored
        if entry.job.job not in ("train", "lake") and _sink(entry) == moved[entry.place]:
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
    """For a crontab: one run at a time by flock, and a skipped one is said; % has a meaning there and is escaped."""
    command = shlex.join(request.command(str(Path(request.file).absolute()), "--cron", request.cron))
    skipped = f"genai: {request.label} skips a slot, since its last run is still busy; genai run --slot makes up for it"
    line = (
        f"cd {shlex.quote(str(Path.cwd()))} && {{ "
        f"flock --nonblock --conflict-exit-code {BUSY} .genai-{request.label}.lock {command}; code=$?; "
        f"[ $code -ne {BUSY} ] || echo {shlex.quote(skipped)} >&2; exit $code; }}"
    )
    escaped = line.replace("%", r"\%")
    return f"CRON_TZ={request.timezone}\n{request.cron} {escaped}\n"


def _kubernetes(request: Request) -> str:
    """A batch/v1 CronJob. The controller names its Jobs NAME-MINUTE, and that is the slot, however late they start.

    A missed slot is named by hand: kubectl create job NAME-2026-11-01 --from=cronjob/NAME
    """
    name, image = request.label, request.image or kubernetes.IMAGE
    script = (
        f"at=${{JOB_NAME#{name}-}}\n"
        f'if [ "$at" -gt {FIRST_MINUTE} ] 2>/dev/null; then at="@$((at * 60))"; fi\n'
        f'exec {shlex.join(request.command(f"{kubernetes.PLACE}/job.yaml"))} --slot "$at"\n'
    )
    name_of_job = {"fieldRef": {"fieldPath": "metadata.labels['batch.kubernetes.io/job-name']"}}
    container: dict[str, Any] = {"name": "job", "command": ["sh", "-c", script]}
    environment: list[dict[str, Any]] = [{"name": "JOB_NAME", "valueFrom": name_of_job}]
    if request.cluster is not None:  # the pod only waits, with the cluster's token
        environment.append(kubernetes.CLUSTER_TOKEN)
        container |= {"resources": kubernetes.SMALL}
    job = {
        "backoffLimit": 3,
        "podFailurePolicy": {
            "rules": [
                {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [INVALID]}},
                {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]},
            ]
        },
        "activeDeadlineSeconds": DEADLINE_SECONDS,
        "template": kubernetes.pod(name, image, request.claim, container | {"env": environment}),
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
    about = kubernetes.metadata(name, request.namespace)
    made = {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": about, "spec": spec}
    return kubernetes.documents(kubernetes.config_map(name, request.namespace, request.text), made)


def _raycronjob(request: Request) -> str:
    """A ray.io/v1 RayCronJob (KubeRay, an alpha feature): a cluster of its own for every slot.

    It has no concurrency policy, so a run and its one retry are ended before the next slot is due.
    """
    if request.cluster is not None:
        raise InvalidInput(
            "a RayCronJob brings a cluster of its own; leave out --cluster, or use --as kubernetes"
        )
    seconds = (int(shortest_gap(request.cron, request.timezone).total_seconds()) - START_SECONDS) // 2
    if seconds < START_SECONDS:
        raise InvalidInput(
            f"--cron {request.cron!r} fires too often for a cluster of its own each time, and KubeRay would let them "
            "overlap; leave 15 minutes between two runs, or use --as kubernetes"
        )
    name, image = request.label, request.image or kubernetes.IMAGE
    words = request.command(
        f"{kubernetes.PLACE}/job.yaml", "--cron", request.cron, more=["compute.runner=127.0.0.1:6379"]
    )
    job = {
        # as a file: on its way the entry point is read by two shells, and quoted for none of them
        "entrypoint": f"sh {kubernetes.PLACE}/run.sh",
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": 60,
        "activeDeadlineSeconds": min(seconds, DEADLINE_SECONDS),
        "backoffLimit": 1,
        "submitterPodTemplate": kubernetes.submitter(name, image),
        "rayClusterSpec": kubernetes.cluster(name, image, request.claim),
    }
    spec = {"schedule": request.cron, "timeZone": request.timezone, "jobTemplate": job}
    about = kubernetes.metadata(name, request.namespace)
    made = {"apiVersion": "ray.io/v1", "kind": "RayCronJob", "metadata": about, "spec": spec}
    script = f"exec {shlex.join(words)}\n"
    return kubernetes.documents(
        kubernetes.config_map(name, request.namespace, request.text, run=script), made
    )


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
    return kubernetes.documents(workflow)


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
IN_PODS = ("kubernetes", "raycronjob")
