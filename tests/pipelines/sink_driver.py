"""Two drivers that work on the same sinks at the same moments; not a test by itself.

python sink_driver.py FOLDER PLAN.json
PLAN.json  {"first": [{"uri", "shards", "seed", ...}, ...], "second": ...}: the rounds of each driver, which begin when
           both are ready. The drivers' bytes differ, as those of two kinds of CPU may.
           "die"      where the second driver is killed: see killed_job, or "half" for the middle of writing a file
           "outlive"  the first waits for that before the third shard
Writes one JSON line a round into FOLDER/first.said and FOLDER/second.said: {"manifest"} or {"refused"}.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from genai_core.errors import OutputExists
from pipelines.outputs.sink import Sink
from pipelines.plan import Plan, Shard, job_id, plan_generation
from pipelines.stores import local_files
from tests.pipelines.killed_job import die_at

ROWS = 10  # of a shard


def identity(seed: int) -> dict[str, Any]:
    parts = {"seed": seed}
    return {"job_id": job_id("generate", parts), "verb": "generate", "parts": parts}


def plan_of(shards: int, seed: int) -> Plan:
    return plan_generation(ROWS * shards, seed, ROWS)


def rows_of(shard: Shard, salt: str) -> pa.Table:
    first = shard.payload["first"]
    return pa.table({"id": list(range(first, first + shard.rows)), "salt": [salt] * shard.rows})


def work(
    uri: str, shards: int, seed: int, salt: str, before: Callable[[Shard], None] = lambda shard: None
) -> dict[str, str]:
    """The whole job, as far as it is not done."""
    sink, plan, job = Sink(uri), plan_of(shards, seed), identity(seed)
    provenance = {"job_id": job["job_id"], "synthetic": True}
    try:
        done = sink.prepare(job)
    except OutputExists as error:
        return {"refused": str(error)}
    for shard in plan.shards:
        before(shard)
        if shard.id not in done and sink.committed(shard) is None:
            sink.write_shard(shard, rows_of(shard, salt), provenance)
    return {"manifest": sink.finish(plan, provenance)["hash"]}


def die_half_way(part: str) -> None:
    """Killed when the file is written, and not yet in its place."""
    publish = local_files._publish

    def killed(temporary: Path, file: Any, path: Path, *how: bool) -> bool:
        if part in path.name:
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        return publish(temporary, file, path, *how)

    local_files._publish = killed


def meet(folder: Path, name: str, other: str, number: int) -> None:
    (folder / f"{name}-{number}").touch()
    deadline = time.monotonic() + 60
    while not (folder / f"{other}-{number}").exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"the other driver did not come to round {number}")
        time.sleep(0.0002)


def drive(folder: Path, name: str, other: str, rounds: list[dict[str, Any]], child: int) -> None:
    def outlive(shard: Shard) -> None:
        if shard.id == 2:
            os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)

    for number, step in enumerate(rounds):
        meet(folder, name, other, number)
        if step.get("die") == "half":
            die_half_way("part-00003")
        elif step.get("die"):
            die_at(step["die"], 1)
        before = {"before": outlive} if step.get("outlive") else {}
        result = work(step["uri"], step["shards"], step["seed"], name, **before)
        with (folder / f"{name}.said").open("a") as file:
            file.write(json.dumps(result) + "\n")


def main() -> None:
    """Exits with the signal that ended the second driver."""
    folder, rounds = Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text())
    child = os.fork()  # one start of Python for two drivers
    if child == 0:
        drive(folder, "second", "first", rounds["second"], child)
        return
    try:
        drive(folder, "first", "second", rounds["first"], child)
    except BaseException:
        os.kill(child, signal.SIGKILL)
        raise
    sys.exit(abs(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])))


if __name__ == "__main__":
    main()
