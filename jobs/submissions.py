"""`genai status`, `logs`, `stop` and `jobs`: what a cluster knows of jobs, and what they left when it knows nothing."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from genai_core.errors import InvalidInput, Unavailable
from jobs.execute import Voice
from jobs.outcome import DONE, Outcome
from jobs.slots import Slot
from jobs.spec import Entry, entries
from jobs.submit import JOBS, SLOT, SPEC, identify, result_of, why_ended
from pipelines.masking import mask_text
from pipelines.progress import clock, printable
from pipelines.running import job_state
from pipelines.running.ray_jobs import Cluster, Submission, dashboard_address

IDENTIFIER = re.compile(r"genai-[0-9a-f]{12}(-\d+)?")


@dataclass(frozen=True)
class Subject:
    """What a command asks about: the id of a submission, or the job file (with overrides and slot) that it was."""

    what: str
    address: str | None = None
    overrides: tuple[str, ...] = ()
    slot: Slot | None = None

    @property
    def is_file(self) -> bool:
        return not IDENTIFIER.fullmatch(self.what)

    def jobs(self) -> list[Entry]:
        """Of the file; none of an id."""
        return entries(self.what, self.overrides, self.slot) if self.is_file else []

    def newest(self, cluster: Cluster, found: Sequence[Entry]) -> Submission | None:
        """The submission that is meant: of a file the last attempt, also one that was made with other code."""
        if not self.is_file:
            return cluster.find(self.what)
        spec, _ = identify(found, self.slot)
        return next((one for one in reversed(cluster.submissions()) if one.metadata.get(SPEC) == spec), None)

    def required(self, cluster: Cluster) -> Submission:
        """The same; raises InvalidInput when the cluster knows none."""
        submission = self.newest(cluster, self.jobs())
        if submission is None:
            raise InvalidInput(
                f"the cluster at {cluster.address} knows no submission of {self.what!r}: look at `genai jobs`; a head "
                "that was started anew has forgotten all, and then `genai status FILE` looks at what the job left"
            )
        return submission


def status(subject: Subject, voice: Voice) -> Outcome:
    """How a job is. Of a file also what its output and MLflow say, so that it can be told without the cluster."""
    found = subject.jobs()
    if not subject.is_file:
        cluster = Cluster(dashboard_address(subject.address), voice.tell)
        return _known(cluster, subject.required(cluster), [], voice)
    left = [_left(entry) for entry in found]
    try:
        cluster = Cluster(dashboard_address(subject.address), voice.tell)
        submission = subject.newest(cluster, found)
        note = f"the cluster at {cluster.address} knows no submission of this job"
    except (InvalidInput, Unavailable) as error:  # the answer is wanted all the same
        submission, note = None, str(error)
    if submission is not None:
        return _known(cluster, submission, left, voice)
    together = _together({one["status"] for one in left})
    voice.tell(f"{note}\nby what the job{'s' * (len(left) > 1)} left: {together}")
    _tell_left(left, voice)
    return Outcome({"status": together, "known_from": "output and tracking", "cluster": note, "jobs": left})


def _together(states: set[str]) -> str:
    """Of the jobs of one file: one that is done and one that has not started are an unfinished file."""
    if job_state.UNKNOWN in states:
        return job_state.UNKNOWN
    return states.pop() if len(states) == 1 else job_state.UNFINISHED


def _known(cluster: Cluster, submission: Submission, left: Sequence[dict[str, Any]], voice: Voice) -> Outcome:
    facts: dict[str, Any] = {
        "status": submission.state,
        "known_from": "cluster",
        "submission_id": submission.id,
        "address": cluster.address,
        "slot": submission.metadata.get(SLOT),
        "started": _time(submission.started),
        "ended": _time(submission.ended),
    }
    voice.tell(
        f"{submission.id}: {submission.state}{_lasted(submission)} ({submission.metadata.get(JOBS, '')})"
    )
    if submission.state == "pending":  # Ray says what it waits for
        facts["message"] = mask_text(submission.message)
        voice.tell(facts["message"])
    if submission.is_over:
        facts["result"] = result = result_of(cluster, submission)
        if submission.state != "done":
            voice.tell(why_ended(submission, result))
    if left:
        facts["jobs"] = list(left)
        _tell_left(left, voice)
    return Outcome(facts, DONE)


def _left(entry: Entry) -> dict[str, Any]:
    label = {"job": entry.job.job, "name": getattr(entry.job, "name", None)}
    return label | job_state.state_of(entry.job)


def _tell_left(left: Sequence[dict[str, Any]], voice: Voice) -> None:
    for one in left:
        shards = (
            f"{one['shards']:,}" + (f" of {one['of']:,}" if "of" in one else "") if "shards" in one else ""
        )
        parts = [
            f"{one['rows']:,} rows" if "rows" in one else "",
            f"{shards} shards committed" if shards else "",
            f"in {one['output']}" if "output" in one else "",
            f"run {one['runs'][0]['run_id']} ({one['runs'][0]['status'].lower()})" if one.get("runs") else "",
            one.get("note", ""),
        ]
        title = " ".join(filter(None, (one["job"], one["name"])))
        voice.tell(f"  {title}: {one['status']}; {', '.join(filter(None, parts))}".rstrip("; "))


def logs(subject: Subject, follow: bool) -> None:
    """What a job said, on standard output; with `follow` until it is over, whatever happens to the connection."""
    voice = Voice()
    cluster = Cluster(dashboard_address(subject.address), voice.tell)
    submission = subject.required(cluster)
    pieces = cluster.follow(submission.id) if follow else [cluster.logs(submission.id)]
    for text in pieces:
        sys.stdout.write(printable(text, keep="\n\t"))
        sys.stdout.flush()


def stop(subject: Subject, voice: Voice) -> Outcome:
    """End a job. What it committed stays: submitted again, it goes on from there."""
    cluster = Cluster(dashboard_address(subject.address), voice.tell)
    submission = subject.required(cluster)
    if not submission.is_over:
        submission = cluster.stop(submission.id) or submission
    voice.tell(f"{submission.id}: {submission.state}; {_after(submission)}")
    return Outcome({"status": submission.state, "submission_id": submission.id, "address": cluster.address})


def _after(submission: Submission) -> str:
    if submission.state == "done":
        return "it had finished"
    return "what was committed stays, and submitting the same job again goes on from there"


def jobs(address: str | None) -> list[dict[str, Any]]:
    """The submissions that the cluster remembers, the newest last."""
    cluster = Cluster(dashboard_address(address), Voice().tell)
    return [_listed(one) for one in cluster.submissions()]


def _listed(one: Submission) -> dict[str, Any]:
    shown = asdict(one) | {"started": _time(one.started), "ended": _time(one.ended), "lasted": _lasted(one)}
    del shown["message"]
    return shown


def as_text(found: Sequence[dict[str, Any]]) -> str:
    """One line a job, for a terminal."""
    if not found:
        return "no submissions; a head that was started anew has forgotten those before"
    rows = [
        (
            one["id"],
            one["state"],
            one["started"] or "",
            one["metadata"].get(SLOT, ""),
            one["metadata"].get(JOBS, ""),
        )
        for one in found
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    return "\n".join(
        "  ".join([*(f"{word:{width}}" for word, width in zip(row, widths, strict=False)), row[4]]).rstrip()
        for row in rows
    )


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _lasted(submission: Submission) -> str:
    if submission.started is None:
        return ""
    seconds = (submission.ended or time.time()) - submission.started
    return f" {'after' if submission.is_over else 'for'} {clock(seconds)}"
