"""Anomalous pictures: one class against the others, and one data set against another.

    python -m benchmarks.image_anomalies --data DIR [--part one_class|across]

DIR holds mnist/mnist.npz and fashion_mnist/*.gz as published. One class: the memory of patches sees the training
pictures of one class; all of the test set is scored, and AUROC is the mean over the ten classes; beside it the mean
distance to the nearest neighbours in pixels. Across: an autoregressive model learns Fashion-MNIST without labels and
scores both test sets. Settings were chosen on a validation part of the training data.
"""

from __future__ import annotations

import argparse
import gzip
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from sklearn.metrics import roc_auc_score

import genai_core
from benchmarks import record
from genai_core import catalog
from genai_core.scores import patch_memory
from genai_core.spaces import Grid

SETS = ("mnist", "fashion")
NEIGHBOURS = 3
SEED = 0


def pictures(folder: Path, name: str, part: str) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (rows, 28, 28) and classes; part: train or test."""
    if name == "mnist":
        with np.load(folder / "mnist" / "mnist.npz") as kept:
            return kept[f"x_{part}"].reshape(-1, 28, 28), kept[f"y_{part}"]
    stem = "t10k" if part == "test" else "train"
    files = [folder / "fashion_mnist" / f"{stem}-{what}-ubyte.gz" for what in ("images-idx3", "labels-idx1")]
    images, labels = (gzip.decompress(file.read_bytes()) for file in files)
    pixels = np.frombuffer(images, np.uint8, offset=16).reshape(-1, 28, 28)
    return pixels, np.frombuffer(labels, np.uint8, offset=8)


def nearest_pixels(train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Mean Euclidean distance to the nearest training pictures, all of them."""
    a = torch.from_numpy(test.reshape(len(test), -1).astype(np.float32) / 255)
    b = torch.from_numpy(train.reshape(len(train), -1).astype(np.float32) / 255)
    found = [torch.cdist(part, b).topk(NEIGHBOURS, largest=False).values.mean(1) for part in a.split(1000)]
    return torch.cat(found).numpy()


def by_patches(train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """The score `patch_memory`. It asks nothing of the model that carries it: this one is not trained."""
    model = catalog.build_model("gan", Grid(1, 28, 28), {"channels": 4, "hidden": 8})
    x, new = (torch.from_numpy(p.reshape(len(p), -1).astype(np.int64)) for p in (train, test))
    state = patch_memory.fit(model, x, torch.Generator().manual_seed(SEED))
    with torch.inference_mode():
        return patch_memory.score(model, new, torch.zeros(len(new), 1), state).numpy()


def one_class(folder: Path) -> dict[str, Any]:
    """Mean AUROC over the classes, for both sets and both scores."""
    figures: dict[str, Any] = {}
    for score in (by_patches, nearest_pixels):
        for name in SETS:
            (train, classes), (test, actual) = (pictures(folder, name, part) for part in ("train", "test"))
            started = time.process_time()
            found = [float(roc_auc_score(actual != c, score(train[classes == c], test))) for c in range(10)]
            figures[f"{name} {score.__name__}"] = {
                "mean_auroc": round(float(np.mean(found)), 4),
                "by_class": [round(value, 4) for value in found],
                "cpu_seconds": round(time.process_time() - started, 1),
            }
            print(name, score.__name__, figures[f"{name} {score.__name__}"], flush=True)
    return figures


def across(folder: Path, rows: int, epochs: int, tested: int) -> dict[str, Any]:
    """A model of Fashion-MNIST: AUROC of MNIST's test pictures among its own, by every score."""
    started = time.process_time()
    random = np.random.default_rng(SEED)
    train = pictures(folder, "fashion", "train")[0]
    train = train[np.sort(random.permutation(len(train))[:rows])]
    model = genai_core.fit(
        _table(train),
        "autoregressive",
        modality={"kind": "image"},
        seed=SEED,
        max_epochs=epochs,
        evaluations=4,
    )
    fitted = time.process_time()
    found = [
        model.score(_table(pictures(folder, name, "test")[0][:tested]), model.score_names) for name in SETS
    ]
    figures: dict[str, Any] = {"fit_cpu_seconds": round(fitted - started, 1)}
    for name in model.score_names:
        odd, usual = (scored.totals[name] for scored in found)
        truth = np.repeat([1, 0], [len(odd), len(usual)])
        figures[name] = {"auroc": round(float(roc_auc_score(truth, np.concatenate([odd, usual]))), 4)}
    nats = found[1].totals["negative_log_likelihood"].mean()
    return figures | {
        "bits_per_pixel_of_fashion_test": round(float(nats / np.log(2) / 784), 4),
        "score_cpu_seconds": round(time.process_time() - fitted, 1),
    }


def _table(images: np.ndarray) -> pa.Table:
    return pa.table({"image": pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(images))})


def main() -> None:
    """Run what is asked for and keep the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--part", choices=("one_class", "across"))
    parser.add_argument("--rows", type=int, default=30_000, help="training pictures across data sets")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--tested", type=int, default=10_000, help="test pictures of each set")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.part != "across":
        record.save("image_anomalies_one_class", one_class(given.data), "image_anomalies", seed=SEED)
    if given.part != "one_class":
        how = {"rows": given.rows, "epochs": given.epochs, "tested": given.tested}
        record.save("image_anomalies_across", across(given.data, **how), "image_anomalies", seed=SEED, **how)


if __name__ == "__main__":
    main()
