"""One fit of ours for `benchmarks.tabular`, in a process of its own: its CPU seconds and its peak memory are the fit's

    python -m benchmarks.tabular_ours FOLDER '{"kind": ..., "seed": ..., "model": {}, "fit": {}, "rows": ...}'

FOLDER holds train.parquet; synthetic.parquet and facts.json are written there.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

import genai_core

LEAST_SECONDS = 3.0  # of CPU that a speed is measured over


def rows_per_second(table: pa.Table, work: Callable[[pa.Table | int], Any], rows: int) -> float:
    """Rows a CPU second of `work`, repeated for some seconds after a first go."""
    work(rows)
    done, started = 0, time.process_time()
    while time.process_time() - started < LEAST_SECONDS:
        work(rows)
        done += rows
    return done / (time.process_time() - started)


def peak_memory() -> float:
    """MB that this process held at the most: `getrusage` would count what its parent held when it forked."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def main() -> None:
    """See the module."""
    folder, options = Path(sys.argv[1]), json.loads(sys.argv[2])
    train = pq.read_table(folder / "train.parquet")
    before = peak_memory()
    started, stepped = time.process_time(), [0.0]

    def on_step(step: int, done: float) -> None:
        stepped[0] = time.process_time()

    model = genai_core.fit(
        train,
        options["kind"],
        seed=options["seed"],
        model=options["model"],
        on_step=on_step,
        **options["fit"],
    )
    facts: dict[str, Any] = {
        "fit_cpu_seconds": time.process_time() - started,
        "training_cpu_seconds": stepped[0]
        - started,  # codec and network, without what anomaly scores learn beside
        "validation_loss": model.provenance["training"].get("validation_loss"),  # none with privacy
        "steps": model.provenance["training"]["steps"],
        "parameters": sum(p.numel() for p in model.model.parameters()),
        "memory_before_mb": before,
    }
    made = model.sample(options["rows"], seed=options["seed"])
    facts["sampled_rows_per_cpu_second"] = rows_per_second(
        train, lambda rows: model.sample(rows, seed=1), 65_536
    )
    if "log_prob" in model.capabilities:
        part = train.slice(0, min(20_480, train.num_rows))
        facts["scored_rows_per_cpu_second"] = rows_per_second(
            train, lambda rows: model.log_prob(part), part.num_rows
        )
    facts["peak_memory_mb"] = peak_memory()
    pq.write_table(made, folder / "synthetic.parquet")
    (folder / "facts.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main()
