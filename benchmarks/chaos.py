"""Faults over generate, score and train: kill -9 of everything that can be killed, at every phase and at random

python -m benchmarks.chaos --work DIR                            drivers, store, MLflow, Ray; goes on where it stopped
python -m benchmarks.chaos --work DIR --only driver --faults 40 --out FILE                          the short form

After each fault the same command runs once more, if the job has not finished. Then the job must be finished, its rows
unique and complete, its manifest (the digest of a trained model) that of the undisturbed run, its files exactly those
of the undisturbed run; and no driver may have lasted longer than the watchdog allows.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks import chaos_jobs as jobs
from benchmarks.chaos_jobs import Driver, Ended, Spec
from benchmarks.chaos_places import Places
from benchmarks.chaos_services import clean
from benchmarks.chaos_verdict import (
    ANY,
    LIMIT_SECONDS,
    STALL_SECONDS,
    Fault,
    Found,
    Undisturbed,
    compare,
    summary,
    undisturbed,
)
from benchmarks.record import save

MIX = {  # what is killed -> how often for each verb
    "driver in a phase": {"generate": 48, "score": 48, "train": 30},
    "driver": {"generate": 20, "score": 20, "train": 10},
    "driver, five times": {"generate": 8, "score": 8, "train": 3},
    "two drivers": {"generate": 12, "score": 12, "train": 6},
    "one of two drivers": {"generate": 12, "score": 12, "train": 6},
    "clock": {"generate": 5, "score": 5, "train": 5},
    "driver, store": {"generate": 6, "score": 6},
    "store": {"generate": 8, "score": 8},
    "store frozen": {"generate": 2, "score": 2},
    "driver, MLflow": {"generate": 5, "score": 5, "train": 9},
    "MLflow server": {"generate": 2, "score": 2, "train": 3},
    "actor": {"generate": 3, "score": 3},
    "driver, Ray": {"generate": 1, "score": 2},
    "raylet": {"generate": 2, "score": 2},
    "head": {"generate": 1, "score": 1},
    "training worker": {"train": 2},
    "head, training": {"train": 1},
}


def faults(seed: int, only: Sequence[str], most: int | None) -> list[Fault]:
    """The plan; a short one takes every so-manieth of a full one's kind."""
    rng = random.Random(seed)
    found = []
    for what, verbs in MIX.items():
        for verb, times in verbs.items():
            for _ in range(times):
                found.append(Fault(len(found), what, verb, rng.random(), rng.random()))
    chosen = [fault for fault in found if not only or any(word in fault.what for word in only)]
    return chosen if most is None else chosen[:: max(len(chosen) // most, 1)][:most]


class Bench:
    """Runs faults below a directory."""

    def __init__(self, work: Path) -> None:
        self.home = work
        self.specs = jobs.prepare(work / "base")
        self._known: dict[str, Undisturbed] = {}
        self.places = Places(work)

    def undisturbed(self, verb: str) -> Undisturbed:
        """Once, with all changes of files noted."""
        if verb not in self._known:
            self._known[verb] = undisturbed(self.specs[verb], self.home / f"undisturbed-{verb}")
        return self._known[verb]

    def spec(self, verb: str) -> Spec:
        """A job with the watchdog's limit; it does not decide what the job makes."""
        return {**self.specs[verb], "compute": {"stall_seconds": STALL_SECONDS}}

    def judge(self, fault: Fault, home: Path, phase: str, ended: list[Ended], count: int = 1) -> Found:
        """Run the job once more if nobody has finished it, and look at what lies there."""
        undisturbed, reruns = self.undisturbed(fault.verb), 0
        if not any(driver.done for driver in ended):
            ended = [*ended, Driver(self.spec(fault.verb), home).wait(LIMIT_SECONDS)]
            reruns = 1
        return compare(undisturbed, fault, home, replace(summary(phase, ended), reruns=reruns, faults=count))


# -- faults of drivers -------------------------------------------------------------------------------------------


def driver_in_a_phase(bench: Bench, fault: Fault, home: Path) -> Found:
    """Phase after phase in turn, at one of the steps of that phase."""
    undisturbed = bench.undisturbed(fault.verb)
    by_phase: dict[str, list[int]] = {}
    for number, step in enumerate(undisturbed.steps, 1):
        by_phase.setdefault(jobs.phase(step), []).append(number)
    phases = [*sorted(by_phase), "after all, before the answer"]
    turn = fault.number + fault.number // len(
        phases
    )  # every phase also where every so-manieth fault is taken
    phase = phases[turn % len(phases)]
    if phase == phases[-1]:
        ended = Driver(bench.spec(fault.verb), home, act=_die_before_the_answer).wait(LIMIT_SECONDS)
    else:
        step = by_phase[phase][int(fault.chance * len(by_phase[phase]))]
        ended = Driver(bench.spec(fault.verb), home, jobs.die_at_step(home, step)).wait(LIMIT_SECONDS)
    return _if_killed(bench.judge(fault, home, phase, [ended]), ended)


def _die_before_the_answer(spec: Spec) -> None:
    jobs.killed_job.run(spec)
    os.kill(os.getpid(), signal.SIGKILL)


def _if_killed(found: Found, ended: Ended) -> Found:
    """A fault that came too late is none."""
    return found if ended.killed else replace(found, faults=0)


def driver(bench: Bench, fault: Fault, home: Path) -> Found:
    """At any moment of its life."""
    running = Driver(bench.spec(fault.verb), home)
    running.over(fault.chance * bench.undisturbed(fault.verb).seconds)
    running.kill()
    ended = running.wait(1)
    return _if_killed(bench.judge(fault, home, ANY, [ended]), ended)


def driver_five_times(bench: Bench, fault: Fault, home: Path) -> Found:
    """The same job, killed again and again, each time at a step not far from where it begins."""
    rng, ended = random.Random(fault.chance), []
    for _ in range(5):
        step = 1 + int(rng.random() * len(bench.undisturbed(fault.verb).steps) / 2)
        ended.append(Driver(bench.spec(fault.verb), home, jobs.die_at_step(home, step)).wait(LIMIT_SECONDS))
    count = sum(driver.killed for driver in ended)
    return bench.judge(fault, home, ANY, ended, count)


def two_drivers(bench: Bench, fault: Fault, home: Path) -> Found:
    """The second starts while the first works; whoever is refused says so in the project's own words."""
    return bench.judge(fault, home, ANY, _two(bench, fault, home, kill=False))


def one_of_two_drivers(bench: Bench, fault: Fault, home: Path) -> Found:
    """One of them is killed while both work."""
    return bench.judge(fault, home, ANY, _two(bench, fault, home, kill=True))


def _two(bench: Bench, fault: Fault, home: Path, kill: bool) -> list[Ended]:
    seconds, spec = bench.undisturbed(fault.verb).seconds, bench.spec(fault.verb)
    drivers = [Driver(spec, home)]
    drivers[0].over(fault.chance * seconds / 2)
    drivers.append(Driver(spec, home))
    if kill:
        chosen = drivers[int(2 * fault.choice)]
        chosen.over(fault.choice * seconds)
        chosen.kill()
    return [driver.wait(LIMIT_SECONDS) for driver in drivers]


def clock(bench: Bench, fault: Fault, home: Path) -> Found:
    """It leaps by up to ten days, forwards or back, at some step of the job."""
    step = 1 + int(fault.chance * len(bench.undisturbed(fault.verb).steps))
    seconds = (fault.choice - 0.5) * 20 * 86_400
    ended = Driver(bench.spec(fault.verb), home, jobs.jump_clock(home, step, seconds)).wait(LIMIT_SECONDS)
    return bench.judge(fault, home, ANY, [ended])


# -- the table ----------------------------------------------------------------------------------------------------


def act(bench: Bench, fault: Fault) -> Found:
    """Do the fault and look at what it left."""
    home = clean(bench.home / "fault")
    name = fault.what.replace(", ", "_").replace(" ", "_").lower()
    found: Found = (globals().get(name) or getattr(bench.places, name))(bench, fault, home)
    return found


def read(kept: Path) -> dict[Fault, Found]:
    """The faults that are written down."""
    entries = map(json.loads, kept.read_text().splitlines() if kept.exists() else ())
    return {Fault(**entry["fault"]): Found(**entry["found"]) for entry in entries}


def write(kept: Path, fault: Fault, found: Found) -> None:
    """A fault that is over, so that it is not done again; one that was followed by a violation is told at length."""
    with kept.open("a") as file:
        file.write(json.dumps({"fault": asdict(fault), "found": asdict(found)}) + "\n")
    state = "fine" if found.fine else f"VIOLATION {found}"
    print(
        f"{fault.number:4} {fault.verb:8} {fault.what:20} {found.phase:30} {state}",
        file=sys.stderr,
        flush=True,
    )


def table(done: list[tuple[Fault, Found]]) -> list[dict[str, Any]]:
    """By verb, what was killed, and phase."""
    rows: dict[tuple[str, str, str], Counter[str]] = {}
    for fault, found in done:
        row = rows.setdefault((fault.verb, fault.what, found.phase), Counter())
        row.update(
            {
                "faults": found.faults,
                "jobs": 1,
                "finished": int(found.finished and found.rows),
                "equal": int(found.equal),
                "reruns": found.reruns,
                "orphans": found.orphans,
                "hangs": found.hangs,
                "crashes": found.crashes,
                "lost": found.lost,
                "twice": found.twice,
            }
        )
        row["longest_seconds"] = max(row["longest_seconds"], found.longest)  # type: ignore[assignment]
    return [{"verb": v, "killed": w, "phase": p, **counts} for (v, w, p), counts in rows.items()]


def figures(done: list[tuple[Fault, Found]]) -> dict[str, Any]:
    """The table with its sums."""
    rows = table(done)
    names = ("faults", "jobs", "finished", "equal", "reruns", "orphans", "hangs", "crashes", "lost", "twice")
    bad = [f"{fault.number}: {found.note[:300]}" for fault, found in done if not found.fine]
    return {
        "sums": {name: sum(row[name] for row in rows) for name in names},
        "violations": bad,
        "table": rows,
    }


def main() -> None:
    """Plan, run, write the table; exit code 1 when anything was violated."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--work", type=Path, required=True, help="an empty directory, or that of a run to go on with"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", default=(), help="such as driver, store, MLflow server, actor")
    parser.add_argument("--faults", type=int, help="at most so many")
    parser.add_argument(
        "--table", action="store_true", help="do no fault; the figures of those that are done"
    )
    parser.add_argument("--out", type=Path, help="write the figures there, and not among the results")
    chosen = parser.parse_args()
    work = chosen.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    plan, kept = faults(chosen.seed, chosen.only, chosen.faults), work / "faults.jsonl"
    known = read(kept)
    if chosen.table:
        plan = [fault for fault in plan if fault in known]
    else:
        import_everything()
        bench = Bench(work)
        try:
            for fault in (fault for fault in plan if fault not in known):
                known[fault] = act(bench, fault)
                write(kept, fault, known[fault])
        finally:
            bench.places.close()
    found = figures([(fault, known[fault]) for fault in plan])
    if chosen.out:
        chosen.out.write_text(json.dumps(found, indent=1))
    else:
        save("chaos", found, seed=chosen.seed, stall_seconds=STALL_SECONDS)
    sys.exit(bool(found["violations"]))


def import_everything() -> None:
    """Before the first fork: a driver then costs its job alone."""
    import torch

    import genai_core.models.autoregressive
    import pipelines.generate
    import pipelines.score
    import pipelines.train
    import pipelines.training.local_training
    from pipelines.plan import code_fingerprint

    torch.set_num_threads(1)
    code_fingerprint()  # kept: an editor that saves a file meanwhile does not make other jobs
    del genai_core, pipelines


if __name__ == "__main__":
    main()
