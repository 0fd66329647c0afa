"""Training on clusters: what numbers of workers do to the loss, what Ray Train costs a step, what bfloat16 gives.

python -m benchmarks.cluster_training worlds --data DIR      DIR/adult/train.csv; validation losses at equal epochs
python -m benchmarks.cluster_training precision --data DIR   and DIR/mnist/mnist.npz; a step's CPU-seconds, its loss
python -m benchmarks.cluster_training overhead --data DIR    one worker on Ray against none, per step

Losses are of held-out training rows; no test data is looked at. Replicas are real processes that average by gloo.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import torch

from benchmarks.record import RESULTS, save
from genai_core import catalog
from genai_core.hyperparameters import FitSettings, TabularSettings
from genai_core.loop import Fit
from genai_core.replicas import Distributed
from genai_core.spaces import Grid
from genai_core.train import new_model, split

ROWS, EPOCHS, BATCH = 8000, 6, 64
SMALL = {"context": 64, "hidden": 32}
SEEDS = (1, 2)
WORLDS = ((1, "none"), (2, "none"), (3, "none"), (2, "sqrt"), (3, "sqrt"), (2, "linear"), (3, "linear"))


def main() -> None:
    """Measure one part and record it beside the others."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=["worlds", "precision", "overhead"])
    parser.add_argument("--data", type=Path, required=True)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    table = csv.read_csv(chosen.data / "adult" / "train.csv").slice(0, ROWS)
    if chosen.part == "worlds":
        worlds(table)
    elif chosen.part == "precision":
        record("precision", precisions(table, chosen.data / "mnist" / "mnist.npz"))
    else:
        record("overhead", overhead(table))


def recorded() -> dict[str, Any]:
    """What earlier parts have found."""
    path = RESULTS / "cluster_training.json"
    return json.loads(path.read_text())["figures"] if path.exists() else {}


def record(part: str, figures: dict[str, Any]) -> None:
    """Keep a part beside the others."""
    settings = {"rows": ROWS, "epochs": EPOCHS, "batch": BATCH, "model": SMALL, "seeds": SEEDS}
    save("cluster_training", recorded() | {part: figures}, **settings)


# -- numbers of workers --------------------------------------------------------------------------------------


def worlds(table: pa.Table) -> None:
    """Validation losses, nats, by workers and rule: the curve of the first seed, the best of all.

    Recorded one by one: what is recorded already is not measured again.
    """
    found: dict[str, Any] = recorded().get("worlds", {})
    for world, rule in WORLDS:
        name = f"{world} worker(s), {rule}"
        if name in found:
            continue
        histories = [trained_by(table, world, rule, seed) for seed in SEEDS]
        losses = [[entry["validation_loss"] for entry in history] for history in histories]
        best = [round(min(each), 4) for each in losses]
        curve = [round(loss, 3) for loss in losses[0]]
        found[name] = {"best": best, "mean": round(statistics.mean(best), 4), "curve": curve}
        record("worlds", found)


def trained_by(table: pa.Table, world: int, rule: str, seed: int) -> list[dict[str, float]]:
    """Validations of one fit by so many processes; every one has each `world`-th row."""
    codec, train, held_out = encoded(table, seed)
    settings = FitSettings(
        seed=seed, max_epochs=EPOCHS, evaluations=12, patience=100, batch_size=BATCH, scale_with_workers=rule
    )
    with tempfile.TemporaryDirectory() as directory:
        task = (directory, world, train, held_out, codec, settings)
        torch.multiprocessing.spawn(replica, task, nprocs=world)
        history: list[dict[str, float]] = json.loads(Path(directory, "history.json").read_text())
    return history


def replica(
    rank: int,
    directory: str,
    world: int,
    train: np.ndarray,
    held_out: np.ndarray,
    codec: Any,
    settings: FitSettings,
) -> None:
    """One of the processes."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{directory}/m", rank=rank, world_size=world)
    model = new_model("autoregressive", codec, SMALL, settings.seed)
    progress = Fit(model, train[rank::world], held_out, settings, Distributed()).run()
    if rank == 0:
        Path(directory, "history.json").write_text(json.dumps(progress.history))
    torch.distributed.barrier()  # gloo aborts a process whose partner has gone
    torch.distributed.destroy_process_group()


def encoded(table: pa.Table, seed: int) -> tuple[Any, np.ndarray, np.ndarray]:
    """A table's codec, training and held-out records."""
    codec = catalog.codec_class("tabular").fit(table.to_batches(), table.schema, TabularSettings())
    tokens = codec.encode(table).tokens
    out = split(np.arange(len(tokens)), FitSettings(seed=seed))
    return codec, tokens[~out], tokens[out]


# -- precision -----------------------------------------------------------------------------------------------


def precisions(table: pa.Table, digits: Path) -> dict[str, Any]:
    """CPU-seconds of a step and the validation loss after equally many, by what is trained and precision."""
    codec, train, held_out = encoded(table, 1)
    with np.load(digits) as file:
        grey = file["x_train"][:2000].reshape(-1, 784).astype(np.int64)
    grid = Grid(1, 28, 28)
    tasks: dict[str, Any] = {
        "autoregressive, table": ("autoregressive", codec.space, {}, train, held_out, 256),
        "autoregressive, table, wide": (
            "autoregressive", codec.space, {"hidden": 256, "context": 512}, train, held_out, 256,
        ),
        "vae, table": ("vae", codec.space, {}, train, held_out, 256),
        "vae, pictures": ("vae", grid, {}, grey[200:], grey[:200], 64),
        "dcgan, pictures": ("dcgan", grid, {"channels": 32}, grey[200:], grey[:200], 64),
    }  # fmt: skip
    found: dict[str, Any] = {}
    for name, task in tasks.items():
        found[name] = {precision: stepped(*task, precision) for precision in ("float32", "bfloat16")}
        print(name, found[name], flush=True)
    return found


def stepped(
    kind: str,
    space: Any,
    settings: dict[str, Any],
    train: np.ndarray,
    held_out: np.ndarray,
    batch: int,
    precision: str,
    steps: int = 25,
) -> dict[str, float]:
    """The same steps from the same weights."""
    torch.manual_seed(1)
    model = catalog.build_model(kind, space, settings)
    fit = FitSettings(seed=1, max_epochs=50, evaluations=1, batch_size=batch, precision=precision)  # type: ignore[arg-type]
    one = Fit(model, train, held_out, fit)
    one._prepare()
    one._resume()
    one.started = time.monotonic()
    seconds = []
    for step in range(steps):
        start = time.process_time()
        one._step(step)
        seconds.append(time.process_time() - start)
    loss = one.model.eval().validation_loss(one.validation)
    return {"step_cpu_ms": round(1000 * statistics.median(seconds), 2), "validation_loss": round(loss, 3)}


# -- Ray -----------------------------------------------------------------------------------------------------


def overhead(table: pa.Table) -> dict[str, Any]:
    """The same job in this process and on one worker of Ray Train: seconds from validation to validation, and all."""
    found: dict[str, Any] = {}
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)
        pq.write_table(table, "data.parquet")
        for runner in ("inline", "ray"):
            found[runner] = fitted_by(runner)
            print(runner, found[runner], flush=True)
        os.chdir(here)
    return found


def fitted_by(runner: str) -> dict[str, float]:
    """Milliseconds a step between validations, and seconds of the whole fit."""
    from pipelines.context import Context
    from pipelines.train import TrainJob, open_source
    from pipelines.training.fitting import Fitting
    from pipelines.training.local_training import fit_here
    from pipelines.training.ray_training import fit_on_ray
    from pipelines.training.reading import fit_codec

    job = TrainJob.model_validate(
        {
            "job": "train",
            "name": "overhead",
            "source": {"kind": "parquet", "path": "data.parquet"},
            "model": {"kind": "autoregressive", **SMALL},
            "fit": {"max_epochs": 2 * EPOCHS, "evaluations": 48, "patience": 1000, "batch_size": BATCH},
            "compute": {"runner": runner},
            "track": {"enabled": False},
            "sink": {"path": "model"},
            "checkpoints": f"checkpoints-{runner}",
        }
    )
    source, context = open_source(job.source), Context()
    told: list[tuple[int, float]] = []
    with tempfile.TemporaryDirectory() as scratch:
        codec, _ = fit_codec(job, source, context)
        task = Fitting(
            job, "overhead", source, codec, {"data": {}}, Path(scratch),
            lambda metrics, step: told.append((step, metrics["seconds"])), context.progress,
        )  # fmt: skip
        start = time.monotonic()
        (fit_here if runner == "inline" else fit_on_ray)(task)
        whole = time.monotonic() - start
    rates = [1000 * (b[1] - a[1]) / (b[0] - a[0]) for a, b in pairwise(told)]
    return {
        "step_ms_least": round(min(rates), 2),
        "step_ms_median": round(statistics.median(rates), 2),
        "steps": told[-1][0],
        "fit_seconds": round(whole, 1),
        "before_and_after_the_steps_seconds": round(whole - told[-1][1], 1),
    }


if __name__ == "__main__":
    main()
