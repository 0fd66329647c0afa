"""MNIST <-> USPS by the CycleGAN, without pairs: does a classifier of the one domain read what was translated to it?

python -m benchmarks.translation --data DIR      DIR/mnist/mnist.npz, DIR/usps/usps.npz; target: 85 % to USPS

Both come to 16 x 16, the size of USPS: MNIST's margin of 4 pixels, which is empty and which USPS has not, is cut, and
what is left is made smaller. Settings were chosen on MNIST's validation digits; the test digits are looked at once.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.classifier import accuracy, fitted
from benchmarks.record import RESULTS, save
from genai_core import catalog
from genai_core.hyperparameters import FitSettings
from genai_core.loop import Fit, Replicas
from genai_core.spaces import Grid

SIDE = 16
MNIST, USPS = 0, 1
DOMAINS = Grid(1, SIDE, SIDE, classes=2)
DIGITS = Grid(1, SIDE, SIDE, classes=10)
HELD_OUT = 700  # USPS training digits, and as many of MNIST, that choose the checkpoint
MNIST_DIGITS = (
    10_000  # as large a part of the 50,000 as USPS has digits, roughly: the domains are alike in number
)
SHEET = 20  # digits in a row of the sheet
Digits = tuple[np.ndarray, np.ndarray]  # pictures uint8 (rows, 16, 16), digits (rows,)


def main() -> None:
    """Fit two readers and a translator, translate, read, record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--margin", type=int, default=4, help="pixels cut from each side of MNIST's 28 x 28")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=5e-4)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--model", nargs="*", default=[], metavar="KEY=VALUE", help="settings of the family")
    parser.add_argument("--pilot", action="store_true", help="validation digits only, nothing is kept")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    mnist, usps = digits(chosen.data, chosen.margin)
    readers = {
        MNIST: fitted(DIGITS, rows(*mnist["train"]), chosen.seed, 5),
        USPS: fitted(DIGITS, rows(*usps["train"]), chosen.seed, 12),
    }
    fit = FitSettings(
        seed=chosen.seed,
        max_epochs=chosen.epochs,
        batch_size=chosen.batch,
        learning_rate=chosen.rate,
        evaluations=10,
        patience=10,
    )
    settings = {"channels": 16, "blocks": 3, "identity": 1.0, **pairs(chosen.model)}
    model, seconds, history = translator(mnist["train"][0], usps["train"][0], settings, fit)
    figures: dict[str, Any] = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "training_cpu_seconds": round(seconds),
        "validation_loss": [round(h["validation_loss"], 3) for h in history],
    }
    if chosen.pilot:
        print(vars(chosen), figures, read(model, readers, mnist["val"], usps["train"]))
        return
    whole_frame = digits(chosen.data, 0)[0]["test"]
    figures |= read(model, readers, mnist["test"], usps["test"])
    figures["usps_reads_mnist_with_its_margin"] = accuracy(readers[USPS], rows(*whole_frame))
    sheet(model, mnist["test"][0], usps["test"][0]).save(RESULTS / "translation.png", optimize=True)
    save(
        "translation",
        figures,
        fit=fit.model_dump(),
        model=model.settings.model_dump(),
        margin=chosen.margin,
        mnist_digits=len(mnist["train"][0]),
    )


def pairs(words: list[str]) -> dict[str, float]:
    """KEY=VALUE, numbers."""
    found = (word.partition("=") for word in words)
    return {key: float(value) if "." in value else int(value) for key, _, value in found}


def digits(data: Path, margin: int) -> tuple[dict[str, Digits], dict[str, Digits]]:
    """Parts of MNIST (train, val, test) and of USPS (train, test)."""
    kept, usps = np.load(data / "mnist" / "mnist.npz"), np.load(data / "usps" / "usps.npz")
    limits = {"train": MNIST_DIGITS, "val": None, "test": None}
    mnist = {
        part: (smaller(kept[f"x_{part}"][:most], margin), kept[f"y_{part}"][:most])
        for part, most in limits.items()
    }
    return mnist, {part: (usps[f"x_{part}"], usps[f"y_{part}"]) for part in ("train", "test")}


def smaller(pictures: np.ndarray, margin: int) -> np.ndarray:
    """Without their margin, 16 x 16."""
    inside = pictures[:, margin : 28 - margin, margin : 28 - margin]
    resized = (Image.fromarray(one).resize((SIDE, SIDE), Image.Resampling.BILINEAR) for one in inside)
    return np.stack([np.asarray(one) for one in resized])


def rows(pictures: np.ndarray, labels: np.ndarray | int) -> np.ndarray:
    """Records of a `Grid`, the label first."""
    first = np.broadcast_to(labels, len(pictures)).astype(np.uint8)
    return np.concatenate([first[:, None], pictures.reshape(len(pictures), -1)], 1)


def translator(
    mnist: np.ndarray, usps: np.ndarray, settings: dict[str, Any], fit: FitSettings
) -> tuple[Any, float, list[dict[str, float]]]:
    """A fitted CycleGAN, CPU-seconds, its history. It sees no digit's name."""
    torch.manual_seed(fit.seed)
    model = catalog.build_model("cyclegan", DOMAINS, settings)
    both = [rows(mnist, MNIST), rows(usps, USPS)]
    train = np.concatenate([part[:-HELD_OUT] for part in both])
    started = time.process_time()
    progress = Fit(model, train, np.concatenate([part[-HELD_OUT:] for part in both]), fit, Told()).run()
    return model, time.process_time() - started, progress.history


class Told(Replicas):
    """Says how it goes."""

    def report(self, metrics: dict[str, float], step: int, progress: float) -> None:
        print(step, {name: round(value, 3) for name, value in metrics.items()}, flush=True)


def read(model: Any, readers: dict[int, Any], mnist: Digits, usps: Digits) -> dict[str, float]:
    """Accuracies of the readers on their own domain, on the other one as it is, and on the other one translated."""
    found = {}
    own = {MNIST: mnist, USPS: usps}
    names = {MNIST: "mnist", USPS: "usps"}
    for domain, reader in readers.items():
        pictures, labels = own[1 - domain]
        me, other = names[domain], names[1 - domain]
        found |= {
            f"{me}_reads_{me}": accuracy(reader, rows(*own[domain])),
            f"{me}_reads_{other}_untranslated": accuracy(reader, rows(pictures, labels)),
            f"{me}_reads_{other}_translated": accuracy(
                reader, rows(translated(model, pictures, 1 - domain), labels)
            ),
        }
    return {name: round(value, 4) for name, value in found.items()}


@torch.inference_mode()
def translated(model: Any, pictures: np.ndarray, domain: int) -> np.ndarray:
    """Pictures of a domain as they would look in the other."""
    x = torch.from_numpy(rows(pictures, domain).astype(np.int64))
    made = [model.translate(part, 1 - domain)[:, 1:] for part in x.split(DOMAINS.batches.score)]
    return torch.cat(made).numpy().astype(np.uint8).reshape(pictures.shape)


def sheet(model: Any, mnist: np.ndarray, usps: np.ndarray) -> Image.Image:
    """Four bands of two rows: MNIST, the same as USPS, USPS, the same as MNIST."""
    bands = []
    for pictures, domain in ((mnist[: 2 * SHEET], MNIST), (usps[: 2 * SHEET], USPS)):
        for one in (pictures, translated(model, pictures, domain)):
            bands.append(np.pad(one, ((0, 0), (1, 1), (1, 1)), constant_values=128))
    lines = [np.hstack(band[start : start + SHEET]) for band in bands for start in (0, SHEET)]
    return Image.fromarray(np.vstack(lines))


if __name__ == "__main__":
    main()
