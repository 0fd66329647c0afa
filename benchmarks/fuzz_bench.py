"""What a fuzzed input is put into: a folder with a lake, a model and an output; and what a target is"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

from benchmarks import fuzz_inputs as inputs
from genai_core import artifact
from genai_core.errors import GenAIError
from pipelines.outputs.sink import Sink
from pipelines.plan import plan_generation


@dataclass
class Bench:
    """A folder with what inputs are put into: a lake, a model, an output."""

    folder: Path
    model: Path
    kept: dict[str, Any] = field(default_factory=dict)

    def file(self, name: str, data: bytes) -> Path:
        """A file of this name in an emptied folder `input`."""
        path = self.folder / "input" / name
        shutil.rmtree(self.folder / "input", ignore_errors=True)
        path.parent.mkdir(parents=True)
        path.write_bytes(data)
        return path

    def copied(self, directory: Path) -> Path:
        """A copy of a directory, in place of the last one."""
        copy = self.folder / "input"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(directory, copy)
        return copy


Draw = Callable[[Random], Any] | st.SearchStrategy[Any]


@dataclass(frozen=True)
class Target:
    """`inputs` of the long form; `draw` a function of a random source, or a hypothesis strategy."""

    name: str
    inputs: int
    draw: Draw
    run: Callable[[Bench, Any], object]


def all_of(steps: list[Callable[[], object]]) -> None:
    """Every step is taken, though those before it were refused."""
    refused: GenAIError | None = None
    for step in steps:
        try:
            step()
        except GenAIError as error:
            refused = error
    if refused is not None:
        raise refused


def prepared(folder: Path, model: Path) -> Bench:
    """A bench with a lake, and an output of two shards, of which one is quarantined."""
    bench = Bench(folder, model)
    (folder / "lake").mkdir(parents=True)
    pq.write_table(inputs.table(60, Random(0)), folder / "lake" / "a.parquet")
    plan = plan_generation(20, 1, rows_per_shard=10)
    header = artifact.read_header(model)
    job = {
        "job_id": "generate-0123456789abcdef0123",
        "verb": "generate",
        "parts": {"spec": {"rows": 20}, "plan": plan.hash},
    }
    known = {"format": 1, "job_id": job["job_id"], "verb": "generate", "synthetic": True, "spec": {"rows": 20},
             "model": {"uri": str(model), "digest": header.digest, "kind": header.kind}, "shard": 0, "seed": 1,
             "training_data": {"path": "lake", "filter": None, "digest": "sha256:00", "rows": 60},
             "training_job": "train-0", "versions": {}, "source": None}  # fmt: skip
    sink = Sink(str(folder / "output"))
    sink.prepare(job)
    sink.write_shard(plan.shards[0], pa.table({"x": list(range(10))}), known)
    sink.quarantine(plan.shards[1], ValueError("\x1b[31mbad"), 1)
    sink.finish(plan, known)
    bench.kept |= {"job": job, "plan": plan, "provenance": known}
    os.chdir(folder)
    return bench
