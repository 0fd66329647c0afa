"""How the cost of tables grows: rows, columns, and the values of a category; in processes of their own

    python -m benchmarks.tabular_scale [--cases rows_100000 rows_1000000 rows_10000000 columns category]

rows      CPU microseconds a row of learning how to read a table of ten columns, and of encoding it
columns   500 columns of 5,000 rows: peak memory of a whole fit of one epoch and of 2,048 rows drawn
category  300,000 rows with a category of 100,000 values, of which 90,000 are kept by name: the same
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pyarrow as pa

import genai_core
from benchmarks.record import save
from benchmarks.tabular_ours import peak_memory
from genai_core.hyperparameters import TabularSettings
from genai_core.modalities.tabular import TabularCodec

CASES = ("rows_100000", "rows_1000000", "rows_10000000", "columns", "category")
SEED, EPOCHS = 0, 1


def ten_columns(rows: int) -> pa.Table:
    """Whole, continuous and rounded numbers, times, and categories of 3 to 1,000 values."""
    random = np.random.default_rng(SEED)
    value = random.normal(size=rows)
    columns: dict[str, Any] = {
        "small": pa.array(random.integers(0, 3, rows).astype(str)),
        "middle": pa.array(random.integers(0, 50, rows).astype(str)),
        "large": pa.array((random.exponential(150, rows).astype(int) % 1000).astype(str)),
        "when": pa.array(random.integers(0, 10**15, rows)).cast(pa.timestamp("us")),
    }
    columns |= {f"number_{i}": value * i + random.normal(size=rows) for i in range(3)}
    columns |= {f"rounded_{i}": np.round(value * 10**i, 1) for i in range(2)}
    return pa.table(columns | {"count": random.poisson(20, rows)})


def reading(rows: int) -> dict[str, float]:
    """CPU microseconds a row of `TabularCodec.fit` and of `encode`, with its batches of 65,536 rows."""
    table = ten_columns(rows)
    batches = table.to_batches(max_chunksize=TabularCodec.rows_together)
    started = time.process_time()
    codec = TabularCodec.fit(batches, table.schema)
    fitted = time.process_time()
    for batch in batches:
        codec.encode(pa.Table.from_batches([batch]))
    encoded = time.process_time()
    return {"learn_us": 1e6 * (fitted - started) / rows, "encode_us": 1e6 * (encoded - fitted) / rows}


def fitting(table: pa.Table, modality: TabularSettings) -> dict[str, float]:
    """CPU seconds of a fit of one epoch, of which how much is the network's training, and the peak memory."""
    before, started, stepped = peak_memory(), time.process_time(), [0.0]
    model = genai_core.fit(
        table,
        modality=modality.model_dump(),
        seed=SEED,
        max_epochs=EPOCHS,
        score_effort=0.01,
        on_step=lambda step, done: stepped.__setitem__(0, time.process_time()),
    )
    fitted = time.process_time()
    model.sample(2048, seed=SEED)
    return {
        "memory_before_mb": before,
        "peak_memory_mb": peak_memory(),
        "training_cpu_seconds": stepped[0] - started,
        "fit_cpu_seconds": fitted - started,
        "sampled_rows_per_cpu_second": 2048 / (time.process_time() - fitted),
    }


def case(name: str) -> dict[str, float]:
    """The figures of one case, in this process."""
    random = np.random.default_rng(SEED)
    if name.startswith("rows"):
        return reading(int(name.split("_")[1]))
    if name == "columns":
        value = random.normal(size=(5000, 1))
        matrix = value + random.normal(size=(5000, 500))
        return fitting(pa.table({f"x{i}": column for i, column in enumerate(matrix.T)}), TabularSettings())
    code = (random.permutation(300_000) % 100_000).astype(str)
    table = pa.table({"code": code, "x": random.normal(size=300_000)})
    return fitting(table, TabularSettings(max_categories=90_000, rare_below=0))


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=CASES)
    parser.add_argument("--one", choices=CASES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(case(options.one)))
        return
    found = {}
    for name in options.cases:
        command = [sys.executable, "-m", "benchmarks.tabular_scale", "--one", name]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        found[name] = {key: round(value, 2) for key, value in json.loads(output).items()}
        print(name, found[name], flush=True)
    save("tabular_scale", found, epochs=EPOCHS, threads=1)


if __name__ == "__main__":
    main()
