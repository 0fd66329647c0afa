"""Autoregressive models of pictures: nats of binarised MNIST, bits per dimension of Fashion-MNIST, speed of sampling.

MNIST is binarised once, by one stochastic draw of a fixed seed (Salakhutdinov & Murray 2008). The number of epochs
follows from CPU-seconds measured before the fit, so that a busy machine trains longer, not less; --wall is a limit
of wall-clock minutes beside it. The curve is of the validation pictures
that the loop looks at (2,551 of them, evenly spaced). The test pictures are looked at once, after the fit.
"""

from __future__ import annotations

import argparse
import gzip
import time
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import record
from genai_core.hyperparameters import Autoregressive as Settings
from genai_core.hyperparameters import FitSettings
from genai_core.loop import Fit, Replicas
from genai_core.models.autoregressive import Autoregressive
from genai_core.spaces import Grid
from pipelines.training.allocator import keep_freed_memory

SEED, BATCH = 0, 32
DRAWN, NAIVE_PIXELS = 256, 8  # pictures drawn at a time; pixels of them drawn the naive way


def binarised_mnist(data: Path) -> tuple[Grid, dict[str, np.ndarray]]:
    """One channel of two levels, no labels: 50,000 / 10,000 / 10,000."""
    random, found = np.random.default_rng(0), {}
    with np.load(data / "mnist" / "mnist.npz") as arrays:
        for part in ("train", "val", "test"):
            pictures = arrays[f"x_{part}"].reshape(-1, 784)
            found[part] = (random.random(pictures.shape) < pictures / 255).astype(np.uint8)
    return Grid(1, 28, 28, levels=2), found


def fashion_mnist(data: Path) -> tuple[Grid, dict[str, np.ndarray]]:
    """Grey, 256 levels, with the labels of ten classes: 55,000 / 5,000 / 10,000."""

    def read(part: str) -> np.ndarray:
        folder = data / "fashion_mnist"
        with gzip.open(folder / f"{part}-images-idx3-ubyte.gz") as file:
            pictures = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 784)
        with gzip.open(folder / f"{part}-labels-idx1-ubyte.gz") as file:
            labels = np.frombuffer(file.read(), np.uint8, offset=8)
        return np.concatenate([labels[:, None], pictures], 1)

    train = read("train")
    return Grid(1, 28, 28, classes=10), {"train": train[:-5000], "val": train[-5000:], "test": read("t10k")}


PICTURES = {"mnist": binarised_mnist, "fashion": fashion_mnist}


class Told(Replicas):
    """Prints every validation with the CPU-seconds so far, and keeps it."""

    def __init__(self) -> None:
        self.started = time.process_time()
        self.curve: list[dict[str, float]] = []

    def report(self, metrics: dict[str, float], step: int, progress: float) -> None:
        seconds = time.process_time() - self.started
        point = {
            "step": step,
            "cpu_seconds": round(seconds),
            "validation": round(metrics["validation_loss"], 3),
        }
        self.curve.append(point)
        print(point | {"done": round(progress, 3), "wall": round(metrics["seconds"])}, flush=True)


def new(space: Any) -> Autoregressive:
    """A model with its first weights."""
    torch.manual_seed(SEED)
    return Autoregressive(space, Settings())


def epochs_in(space: Grid, parts: dict[str, np.ndarray], minutes: float) -> int:
    """Whole epochs that so many CPU-minutes suffice for."""
    steps, few = 40, parts["train"][: 40 * BATCH]
    settings = FitSettings(seed=SEED, batch_size=BATCH, max_epochs=1, evaluations=1)
    started = time.process_time()
    Fit(new(space), few, few[:2], settings).run()
    seconds = (time.process_time() - started) / steps * (len(parts["train"]) // BATCH)
    return max(int(minutes * 60 / seconds), 1)


def nats(model: Autoregressive, records: np.ndarray) -> float:
    """Mean negative log-likelihood of a picture (labels not counted)."""
    total = 0.0
    with torch.inference_mode():
        for part in torch.from_numpy(records.astype(np.int64)).split(250):
            total -= float(model.log_prob(part)[:, model.space.labelled :].double().sum())
    return total / len(records)


def sampling(model: Autoregressive) -> dict[str, float]:
    """Pictures per CPU-second, as the model draws them and with the whole network at every pixel."""
    started = time.process_time()
    model.sample(DRAWN, torch.Generator().manual_seed(SEED))
    quick = DRAWN / (time.process_time() - started)
    x = torch.zeros(DRAWN, model.space.entries, dtype=torch.long)
    started = time.process_time()
    with torch.inference_mode():
        for _ in range(NAIVE_PIXELS):
            model.log_prob(x)  # for two levels this is all a naive sampler needs; for more it is the least
    naive = DRAWN / ((time.process_time() - started) / NAIVE_PIXELS * model.space.size)
    return {"incremental": round(quick, 2), "naive": round(naive, 4), "ratio": round(quick / naive, 1)}


def run(space: Grid, parts: dict[str, np.ndarray], minutes: float, wall: float | None) -> dict[str, Any]:
    """Fit, then every figure."""
    epochs = epochs_in(space, parts, minutes)
    model, told = new(space), Told()
    settings = FitSettings(
        seed=SEED,
        batch_size=BATCH,
        max_epochs=epochs,
        max_seconds=wall and 60 * wall,
        evaluations=12,
        clip=50.0,
    )
    progress = Fit(model, parts["train"], parts["val"], settings, told).run()
    seconds = time.process_time() - told.started
    figures = {part: nats(model, parts[part]) for part in ("val", "test")}
    bits = {f"{part}_bits_per_dimension": value / space.size / log(2) for part, value in figures.items()}
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "cpu_seconds": round(seconds),
        "epochs": round(progress.step * BATCH / len(parts["train"]), 2),
        "nats": {part: round(value, 3) for part, value in figures.items()},
        "bits": {name: round(value, 4) for name, value in bits.items()},
        "pictures_per_cpu_second": sampling(model),
        "validation_curve": told.curve,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with mnist/ and fashion_mnist/")
    parser.add_argument("--pictures", choices=sorted(PICTURES), default="mnist")
    parser.add_argument("--minutes", type=float, default=30, help="CPU-minutes of training")
    parser.add_argument("--wall", type=float, help="wall-clock minutes that end the training")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    keep_freed_memory()
    space, parts = PICTURES[args.pictures](args.data)
    figures = run(space, parts, args.minutes, args.wall)
    name = "pixels" if args.pictures == "mnist" else f"pixels_{args.pictures}"
    record.save(name, figures, module="pixels", seed=SEED, batch=BATCH, minutes=args.minutes, wall=args.wall)


if __name__ == "__main__":
    main()
