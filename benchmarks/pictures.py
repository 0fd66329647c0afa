"""Adversarial models of Fashion-MNIST: Frechet distance beside real against real, recognisability, augmentation."""

from __future__ import annotations

import argparse
import gzip
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from benchmarks import record
from benchmarks.classifier import Classifier, accuracy, features, fitted
from genai_core import catalog
from genai_core.evaluation.frechet import apart
from genai_core.hyperparameters import FitSettings
from genai_core.loop import Fit
from genai_core.model import Model
from genai_core.spaces import Grid
from genai_core.splits import seed_of

SPACE = Grid(1, 28, 28, classes=10)
ROWS = 10_000  # of each sample that is compared; Fashion-MNIST has as many test pictures
# chosen on a validation part of the training pictures
RUNS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "gan": (
        "gan",
        {"gamma": 0.5, "augment": False, "hidden": 128, "precision": "bfloat16"},
        {"learning_rate": 1.5e-3, "batch_size": 64, "max_epochs": 20},
    ),
    "dcgan": ("dcgan", {"channels": 32}, {"batch_size": 64, "max_epochs": 25}),
    "wgan": (
        "gan",
        {
            "loss": "wasserstein",
            "gamma": 10.0,
            "pac": 1,
            "augment": False,
            "hidden": 128,
            "critic_steps": 3,
            "precision": "bfloat16",
        },
        {"learning_rate": 5e-4, "batch_size": 64, "max_epochs": 1},
    ),
}
SHOTS, REPEATS, MADE_A_CLASS = 10, 4, 100


def main() -> None:
    """Train and judge the models that are asked for, one JSON file and one contact sheet each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with Fashion-MNIST's four IDX files")
    parser.add_argument("--models", default="gan,dcgan,wgan,augmentation")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--judge", type=Path, help="safetensors file that keeps the classifier for another run"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    train, test = read(args.data, "train"), read(args.data, "t10k")
    names = args.models.split(",")
    if set(names) - {"augmentation"}:
        judge = judge_of(train, args.judge)
        known = {"classifier_accuracy": round(accuracy(judge, test), 4)}
    for name in names:
        if name == "augmentation":
            record.save("pictures_augmentation", augmentation(train, test), "pictures", shots=SHOTS)
            continue
        kind, model, fit = RUNS[name]
        figures, made = assess(kind, model, {**fit, "seed": args.seed}, judge, train, test)
        sheet(made).save(record.RESULTS / f"pictures_{name}.png", optimize=True)
        record.save(f"pictures_{name}", known | figures, "pictures", kind=kind, model=model, fit=fit)


def read(folder: Path, part: str) -> np.ndarray:
    """Records (rows, 785) of a part of the data set, uint8: label, then pixels."""

    def body(kind: str, header: int) -> np.ndarray:
        raw = gzip.decompress((folder / f"{part}-{kind}-ubyte.gz").read_bytes())
        return np.frombuffer(raw, np.uint8, offset=header)

    labels = body("labels-idx1", 8)
    return np.concatenate([labels[:, None], body("images-idx3", 16).reshape(len(labels), -1)], 1)


def judge_of(train: np.ndarray, kept: Path | None) -> Classifier:
    """The classifier in whose features samples are compared, fitted unless an earlier run has kept it."""
    if kept and kept.exists():
        judge = Classifier(SPACE)
        judge.load_state_dict(load_file(kept))
        return judge.eval()
    judge = fitted(SPACE, train, seed=0, epochs=6, evaluations=6)
    if kept:
        save_file(judge.state_dict(), kept)
    return judge


def timed(work: Any) -> tuple[Any, float]:
    """What `work` returns and the CPU-seconds it took."""
    start = time.process_time()
    return work(), round(time.process_time() - start, 1)


def trained(kind: str, model: dict[str, Any], fit: dict[str, Any], train: np.ndarray) -> tuple[Model, Any]:
    """A family on records, a tenth of them for the choice of the checkpoint; and the history of its fit."""
    how = FitSettings(**{"evaluations": 8, "patience": 1000, **fit})
    torch.manual_seed(seed_of(how.seed, "weights"))
    network = catalog.build_model(kind, SPACE, model)
    out = np.random.default_rng(how.seed).permutation(len(train)) < max(len(train) // 10, 1)
    return network, Fit(network, train[~out], train[out], how).run()


def drawn(model: Any, rows: int, seed: int, conditions: Any = ()) -> np.ndarray:
    """Records (rows, 785)."""
    together = SPACE.batches.draw
    parts = [
        model.sample(together, torch.Generator().manual_seed(seed_of(seed, "draw", number)), conditions)
        for number in range(-(-rows // together))
    ]
    return torch.cat(parts)[:rows].numpy().astype(np.uint8)


def assess(
    kind: str,
    model: dict[str, Any],
    fit: dict[str, Any],
    judge: Classifier,
    train: np.ndarray,
    test: np.ndarray,
) -> tuple[dict[str, Any], np.ndarray]:
    """Figures of a family, and what it made. Made and other real pictures are both compared with the test pictures."""
    (network, progress), seconds = timed(lambda: trained(kind, model, fit, train))
    made, drawing = timed(lambda: drawn(network, ROWS, 1))
    others = train[np.random.default_rng(1).permutation(len(train))[:ROWS]]
    found = apart(features(judge, made), features(judge, test), features(judge, others))
    counts = np.bincount(made[:, 0], minlength=10)
    return {
        "cpu_seconds": seconds,
        "steps": progress.step,
        "best_step": progress.best_step,
        "frechet": round(found.frechet, 3),
        "frechet_real": round(found.frechet_real, 3),
        "frechet_ratio": round(found.ratio, 2),
        "kernel": round(found.kernel, 5),
        "kernel_real": round(found.kernel_real, 5),
        "rows": found.rows,
        "recognised": round(accuracy(judge, made), 4),
        "classes_drawn": counts.tolist(),
        "drawn_a_cpu_second": round(ROWS / drawing),
        "validation": [round(h["validation_loss"], 4) for h in progress.history],
    }, made


def augmentation(train: np.ndarray, test: np.ndarray) -> dict[str, Any]:
    """Accuracy of classifiers of ten real pictures a class, without and with made ones from a model of just those."""
    alone: list[float] = []
    more: list[float] = []
    plain: list[float] = []
    seconds = 0.0
    for seed in range(REPEATS):
        few = few_of(train, seed)
        settings = {"channels": 16, "hidden": 128, "pac": 1, "precision": "bfloat16"}
        fit = {"batch_size": 50, "max_epochs": 350, "learning_rate": 1e-3, "evaluations": 4, "seed": seed}
        (model, _), used = timed(lambda: trained("gan", settings, fit, few))  # noqa: B023
        made = drawn(model, 10 * MADE_A_CLASS, seed)
        seconds += used
        repeated = few[np.arange(len(few) + len(made)) % len(few)]  # as many steps without made pictures
        for found, rows in ((alone, repeated), (more, np.concatenate([repeated[: len(made)], made]))):
            found.append(accuracy(fitted(SPACE, rows, seed, epochs=10, evaluations=1), test))
        plain.append(accuracy(fitted(SPACE, made, seed, epochs=10, evaluations=1), test))
    gain = np.subtract(more, alone)
    return {
        "real_alone": [round(a, 4) for a in alone],
        "real_and_made": [round(a, 4) for a in more],
        "made_alone": [round(a, 4) for a in plain],
        "gain_mean": round(float(gain.mean()), 4),
        "gain_standard_error": round(float(gain.std(ddof=1) / len(gain) ** 0.5), 4),
        "gan_cpu_seconds": round(seconds, 1),
    }


def few_of(train: np.ndarray, seed: int) -> np.ndarray:
    """SHOTS records of every class."""
    random = np.random.default_rng(seed)
    rows = [random.choice(np.flatnonzero(train[:, 0] == label), SHOTS, replace=False) for label in range(10)]
    return train[np.concatenate(rows)]


def sheet(made: np.ndarray, columns: int = 8) -> Image.Image:
    """A contact sheet: one row of samples for every class."""
    rows = []
    for label in range(10):
        found = made[made[:, 0] == label, 1:][:columns].reshape(-1, 28, 28)
        found = np.concatenate([found, np.zeros((columns - len(found), 28, 28), np.uint8)])
        rows.append(np.concatenate(list(found), 1))
    return Image.fromarray(np.concatenate(rows, 0))


if __name__ == "__main__":
    main()
