"""Mode collapse: how many modes of known distributions the families find, how cleanly, how evenly.

toys     a grid of 25 Gaussians and a ring of 8 (Metz et al. 2017), as tables of two columns through the product:
         a record within three standard deviations of a centre counts for its mode and is of high quality
stacked  1000 modes: three random digits of MNIST as the channels of a colour picture (Metz et al. 2017); a
         classifier of digits says which mode a picture is of, and calls it of high quality where it is 90 % sure of
         all three digits; as published figures are, modes and KL are of all pictures, and `sure_modes` of those of
         high quality

KL is that of the made modes against the even distribution, nats, of the records that have one. Stacked fits are limited
in CPU-seconds, so that a busy machine trains as long as an idle one; they go on from a checkpoint in --keep. Fits of
another length than usual, for rivals side by side, are kept in one file together.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from benchmarks import record
from benchmarks.classifier import Classifier, fitted
from genai_core import catalog
from genai_core.fitted import FittedModel
from genai_core.hyperparameters import FitSettings
from genai_core.loop import Fit
from genai_core.replicas import Replicas
from genai_core.spaces import Grid
from genai_core.splits import seed_of
from genai_core.train import as_table, modality_settings, new_model, split
from pipelines.training.allocator import keep_freed_memory

SIGMA, TOY_ROWS, TOY_DRAWN = 0.05, 20_000, 10_000
TOYS = {
    "grid": np.array([(x, y) for x in range(-4, 5, 2) for y in range(-4, 5, 2)], float),
    "ring": 2.0 * np.stack([np.cos(np.arange(8) * np.pi / 4), np.sin(np.arange(8) * np.pi / 4)], 1),
}
TOY_RIVALS: dict[str, tuple[str, dict[str, Any]]] = {
    "gan": ("gan", {}),
    "gan_pac_1": ("gan", {"pac": 1}),
    "gan_pac_4": ("gan", {"pac": 4}),
    "wgan_gp": ("gan", {"loss": "wasserstein", "gamma": 10.0, "pac": 1}),
    "vae": ("vae", {}),
    "autoregressive": ("autoregressive", {}),
}
DIGIT, STACKED = Grid(1, 28, 28, classes=10), Grid(3, 28, 28)
STACKED_ROWS, STACKED_DRAWN, SEEN_DRAWN, SURE = 60_000, 26_000, 6_000, 0.9
USUAL = 3000.0  # CPU-seconds of a stacked fit
# augmentation is for few pictures; bfloat16 halves the time where the processor has it
PLAIN = {"augment": False, "precision": "bfloat16"}
RIVALS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "gan": ("gan", PLAIN, {}),
    "gan_pac_1": ("gan", PLAIN | {"pac": 1}, {}),
    "wgan_gp": (
        "gan",
        PLAIN | {"loss": "wasserstein", "gamma": 10.0, "pac": 1, "critic_steps": 3},
        {"learning_rate": 5e-4},
    ),
    "dcgan": ("dcgan", {"channels": 32}, {}),
}


def main() -> None:
    """One JSON file of the toys, one of every stacked rival."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("toys", "stacked"))
    parser.add_argument("--data", type=Path, help="folder with mnist.npz")
    parser.add_argument("--rivals", help="some of them, with commas between: the toys' file keeps the others")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cpu-seconds", type=float, default=USUAL, help="of a stacked fit")
    parser.add_argument("--keep", type=Path, help="folder for checkpoints of stacked fits and the classifier")
    args = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    if args.what == "toys":
        names = args.rivals.split(",") if args.rivals else list(TOY_RIVALS)
        path = record.RESULTS / "mode_collapse_toys.json"
        earlier = json.loads(path.read_text())["figures"] if args.rivals and path.exists() else {}
        found = {toy: earlier.get(toy, {}) | one for toy, one in toys(names, args.seed).items()}
        record.save("mode_collapse_toys", found, "mode_collapse", rows=TOY_ROWS, sigma=SIGMA)
        return
    args.keep.mkdir(parents=True, exist_ok=True)
    for name in (args.rivals or "gan").split(","):
        kind, model, fit = RIVALS[name]
        found = stacked(name, args.data, args.seed, args.cpu_seconds, args.keep)
        if args.cpu_seconds == USUAL:
            record.save(
                f"mode_collapse_stacked_{name}", found, "mode_collapse", kind=kind, model=model, fit=fit
            )
            continue
        path = record.RESULTS / "mode_collapse_stacked_rivals.json"
        earlier = json.loads(path.read_text())["figures"] if path.exists() else {}
        record.save("mode_collapse_stacked_rivals", earlier | {name: found}, "mode_collapse", rivals=RIVALS)


# -- counting ------------------------------------------------------------------------------------------------


def counted(modes: np.ndarray, there: int) -> dict[str, Any]:
    """Figures of modes (rows,), -1 for a record that is of none."""
    counts = np.bincount(modes[modes >= 0], minlength=there)
    share = counts[counts > 0] / max(counts.sum(), 1)
    return {
        "modes": int((counts > 0).sum()),
        "of": there,
        "high_quality": round(float((modes >= 0).mean()), 4),
        "kl": round(float((share * np.log(share * there)).sum()), 4) if len(share) else None,
    }


# -- toys ----------------------------------------------------------------------------------------------------


def toy(centres: np.ndarray, rows: int, seed: int) -> np.ndarray:
    """Records (rows, 2) of a mixture of even weights."""
    random = np.random.default_rng(seed)
    return centres[random.integers(0, len(centres), rows)] + SIGMA * random.standard_normal((rows, 2))


def toy_modes(centres: np.ndarray, made: np.ndarray) -> np.ndarray:
    """The mode of each record (rows, 2), or -1: further than three standard deviations from all."""
    apart = np.linalg.norm(made[:, None] - centres, axis=2)
    return np.where(apart.min(1) <= 3 * SIGMA, apart.argmin(1), -1)


def toys(names: list[str], seed: int) -> dict[str, Any]:
    """Figures by toy and rival; real records beside them."""
    found: dict[str, Any] = {}
    for shape, centres in TOYS.items():
        found[shape] = {"real": counted(toy_modes(centres, toy(centres, TOY_DRAWN, 99)), len(centres))}
        for name in names:
            kind, settings = TOY_RIVALS[name]
            start = time.process_time()
            model = learnt(kind, settings, toy(centres, TOY_ROWS, seed), seed)
            made = np.stack([c.to_numpy() for c in model.sample(TOY_DRAWN, seed=1).columns], 1)
            one = counted(toy_modes(centres, made), len(centres))
            found[shape][name] = one | {"cpu_seconds": round(time.process_time() - start, 1)}
            print(shape, name, found[shape][name], flush=True)
    return found


def learnt(kind: str, settings: dict[str, Any], data: np.ndarray, seed: int) -> FittedModel:
    """A family on a table of numbers, by the product's reading and loop; without scores, which nobody asks for here."""
    table = as_table(data)
    reading = modality_settings({"kind": "tabular"}, kind, seed)
    codec = catalog.codec_class("tabular").fit(table.to_batches(), table.schema, reading)
    how, x = FitSettings(seed=seed, max_epochs=24), codec.encode(table).tokens
    out, network = split(np.arange(len(x)), how), new_model(kind, codec, settings, seed)
    Fit(network, x[~out], x[out], how).run()
    return FittedModel(kind, codec.kind, codec, network)


# -- stacked digits ------------------------------------------------------------------------------------------


def stack(pictures: np.ndarray, rows: int, seed: int) -> np.ndarray:
    """Records (rows, 3 * 784) of three random digits each."""
    random = np.random.default_rng(seed)
    return pictures.reshape(-1, 784)[random.integers(0, len(pictures), (rows, 3))].reshape(rows, -1)


class CpuFit(Fit):
    """A fit whose `max_seconds` are CPU-seconds, those of an earlier process included."""

    def run(self) -> Any:
        """As `Fit` does."""
        self.began = time.process_time()
        return super().run()

    def _done(self, step: int) -> float:
        kept = self.progress.history[-1]["cpu_seconds"] if self.progress.history else 0.0
        used = getattr(self, "carried", kept) + time.process_time() - self.began - self.replicas.aside
        self.replicas.used = used
        return min(max(step / self.total_steps, used / self.settings.max_seconds), 1.0)

    def _resume(self) -> None:
        super()._resume()
        self.carried = self.progress.history[-1].get("cpu_seconds", 0.0) if self.progress.history else 0.0


class Kept(Replicas):
    """One checkpoint in a file, and what is counted at every validation; `aside`: CPU-seconds of the counting."""

    def __init__(self, path: Path, count: Callable[[dict[str, torch.Tensor]], dict[str, Any]]) -> None:
        self.path, self.count, self.aside, self.used = path, count, 0.0, 0.0

    def save(self, tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> None:
        start = time.process_time()
        weights = {n.removeprefix("averaged/"): t for n, t in tensors.items() if n.startswith("averaged/")}
        facts["history"][-1] |= self.count(weights) | {"cpu_seconds": round(self.used, 1)}
        print(json.dumps(facts["history"][-1]), flush=True)
        own = {name: value.detach().contiguous().clone() for name, value in tensors.items()}
        save_file(own, self.path.with_suffix(".new"), {"facts": json.dumps(facts)})
        self.path.with_suffix(".new").replace(self.path)
        self.aside += time.process_time() - start

    def restore(self) -> Any:
        if not self.path.exists():
            return None
        data = self.path.read_bytes()
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        return load_file(self.path), json.loads(header["__metadata__"]["facts"])


def stacked_figures(judge: Classifier, x: np.ndarray) -> dict[str, Any]:
    """Figures of records (rows, 3 * 784): of all, and of those that the classifier is sure of."""
    modes, sure = stacked_modes(judge, x)
    of_sure = counted(np.where(sure, modes, -1), 1000)
    found = counted(modes, 1000) | {"high_quality": of_sure["high_quality"]}
    return found | {"sure_modes": of_sure["modes"], "sure_kl": of_sure["kl"]}


def stacked(name: str, data: Path, seed: int, seconds: float, keep: Path) -> dict[str, Any]:
    """Figures of a rival on stacked digits."""
    kind, settings, fit = RIVALS[name]
    with np.load(data / "mnist.npz") as arrays:
        train, digits = stack(arrays["x_train"], STACKED_ROWS, seed), _digits(arrays, "train")
        real = stack(arrays["x_test"], STACKED_DRAWN, seed)
    judge = _judge(digits, keep / "judge.safetensors")
    torch.manual_seed(seed_of(seed, "weights"))
    network = catalog.build_model(kind, STACKED, settings)
    twin = catalog.build_model(kind, STACKED, settings).eval()

    def count(weights: dict[str, torch.Tensor]) -> dict[str, Any]:
        twin.load_state_dict(weights)
        return stacked_figures(judge, drawn(twin, SEEN_DRAWN))

    usual = {
        "batch_size": 64,
        "patience": 1000,
        "max_epochs": 1000,
        "evaluations": 16 if seconds == USUAL else 8,
    }
    how = FitSettings(**usual | fit, max_seconds=seconds, seed=seed)
    kept = Kept(keep / f"{name}.safetensors", count)
    progress = CpuFit(network, train[3000:], train[:3000], how, kept).run()
    made = drawn(network, STACKED_DRAWN)
    return stacked_figures(judge, made) | {
        "real": stacked_figures(judge, real),
        "cpu_seconds": round(kept.used, 1),
        "steps": progress.step,
        "best_step": progress.best_step,
        "history": progress.history,
    }


def _digits(arrays: Any, part: str) -> np.ndarray:
    pictures = arrays[f"x_{part}"].reshape(-1, 784)
    return np.concatenate([arrays[f"y_{part}"][:, None].astype(np.uint8), pictures], 1)


def _judge(digits: np.ndarray, kept: Path) -> Classifier:
    if kept.exists():
        judge = Classifier(DIGIT)
        judge.load_state_dict(load_file(kept))
        return judge.eval()
    judge = fitted(DIGIT, digits, seed=0, epochs=2, evaluations=4)
    save_file(judge.state_dict(), kept)
    return judge


@torch.inference_mode()
def drawn(model: Any, rows: int) -> np.ndarray:
    """Records (rows, 3 * 784), uint8."""
    parts = [
        model.sample(500, torch.Generator().manual_seed(seed_of(1, "draw", n)))
        for n in range(-(-rows // 500))
    ]
    return torch.cat(parts)[:rows].numpy().astype(np.uint8)


@torch.inference_mode()
def stacked_modes(judge: Classifier, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mode 0 .. 999 of each record, and whether the classifier is sure of all three digits."""
    digits = torch.from_numpy(x.reshape(-1, 784))
    digits = torch.cat([torch.zeros(len(digits), 1, dtype=torch.uint8), digits], 1)
    shares = torch.cat([judge.logits(part.long()).softmax(1) for part in digits.split(1500)])
    sure, digit = shares.max(1)
    modes = digit.view(-1, 3).numpy() @ np.array([100, 10, 1])
    return modes, (sure.view(-1, 3) >= SURE).all(1).numpy()


if __name__ == "__main__":
    main()
