"""What a fault left, held against a run that nobody disturbed"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks import chaos_jobs as jobs
from benchmarks.chaos_jobs import Driver, Ended, Spec
from benchmarks.chaos_services import clean

STALL_SECONDS = 30.0
LIMIT_SECONDS = STALL_SECONDS + 60.0  # the watchdog's 30 s of grace, and a machine with other things to do
ANY = "any moment"


@dataclass(frozen=True)
class Fault:
    """What is killed, in a job of which verb, and two random numbers that say when and in what way."""

    number: int
    what: str
    verb: str
    chance: float
    choice: float


@dataclass(frozen=True)
class Found:
    """What a fault left: everything but `faults` and `reruns` counts violations, except that all must finish."""

    phase: str
    faults: int = 1
    reruns: int = 0
    finished: bool = False
    equal: bool = False
    rows: bool = False
    orphans: int = 0
    hangs: int = 0
    crashes: int = 0  # drivers that ended with an error that is none of the project's own
    lost: int = 0  # metrics that a run does not have
    twice: int = 0  # versions of a registered model beyond the one
    longest: float = 0.0
    note: str = ""

    @property
    def fine(self) -> bool:
        bad = self.orphans + self.hangs + self.crashes + self.lost + self.twice
        return self.finished and self.equal and self.rows and not bad and self.reruns <= self.faults


@dataclass
class Undisturbed:
    """A run that nobody disturbs: its answer, its files, its seconds, its changes of files one by one."""

    result: dict[str, Any]
    files: dict[str, str]
    seconds: float
    steps: list[str]

    @property
    def proof(self) -> str:
        """What must be the same after a fault."""
        return str(self.result.get("manifest") or self.result.get("model_digest"))


def compare(undisturbed: Undisturbed, fault: Fault, home: Path, found: Found) -> Found:
    """Look at what a fault left beside the files of the undisturbed run."""
    files = jobs.files(home)
    wrong = {name for name, digest in undisturbed.files.items() if files.get(name) != digest}
    same = undisturbed.proof in found.note and not {name for name in wrong if "/data/" in name}
    orphans = sorted(set(files) - set(undisturbed.files))
    count = int(undisturbed.result["rows"])
    rows = found.finished and jobs.rows_are_right(home / "out", fault.verb, count)
    said = "; ".join([*orphans[:4], found.note])
    found = replace(found, equal=same, orphans=len(orphans), rows=rows, note="")
    return found if found.fine else replace(found, note=said)


def summary(phase: str, ended: list[Ended]) -> Found:
    """Of all drivers that a fault saw; `note` holds what they said and answered."""
    done = [driver for driver in ended if driver.done]
    return Found(
        phase,
        finished=bool(done),
        hangs=sum(driver.code is None for driver in ended),
        crashes=sum(driver.code == jobs.CRASHED or (driver.code or 0) < -9 for driver in ended),
        longest=round(max(driver.seconds for driver in ended), 2),
        note=" // ".join(f"{d.code}: {d.said.strip()[-700:]} {json.dumps(dict(d.result))}" for d in ended),
    )


def undisturbed(spec: Spec, home: Path, environment: Mapping[str, str] | None = None) -> Undisturbed:
    """What a job gives and leaves when nothing happens to it."""
    log = home.with_suffix(".steps")
    ended = Driver(spec, clean(home), _noting(home, log), environment).wait(10 * LIMIT_SECONDS)
    rows = int(ended.result.get("rows", 0))
    local = "://" not in spec["sink"]["path"]
    if not ended.done or (local and not jobs.rows_are_right(home / "out", spec["job"], rows)):
        raise RuntimeError(f"the undisturbed {spec['job']} failed: {ended.said}")
    return Undisturbed(dict(ended.result), jobs.files(home), ended.seconds, log.read_text().splitlines())


def _noting(home: Path, log: Path) -> Callable[[], None]:
    def arm() -> None:
        file = log.open("w", buffering=1)
        jobs.steps(home, lambda number, name: file.write(name + "\n") and None)

    return arm
