"""What planning, committing, resuming and listing cost with many shards, without a model

python -m benchmarks.scale --work DIR [--shards 100000 1000000]

The planner and the committer are the real ones. Outputs of so many shards are laid down as the committer would have
left them (tables of one row); what is timed is done by the committer itself. Every figure is that of a process of
its own: seconds on the clock, CPU-seconds, and its peak of memory.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.record import save
from pipelines import batch_job, generate
from pipelines.outputs import footer as footers
from pipelines.outputs.sink import DATA, RECORDS, Sink
from pipelines.plan import Plan, Shard, canonical, plan_generation
from pipelines.stores import storage

SEED = 7
ROW = pa.table({"x": [1.0]})
COMMITS = 2000  # timed at each number of writers
WRITERS = (1, 2, 4)
REPEATS = 3
LINKS = 50_000  # to one file: all have the same bytes, and ext4 allows 65,000
Facts = dict[str, Any]


def main() -> None:
    """All measurements, or one of them in a process of its own."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="where outputs are laid down")
    parser.add_argument("--shards", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.step:
        print(json.dumps(STEPS[chosen.step](chosen.work, chosen.shards[0])))
        return
    chosen.work.mkdir(parents=True, exist_ok=True)
    save("scale", measure(chosen.work, chosen.shards), seed=SEED, commits=COMMITS, repeats=REPEATS)


def measure(work: Path, sizes: Sequence[int]) -> Facts:
    """All figures; each is kept in `work` when it is there, and not measured again."""
    kept = work / "figures.json"
    figures: Facts = json.loads(kept.read_text()) if kept.exists() else {}
    if "commits" not in figures:
        figures["commits"] = commits(work)
    for shards in sizes:
        found = figures.setdefault(f"{shards:,} shards", {})
        for step in (step for step in STEPS if step not in found):
            found[step] = in_a_process(work, shards, step)
            kept.write_text(json.dumps(figures))
    shutil.rmtree(work / "out", ignore_errors=True)
    return figures


def in_a_process(work: Path, shards: int, step: str) -> Facts:
    """One step, and what it cost."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.scale",
        "--work",
        work,
        "--shards",
        str(shards),
        "--step",
        step,
    ]
    ended = subprocess.run(
        command, capture_output=True, text=True, cwd=Path(__file__).parents[1], check=False
    )
    if ended.returncode:
        raise RuntimeError(ended.stderr[-2000:])
    found: Facts = json.loads(ended.stdout.splitlines()[-1])
    print(shards, step, found, file=sys.stderr, flush=True)
    return found


def cost(work: Callable[[], Facts]) -> Facts:
    """What it says of itself, with seconds, CPU-seconds and the process's peak of memory."""
    clock, cpu = time.monotonic(), time.process_time()
    facts = work()
    seconds, cpu_seconds = time.monotonic() - clock, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return {
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu_seconds, 2),
        "peak_gb": round(peak, 3),
        **facts,
    }


# -- commits -----------------------------------------------------------------------------------------------------


def commits(work: Path) -> Facts:
    """A second, by so many processes at once as a job may have workers; the median of some trials of each."""
    found: dict[int, list[float]] = {writers: [] for writers in WRITERS}
    cpu: list[float] = []
    for _ in range(REPEATS):
        for writers in WRITERS:
            rate, each = _commit_rate(work / "commits", writers)
            found[writers].append(rate)
            cpu.append(each)
    return {
        "a_second": {str(n): sorted(round(rate) for rate in rates) for n, rates in found.items()},
        "cpu_milliseconds_each": round(1000 * statistics.median(cpu), 3),
    }


def _commit_rate(folder: Path, writers: int) -> tuple[float, float]:
    shutil.rmtree(folder, ignore_errors=True)
    Sink(str(folder)).prepare({"job_id": "scale", "verb": "generate", "parts": {}})
    shards = plan_generation(COMMITS, SEED, 1).shards
    with multiprocessing.get_context("spawn").Pool(writers) as pool:
        pool.map(_commit, [(str(folder), shards[:1])] * writers)  # imports are over
        started = time.monotonic()
        seconds = pool.map(_commit, [(str(folder), shards[1 + n :: writers]) for n in range(writers)], 1)
        rate = COMMITS / (time.monotonic() - started)
    shutil.rmtree(folder)
    return rate, sum(seconds) / COMMITS


def _commit(share: tuple[str, Sequence[Shard]]) -> float:
    """CPU-seconds that committing a share took."""
    sink, cpu = Sink(share[0]), time.process_time()
    for shard in share[1]:
        sink.write_shard(shard, ROW, {"job_id": "scale"})
    return time.process_time() - cpu


# -- steps of one size, in the order in which they run ---------------------------------------------------------------


def planning(work: Path, shards: int) -> Facts:
    """The plan of a job and its hash."""
    return cost(lambda: {"hash": plan_generation(shards, SEED, 1).hash[:15]})


def laying_down(work: Path, shards: int) -> Facts:
    """The first half of the output, as an interrupted job leaves it."""
    return cost(lambda: {"files": _lay_down(work, shards, 0, shards // 2)})


def resuming(work: Path, shards: int) -> Facts:
    """An interrupted job finds out what is done: half of it."""
    job = _identity(work, shards)[1]
    return cost(lambda: {"done": len(Sink(str(work / "out")).prepare(job))})


def laying_down_the_rest(work: Path, shards: int) -> Facts:
    """The second half."""
    return cost(lambda: {"files": _lay_down(work, shards, shards // 2, shards)})


def listing(work: Path, shards: int) -> Facts:
    """All files of the output, with their sizes."""
    sink = Sink(str(work / "out"))
    return cost(lambda: {"files": len(storage.list_files(sink.filesystem, sink.root))})


def finishing(work: Path, shards: int) -> Facts:
    """The manifest: every record is read, every file is looked at."""
    plan, job = _identity(work, shards)
    provenance = {"job_id": job["job_id"]}

    def finish() -> Facts:
        Sink(str(work / "out")).finish(plan, provenance)
        size = (work / "out" / "_MANIFEST.json").stat().st_size
        return {"manifest_bytes": size, "manifest_bytes_per_shard": round(size / shards, 1)}

    return cost(finish)


def running_again(work: Path, shards: int) -> Facts:
    """`genai run` of the finished job, start of the command included: it must say that nothing is to be done."""
    (work / "job.yaml").write_text(json.dumps(_spec(work, shards)))
    genai, before = Path(sys.executable).with_name("genai"), resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    ended = subprocess.run(
        [genai, "run", "--quiet", "job.yaml"], cwd=work, capture_output=True, text=True, check=False
    )
    seconds, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if '"reused": true' not in ended.stdout:
        raise RuntimeError(ended.stdout[-500:] + ended.stderr[-1500:])
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return {
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu, 2),
        "peak_gb": round(after.ru_maxrss / 1e6, 3),
    }


STEPS: dict[str, Callable[[Path, int], Facts]] = {
    "planning": planning,
    "laying_down": laying_down,
    "resuming": resuming,
    "laying_down_the_rest": laying_down_the_rest,
    "listing": listing,
    "finishing": finishing,
    "running_again": running_again,
}


def _spec(work: Path, shards: int) -> Facts:
    return {
        "job": "generate",
        "model": str(_model(work)),
        "rows": shards,
        "rows_per_shard": 1,
        "seed": SEED,
        "sink": {"path": str(work / "out")},
        "track": {"enabled": False},
    }


def _identity(work: Path, shards: int) -> tuple[Plan, Facts]:
    """What `genai run` will ask for: else it would not know the output for its own."""
    from genai_core.artifact import read_header

    job = generate.GenerateJob.model_validate(_spec(work, shards))
    plan = plan_generation(job.rows, job.seed, job.rows_per_shard)
    return plan, batch_job.identity(job, "generate", read_header(_model(work)).digest, plan)


def _model(work: Path) -> Path:
    """A small one, made once."""
    path = work / "model"
    if not path.exists():
        from genai_core import fit

        table = pa.table({"x": [float(i % 50) for i in range(500)]})
        fit(table, max_epochs=1, seed=1, model={"context": 16, "hidden": 8, "embedding": 4}).save(path)
    return path


def _lay_down(work: Path, shards: int, first: int, last: int) -> int:
    """Data files of one row and their records, with the names and contents that `Sink.write_shard` gives them."""
    plan, job = _identity(work, shards)
    out, sink = work / "out", Sink(str(work / "out"))
    if not first:
        shutil.rmtree(out, ignore_errors=True)
        sink.prepare(job)
    data = footers.encode(ROW, {"job_id": job["job_id"]})
    digest = hashlib.sha256(data).hexdigest()
    for folder in (DATA, RECORDS):
        (out / folder).mkdir(exist_ok=True)
    for number, shard in enumerate(plan.shards[first:last]):
        file = f"{DATA}/part-{shard.name}-{digest[:12]}.parquet"
        record = {"id": shard.id, "file": file, "rows": 1, "bytes": len(data), "sha256": digest}
        if number % LINKS == 0:
            _put(out / file, data)
            same = out / file
        else:
            os.link(same, out / file)
        _put(out / RECORDS / f"{shard.name}.json", canonical(record))
    return 2 * (last - first)


def _put(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.write(descriptor, data)
    os.close(descriptor)


if __name__ == "__main__":
    main()
