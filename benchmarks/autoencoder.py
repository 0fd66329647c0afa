"""Binarised MNIST by the variational autoencoder: the importance-weighted bound in nats, and what it costs.

python -m benchmarks.autoencoder --data DIR      DIR/mnist/mnist.npz; at most 86 nats in a quarter of an hour

Settings were chosen on the validation digits; the test digits are looked at once, at the end.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from benchmarks.record import save
from genai_core import catalog
from genai_core.hyperparameters import FitSettings
from genai_core.loop import Fit, Replicas
from genai_core.spaces import Grid

SPACE = Grid(1, 28, 28, levels=2)
PARTS = ("train", "val", "test")
BATCH = 100  # digits that are bounded together


def main() -> None:
    """Fit, bound, record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=7)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--clip", type=float, default=50.0)
    parser.add_argument("--model", nargs="*", default=[], metavar="KEY=VALUE", help="settings of the family")
    parser.add_argument("--samples", type=int, default=64, help="draws of the bound on the test digits")
    parser.add_argument("--weights", type=Path, help="safetensors file to keep the weights in")
    parser.add_argument("--pilot", action="store_true", help="validation digits only, nothing is kept")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    digits = binarised(chosen.data / "mnist" / "mnist.npz")
    fit = FitSettings(
        seed=7,
        max_epochs=chosen.epochs,
        batch_size=chosen.batch,
        learning_rate=chosen.rate,
        evaluations=10,
        patience=10,
        clip=chosen.clip,
    )
    settings = {key: float(value) if "." in value else int(value) for key, value in pairs(chosen.model)}
    model, seconds, history = fitted(digits, settings, fit)
    if chosen.weights:
        save_file(model.state_dict(), chosen.weights)
    figures: dict[str, Any] = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "training_cpu_seconds": round(seconds),
        "validation_loss": [round(h["validation_loss"], 2) for h in history],
    }
    part, samples = ("val", 16) if chosen.pilot else ("test", chosen.samples)
    figures |= bounds(model, digits[part][: 2000 if chosen.pilot else None], samples, part)
    if chosen.pilot:
        print(vars(chosen), figures)
    else:
        save("autoencoder", figures, fit=fit.model_dump(), model=model.settings.model_dump())


def pairs(words: list[str]) -> list[tuple[str, str]]:
    """KEY=VALUE."""
    return [(key, value) for key, _, value in (word.partition("=") for word in words)]


def binarised(path: Path) -> dict[str, np.ndarray]:
    """Every pixel is white with the probability of its grey value, drawn once (Salakhutdinov & Murray 2008)."""
    random = np.random.default_rng(0)
    with np.load(path) as file:
        grey = {part: file[f"x_{part}"].reshape(-1, SPACE.size) for part in PARTS}
    return {part: (random.random(x.shape) < x / 255).astype(np.uint8) for part, x in grey.items()}


def fitted(
    digits: dict[str, np.ndarray], settings: dict[str, Any], fit: FitSettings
) -> tuple[Any, float, list[dict[str, float]]]:
    """A model, the CPU-seconds of its training with validations, and the validations."""
    torch.manual_seed(fit.seed)
    model = catalog.build_model("vae", SPACE, settings)
    start = time.process_time()

    class Told(Replicas):
        """Says how it goes."""

        def report(self, metrics: dict[str, float], step: int, progress: float) -> None:
            print(
                f"{progress:.3f}: {metrics['validation_loss']:.2f} nats, {time.process_time() - start:.0f} CPU-s",
                flush=True,
            )

    progress = Fit(model, digits["train"], digits["val"], fit, Told()).run()
    return model, time.process_time() - start, progress.history


@torch.inference_mode()
def bounds(model: Any, x: np.ndarray, samples: int, part: str) -> dict[str, float]:
    """Nats a digit: the importance-weighted bound of `samples` draws, the plain bound, the reconstruction."""
    start = time.process_time()
    found = {"nats": 0.0, "nats_one_draw": 0.0, "reconstruction_nats": 0.0}
    for rows in torch.from_numpy(x.astype(np.int64)).split(BATCH):
        found["nats"] -= float(model.bounded(rows, samples).sum())
        found["nats_one_draw"] -= float(model.bounded(rows, 1).sum())
        found["reconstruction_nats"] -= float(model.reconstruct(rows).sum())
    figures = {f"{part}_{name}": round(value / len(x), 3) for name, value in found.items()}
    return figures | {f"{part}_samples": samples, "bound_cpu_seconds": round(time.process_time() - start)}


if __name__ == "__main__":
    main()
