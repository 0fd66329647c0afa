"""What short commands cost: `genai --help` (target 0.4 CPU-s) and `genai check` (1.5 CPU-s).

python -m benchmarks.commands
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.record import cpu_seconds, save, spread

RUNS = 7
GENAI = Path(sys.executable).with_name("genai")
SPECS = {
    "train": "job: train\nname: t\nsource: {kind: parquet, path: lake}\nfit: {max_epochs: 1}\n"
    "track: {experiment: e, register: flights}\n",
    "generate": "job: generate\nmodel: models:/flights@latest\nrows: 1000\nsink: {path: out}\n",
    "score": "job: score\nmodel: models:/flights@latest\nsource: {kind: parquet, path: lake}\nsink: {path: scores}\n",
}


def main() -> None:
    """Measure each command RUNS times after one run that warms the file cache."""
    with tempfile.TemporaryDirectory() as directory:
        prepare(Path(directory))
        commands = {"--help": [GENAI, "--help"]}
        commands |= {f"check {verb}": [GENAI, "check", f"{verb}.yaml"] for verb in SPECS}
        figures = {}
        for name, command in commands.items():
            cpu_seconds(command, cwd=directory)
            figures[name] = spread([cpu_seconds(command, cwd=directory) for _ in range(RUNS)])
    save("commands", {"cpu_seconds": figures}, runs=RUNS)


def prepare(directory: Path) -> None:
    """A lake of ten files, the job files, and a registered model."""
    (directory / "lake").mkdir()
    random = np.random.default_rng(0)
    for i in range(10):
        table = pa.table({"x": random.normal(size=1000), "c": random.choice(["a", "b"], 1000)})
        pq.write_table(table, directory / "lake" / f"{i}.parquet")
    for verb, text in SPECS.items():
        (directory / f"{verb}.yaml").write_text(text)
    environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
    subprocess.run(
        [GENAI, "run", "train.yaml"], cwd=directory, check=True, env=environment, stdout=subprocess.DEVNULL
    )


if __name__ == "__main__":
    main()
