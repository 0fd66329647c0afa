"""From `genai submit` to the first line of the job's log, beside a bare `echo` through the same Jobs API of Ray.

python -m benchmarks.submit --repeats 5     target: at most 10 s more than Ray's own

Starts a cluster on loopback (a head with its dashboard, two workers, a token) and ends it. Wall seconds from the start
of the command: to the line with which the entry point begins, to the first line that the job itself says, to the end.
Cold is the first submission, with which the code is sent; warm are those after it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.record import save, spread
from tests.ray_cluster import RayCluster

WORKERS = 2
ECHO = """
import asyncio, sys
from ray.job_submission import JobSubmissionClient
client = JobSubmissionClient(sys.argv[1])
job = client.submit_job(entrypoint="echo said", runtime_env={"working_dir": sys.argv[2]})
async def follow():
    async for text in client.tail_job_logs(job):
        print(text, end="", file=sys.stderr, flush=True)
asyncio.run(follow())
"""
JOB = """
job: generate
name: night
model: {folder}/model
rows: 100
sink: {{path: "{folder}/out/{{slot}}"}}
track: {{enabled: false}}
compute: {{runner: inline}}
"""


def main() -> None:
    """Echo and job by turns, so that a busy moment of the machine meets both."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        cluster = RayCluster(WORKERS)
        try:
            environment = cluster.environment(PYTHONPATH=str(Path.cwd()), RAY_AUTH_MODE="token")
            echo, job, load = [], [], []
            for i in range(repeats + 1):
                load.append(os.getloadavg()[0])
                echo.append(seconds_to(echo_command(cluster.address, folder), ["said"], environment, folder))
                job.append(seconds_to(job_command(i), ["starting on", "night: "], environment, folder))
        finally:
            cluster.end()
    # wall seconds of a busy machine are long: how busy it was stands beside them
    save("submit", figures(echo, job) | {"load_average": spread(load)}, repeats=repeats, workers=WORKERS)


def prepare(folder: Path) -> None:
    """A model, a job file, and an empty folder for the echo to travel with."""
    from genai_core import fit

    random = np.random.default_rng(0)
    table = pa.table({"x": random.normal(size=500), "c": random.choice(["a", "b"], 500)})
    pq.write_table(table, folder / "rows.parquet")
    fit(table, max_epochs=1, seed=1, model={"context": 16, "hidden": 8, "embedding": 4}).save(
        folder / "model"
    )
    (folder / "night.yaml").write_text(JOB.format(folder=folder))
    (folder / "empty").mkdir()


def echo_command(address: str, folder: Path) -> list[str]:
    """Ray's own, without anything of ours."""
    return [sys.executable, "-c", ECHO, address, str(folder / "empty")]


def job_command(number: int) -> list[str]:
    """Every time another night, which is another job."""
    return [
        sys.executable,
        "-m",
        "jobs.cli",
        "submit",
        "night.yaml",
        "--slot",
        f"2026-11-{number + 1:02d}",
        "--follow",
    ]


def seconds_to(
    command: Sequence[str], marks: Sequence[str], environment: Mapping[str, str], folder: Path
) -> list[float]:
    """Until a line of standard error holds each mark, in turn, and until the command ends well."""
    started, found, said = time.monotonic(), [], []
    with subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env=dict(environment),
        cwd=folder,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            said.append(line)
            if len(found) < len(marks) and marks[len(found)] in line:
                found.append(time.monotonic() - started)
    if process.returncode or len(found) < len(marks):
        raise RuntimeError("".join(said))
    return [*found, time.monotonic() - started]


def figures(echo: list[list[float]], job: list[list[float]]) -> dict[str, object]:
    """Cold is the first of each; `beyond` compares the medians of the warm ones."""
    warm_echo, warm_job = zip(*echo[1:], strict=True), zip(*job[1:], strict=True)
    (said, over), (begun, first, done) = list(warm_echo), list(warm_job)
    shown = {
        "echo": {"first_line": spread(said), "end": spread(over)},
        "job": {"entry_point": spread(begun), "first_line": spread(first), "end": spread(done)},
        "cold": {
            "echo": round(echo[0][0], 3),
            "entry_point": round(job[0][0], 3),
            "first_line": round(job[0][1], 3),
        },
    }
    middle = {
        name: spread(values)["median"]
        for name, values in (("said", said), ("begun", begun), ("first", first))
    }
    return {
        "wall_seconds": shown,
        "beyond_ray": {
            "entry_point": round(middle["begun"] - middle["said"], 3),
            "first_line": round(middle["first"] - middle["said"], 3),
            "cold_first_line": round(job[0][1] - echo[0][0], 3),
        },
    }


if __name__ == "__main__":
    main()
