"""Synthetic tables: likeness, utility, privacy, speed and memory, ours and peers in one run

    python -m benchmarks.tabular --data DIR [--peers PYTHON] [--tables adult flights] [--models autoregressive]
        [--seeds 0 1 2] [--kept FILE] [--name tabular]

DIR holds the folders adult, flights, adbench and nab; see `benchmarks.tabular_tables`. PYTHON is an interpreter with
ctgan and mostlyai-engine: given, both and TVAE are rerun beside ours, with the first seed. Every (table, model, seed)
runs in a process of its own on one thread; with --kept, what is done is not done again. The judge: `tabular_judge`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from benchmarks import tabular_peers
from benchmarks.record import save
from benchmarks.tabular_judge import judge
from benchmarks.tabular_tables import TABLES, Data

MODELS = ("autoregressive", "vae", "gan")
PEERS = tuple(tabular_peers.PACKAGES)
DIGITS = 4


def run(data: Data, model: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Fit, sample and judge once."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pq.write_table(data.train, folder / "train.parquet")
        given: dict[str, Any] = {"kind": model, "seed": seed, "rows": data.train.num_rows}
        if model in PEERS:
            given["seconds"] = options.peer_seconds
            command = [options.peers, tabular_peers.__file__]
        else:
            given |= {"model": options.model, "fit": options.fit}
            command = [sys.executable, "-m", "benchmarks.tabular_ours"]
        threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        subprocess.run([*command, name, json.dumps(given)], check=True, env=os.environ | threads)
        facts = json.loads((folder / "facts.json").read_text())
        made = pq.read_table(folder / "synthetic.parquet").select(data.train.column_names)
        started = time.process_time()
        found = facts | judge(data.train, data.holdout, made, data.target)
        if options.keep_tables:
            pq.write_table(made, options.keep_tables)
    return found | {"judge_cpu_seconds": time.process_time() - started}


class Kept:
    """Rows that are done, one JSON line each: an interrupted run goes on where it stopped."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        lines = path.read_text().splitlines() if path and path.exists() else []
        self.rows = {tuple(key): row for key, row in map(json.loads, lines)}

    def add(self, key: tuple[str, str, int], row: dict[str, Any]) -> None:
        """Keep a row."""
        self.rows[key] = row
        if self.path:
            with self.path.open("a") as file:
                file.write(json.dumps([key, row]) + "\n")


def rounded(value: Any) -> Any:
    """Floats of a nested dictionary with fewer digits: four below a thousand, one from there on."""
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    if isinstance(value, float):
        return round(value, DIGITS if abs(value) < 1000 else 1)
    return value


def summary(rows: dict[tuple[str, str, int], dict[str, Any]]) -> dict[str, Any]:
    """table -> model -> the mean over seeds, the range of the classifier test, and every seed's row."""
    found: dict[str, Any] = {}
    for table, model, _ in sorted(rows):
        seeds = {key[2]: row for key, row in sorted(rows.items()) if key[:2] == (table, model)}
        numbers = [
            name for name, value in next(iter(seeds.values())).items() if isinstance(value, int | float)
        ]
        mean = {name: float(np.mean([row[name] for row in seeds.values()])) for name in numbers}
        found.setdefault(table, {})[model] = {"mean": mean, "seeds": seeds}
    return rounded(found)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--peers")
    parser.add_argument("--tables", nargs="+", default=["adult", "flights"], choices=sorted(TABLES))
    parser.add_argument("--models", nargs="*", default=list(MODELS), choices=MODELS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--model", type=json.loads, default={}, help="settings of our model, JSON")
    parser.add_argument("--fit", type=json.loads, default={}, help="settings of our training loop, JSON")
    parser.add_argument("--peer-models", nargs="+", default=list(PEERS), choices=PEERS)
    parser.add_argument("--peer-seconds", type=float, default=600, help="CPU limit of a peer's training")
    parser.add_argument("--kept", type=Path)
    parser.add_argument(
        "--keep-tables", type=Path, help="write the synthetic table there (the last one stays)"
    )
    parser.add_argument("--name", default="tabular", help="of the file under benchmarks/results")
    return parser.parse_args()


def main() -> None:
    """See the module."""
    options = arguments()
    kept = Kept(options.kept)
    todo = [(model, seed) for model in options.models for seed in options.seeds]
    todo += [(peer, options.seeds[0]) for peer in options.peer_models if options.peers]
    for table in options.tables:
        data = TABLES[table](options.data)
        for model, seed in todo:
            if (table, model, seed) not in kept.rows:
                row = run(data, model, seed, options)
                kept.add((table, model, seed), row)
                print(table, model, seed, json.dumps(rounded(row)), flush=True)
    settings = {"model": options.model, "fit": options.fit, "peer_seconds": options.peer_seconds}
    save(options.name, summary(kept.rows), "tabular", threads=1, **settings)


if __name__ == "__main__":
    main()
