"""`genai submit`: a job file goes to a Ray cluster with its code, and the same job of the same slot is one job."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import genai_core
import jobs
import pipelines
from genai_core.errors import InvalidInput, Unavailable
from jobs import entrypoint
from jobs.execute import Voice
from jobs.outcome import DONE, FAILED, INTERRUPTED, INVALID, TERMINATED, Outcome, Terminated
from jobs.portable import asks_tracking, require_portable, variables
from jobs.slots import Slot
from jobs.spec import STDIN, Entry, entries
from pipelines.masking import mask_text
from pipelines.plan import LIBRARIES, canonical_hash, code_fingerprint
from pipelines.progress import printable
from pipelines.running.ray_jobs import Cluster, Parcel, Submission, Taken, dashboard_address

COMMAND = "python -m jobs.entrypoint"
PACKAGES = tuple(Path(str(package.__file__)).parent for package in (genai_core, jobs, pipelines))
PINNED = (
    "python",
    "ray",
    *LIBRARIES,
)  # what decides whether a cluster can do the job, and which bytes come of it
CODES = {"done": DONE, "invalid": INVALID}
TRIES = 5
SPEC, FILE, SLOT, JOBS = "genai.spec", "genai.file", "genai.slot", "genai.jobs"  # beside "genai", the version


@dataclass(frozen=True)
class Request:
    """What `genai submit` was asked: `again` submits what has succeeded once more, `watch` waits for the end."""

    file: str
    overrides: tuple[str, ...] = ()
    slot: Slot | None = None
    address: str | None = None
    environment: tuple[str, ...] = ()
    again: bool = False
    follow: bool = False
    wait: bool = False


def submit(request: Request, voice: Voice) -> Outcome:
    """Hand the file over, or find that it was; raises InvalidInput before anything is sent."""
    if request.file == STDIN:
        raise InvalidInput("submitting needs a job file that can be named again, not standard input")
    found = entries(request.file, request.overrides, request.slot)
    require_portable(found)
    environment = variables(request.environment)
    address = dashboard_address(request.address)
    with tempfile.TemporaryDirectory() as folder:
        parcel = _packed(found, request, environment, Path(folder))
        cluster = Cluster(address, voice.tell)
        submission, reused = _handed_over(cluster, found, request, parcel)
    facts = {"submission_id": submission.id, "address": address, "reused": reused}
    voice.tell(_told(submission, reused, address))
    if not (request.follow or request.wait):
        return Outcome({"status": submission.state, **facts})
    outcome = watch(cluster, submission.id, voice, request.follow)
    outcome.facts = facts | outcome.facts
    return outcome


def watch(cluster: Cluster, identifier: str, voice: Voice, follow: bool) -> Outcome:
    """Wait for a job's end, its log on standard error if `follow`; the outcome is the job's own."""
    try:
        if follow and not voice.quiet:
            for text in cluster.follow(identifier):
                sys.stderr.write(printable(text, keep="\n\t"))
                sys.stderr.flush()
        return _ended(cluster, cluster.wait(identifier))
    except KeyboardInterrupt as error:
        code, word = (
            (TERMINATED, "terminated") if isinstance(error, Terminated) else (INTERRUPTED, "interrupted")
        )
        where = f"{identifier} --address {cluster.address}"
        sentence = f"{word}; the job goes on: genai logs {where} --follow; genai stop {where} ends it"
        return Outcome({"status": "running"}, code, word, sentence)


def result_of(cluster: Cluster, submission: Submission) -> dict[str, Any]:
    """The JSON line that the job ended with; empty when there is none."""
    for line in reversed(cluster.logs(submission.id).splitlines()[-20:]):
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict) and "status" in found:
            return {key: value for key, value in found.items() if key not in ("file", "status")}
    return {}


def identify(found: Sequence[Entry], slot: Slot | None) -> tuple[str, str]:
    """The hash of what the jobs are to make, and the id under which this code submits them.

    Not of where and how widely they run: a job that is submitted with more workers is still the same job.
    """
    spec = canonical_hash({"jobs": [_essence(entry.job) for entry in found], "slot": slot and str(slot)})
    code = canonical_hash([spec, code_fingerprint()]).removeprefix("sha256:")
    return spec.removeprefix("sha256:")[:20], f"genai-{code[:12]}"


def _essence(job: Any) -> dict[str, Any]:
    dumped = _dumped(job, exclude={"compute", "checkpoints"})
    if dumped["job"] == "train":  # the batches of two workers are not those of one
        dumped["workers"] = job.compute.crew
    return dumped


def _dumped(job: Any, **options: Any) -> dict[str, Any]:
    """A job as its file would say it, with the model that it goes on from."""
    dumped: dict[str, Any] = job.model_dump(mode="json", by_alias=True, **options)
    start = getattr(getattr(job, "model", None), "start", None)
    return dumped | {"model": dumped["model"] | {"from": start}} if start else dumped


def attempts(known: Sequence[Submission], identifier: str) -> list[Submission]:
    """Of one job, in the order in which they were made: ID, ID-2, ID-3, ..."""
    numbers = {one.id: _number(one.id, identifier) for one in known}
    return sorted((one for one in known if numbers[one.id]), key=lambda one: numbers[one.id])


def _number(found: str, identifier: str) -> int:
    """1 of ID itself, 2 of ID-2; 0 of other jobs."""
    if found == identifier:
        return 1
    suffix = found.removeprefix(f"{identifier}-")
    return int(suffix) if suffix != found and suffix.isdecimal() else 0


def _handed_over(
    cluster: Cluster, found: Sequence[Entry], request: Request, parcel: Parcel
) -> tuple[Submission, bool]:
    """The submission, and whether it was there before."""
    _, identifier = identify(found, request.slot)
    for _ in range(TRIES):
        earlier = attempts(cluster.submissions(), identifier)
        last = earlier[-1] if earlier else None
        if last and (not last.is_over or (last.state == "done" and request.slot and not request.again)):
            return last, True  # without a slot the source may have changed: the job itself finds out
        number = _number(last.id, identifier) + 1 if last else 1
        this = identifier if number == 1 else f"{identifier}-{number}"
        try:
            cluster.submit(this, parcel)
            return Submission(this, "pending"), False
        except Taken:  # by somebody who submitted the same job at the same time
            continue
    raise Unavailable(f"{identifier} is being submitted from elsewhere again and again; look at `genai jobs`")


def _packed(found: Sequence[Entry], request: Request, environment: Mapping[str, str], folder: Path) -> Parcel:
    """Write what the entry point reads, and say what goes with it."""
    travelling = [
        {
            "text": mask_text(entry.text),
            "job": _dumped(entry.job, exclude_unset=True) | {"job": entry.job.job},
        }
        for entry in found
    ]
    _refuse_changed(found, travelling, folder)
    name = printable(Path(request.file).name)
    content = {
        "file": name,
        "jobs": travelling,
        "versions": entrypoint.versions(PINNED),
        "tracks": any(asks_tracking(entry.job) for entry in found),
    }
    (folder / entrypoint.PARCEL).write_text(json.dumps(content, indent=1, sort_keys=True), encoding="utf-8")
    places = [getattr(entry.job, "compute", None) for entry in found]
    inline = [place for place in places if place is not None and place.runner == "inline"]
    return Parcel(
        COMMAND,
        folder,
        PACKAGES,
        environment,
        _metadata(found, request, name),
        # jobs without `compute` work in the driver, too; that of others only waits, which it may do on the head
        cpus=max([*(compute.cpus_per_worker for compute in inline), float(None in places)]),
        gpus=max((compute.gpus_per_worker for compute in inline), default=0.0),
    )


def _refuse_changed(found: Sequence[Entry], travelling: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """What the cluster will read must be what was read here."""
    copy = folder / "copy.yaml"
    copy.write_text(entrypoint.job_file(travelling), encoding="utf-8")
    there = [entry.job for entry in entries(copy)]
    copy.unlink()
    if there != [entry.job for entry in found]:
        raise InvalidInput(
            "the jobs hold values that a job file cannot carry to the cluster, such as an infinite number"
        )


def _metadata(found: Sequence[Entry], request: Request, name: str) -> dict[str, str]:
    """What `genai jobs` shows, and `genai status FILE` looks for."""
    titles = [f"{entry.job.job} {getattr(entry.job, 'title', None) or entry.job.name}" for entry in found]
    facts = {
        "genai": _version(),
        SPEC: identify(found, request.slot)[0],
        FILE: name,
        JOBS: printable("; ".join(titles)),
    }
    return facts if request.slot is None else facts | {SLOT: str(request.slot)}


def _version() -> str:
    from jobs.cli import version

    return version()


def _told(submission: Submission, reused: bool, address: str) -> str:
    where = f"{submission.id} --address {address}"
    if reused and submission.state == "done":
        return (
            f"{submission.id}: this job has succeeded for this slot already; --again submits it once more, for "
            "instance when its output is gone"
        )
    if reused:
        return (
            f"{submission.id}: this job is {submission.state} already; watch it: genai logs {where} --follow"
        )
    return f"submitted as {submission.id}; watch it: genai logs {where} --follow"


def _ended(cluster: Cluster, submission: Submission) -> Outcome:
    result = result_of(cluster, submission)
    code = CODES.get(submission.state, FAILED)
    if code == DONE:
        return Outcome({"status": "done", **result})
    error = why_ended(submission, result)
    return Outcome({"status": submission.state, **result}, code, error, f"{submission.id}: {error}")


def why_ended(submission: Submission, result: Mapping[str, Any]) -> str:
    """By the job itself, and if it could not say it, by Ray."""
    if submission.state == "stopped":
        return "stopped; what was committed stays, and submitting the same job again goes on from there"
    if result.get("error"):
        return str(result["error"])
    lines = [line.strip() for line in submission.message.splitlines() if line.strip()]
    return mask_text(lines[-1]) if lines else f"{submission.state} without a reason"
