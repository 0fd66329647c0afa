"""Training sabotaged on purpose, and healthy training: which monitor says what, falsely or not, and what looking costs.

healthy   every family on tables, pictures, sounds' spectrograms or texts, several seeds: what warns and what acts
matrix    sabotage x monitor: each begins in the middle of a fit, and has one validation to be found
cost      CPU-seconds of the monitors as a share of the fit's
--data is a folder with adult/, fashion_mnist/ and text/; only a few thousand records of each are used.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch

from benchmarks import record
from benchmarks.sabotage_kinds import KINDS
from genai_core import catalog
from genai_core.errors import TrainingFailed
from genai_core.hyperparameters import FitSettings
from genai_core.loop import Fit, Progress
from genai_core.monitors.health import Health
from genai_core.spaces import Grid
from genai_core.train import as_table, modality_settings, new_model, split
from pipelines.training.allocator import keep_freed_memory

ROWS = {"adult": 6000, "small": 1500, "fashion": 3000, "names": 3000}
CLOTHES = ("T-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
SMALL_PICTURES = {"channels": 8, "hidden": 64}
# family, data, settings of the model, of the fit
HEALTHY: dict[str, tuple[str, str, dict[str, Any], dict[str, Any]]] = {
    "autoregressive tables": ("autoregressive", "adult", {}, {"max_epochs": 12}),
    "autoregressive small tables": ("autoregressive", "small", {}, {"max_epochs": 12}),
    "vae tables": ("vae", "adult", {}, {"max_epochs": 16}),
    "vae small tables": ("vae", "small", {}, {"max_epochs": 16}),
    "gan tables": ("gan", "adult", {}, {"max_epochs": 16}),
    "wgan tables": ("gan", "adult", {"loss": "wasserstein", "gamma": 10.0, "pac": 1}, {"max_epochs": 6}),
    "autoregressive texts": ("autoregressive", "names", {"hidden": 32, "layers": 2}, {"max_epochs": 4}),
    "vae texts": ("vae", "names", {"hidden": 64, "latent": 8}, {"max_epochs": 4}),
    "gan texts": ("gan", "names", {"hidden": 64, "latent": 16}, {"max_epochs": 4}),
    "vae pictures": ("vae", "fashion", SMALL_PICTURES, {"max_epochs": 6}),
    "gan pictures": ("gan", "fashion", SMALL_PICTURES, {"max_epochs": 8}),
    "dcgan pictures": ("dcgan", "fashion", {"channels": 16}, {"max_epochs": 12}),
    "cyclegan pictures": ("cyclegan", "domains", {"channels": 4, "blocks": 1}, {"max_epochs": 3}),
}


def main() -> None:
    """One JSON file each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("healthy", "matrix", "cost"))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--fits", help="some of them, with commas between")
    args = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    if args.what == "matrix":
        matrix(args.data, args.fits)
        return
    names = args.fits.split(",") if args.fits else list(HEALTHY)
    path = record.RESULTS / "sabotage_healthy.json"
    found = json.loads(path.read_text())["figures"] if args.fits and path.exists() else {}
    for name in names:
        runs = [healthy(name, args.data, seed) for seed in range(args.seeds if args.what == "healthy" else 1)]
        found[name] = {
            "runs": runs,
            "cost": round(sum(r["looking"] for r in runs) / sum(r["seconds"] for r in runs), 4),
        }
        print(name, found[name], flush=True)
    record.save("sabotage_healthy", found, "sabotage", fits=HEALTHY)


# -- fits ----------------------------------------------------------------------------------------------------


def records(name: str, data: Path, kind: str, seed: int) -> tuple[Any, np.ndarray]:
    """A codec's or a grid's space, and records."""
    if name in ("fashion", "domains"):
        return fashion(data, name, seed)
    if name == "names":
        words = (data / "text" / "names.txt").read_text().split()[: ROWS[name]]
        table = pa.table({"text": words})
        reading: Any = {"kind": "text", "length": 16}
    else:
        frame = pd.read_csv(data / "adult" / "train.csv").sample(ROWS[name], random_state=seed)
        table, reading = as_table(frame.reset_index(drop=True)), {"kind": "tabular"}
    settings = modality_settings(reading, kind, seed)
    codec = catalog.codec_class(settings.kind).fit(table.to_batches(), table.schema, settings)
    return codec.space, codec.encode(table).tokens


def fashion(data: Path, name: str, seed: int) -> tuple[Grid, np.ndarray]:
    """Pictures of 14 x 14 with their labels; of two domains: shirts and shoes."""
    with gzip.open(data / "fashion_mnist" / "train-images-idx3-ubyte.gz") as file:
        pictures = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28)
    with gzip.open(data / "fashion_mnist" / "train-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)
    small = pictures.reshape(-1, 14, 2, 14, 2).mean((2, 4)).astype(np.uint8).reshape(-1, 196)
    x = np.concatenate([labels[:, None], small], 1)
    if name == "domains":
        x = x[np.isin(x[:, 0], (0, 7))]
        x[:, 0] = x[:, 0] == 7
    chosen = np.random.default_rng(seed).permutation(len(x))[: ROWS["fashion"]]
    labels = ("shirt", "sneaker") if name == "domains" else CLOTHES
    return Grid(1, 14, 14, classes=len(labels), class_names=labels), x[chosen]


class Bare:
    """What `new_model` asks of a codec."""

    def __init__(self, space: Any) -> None:
        self.space = space


def new_fit(
    kind: str, name: str, data: Path, model: dict[str, Any], settings: dict[str, Any], rows: int | None = None
) -> Fit:
    """A fit that has not begun."""
    how = FitSettings(**settings)
    space, x = records(name, data, kind, how.seed)
    x = x[:rows]
    out = split(np.arange(len(x)), how)
    network = new_model(kind, Bare(space), model, how.seed)  # type: ignore[arg-type]
    return Fit(network, x[~out], x[out], how)


@contextlib.contextmanager
def timed(spent: list[float]) -> Iterator[None]:
    """Adds the CPU-seconds of everything that `Health` does."""
    kept = {name: getattr(Health, name) for name in ("read", "beat")}

    def measured(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            start = time.process_time()
            try:
                return method(*arguments, **named)
            finally:
                spent[0] += time.process_time() - start

        return call

    for name, method in kept.items():
        setattr(Health, name, measured(method))
    try:
        yield
    finally:
        for name, method in kept.items():
            setattr(Health, name, method)


def healthy(name: str, data: Path, seed: int) -> dict[str, Any]:
    """What was said of an undisturbed fit, and what looking has cost."""
    kind, of, model, fit = HEALTHY[name]
    spent = [0.0]
    one = new_fit(kind, of, data, model, {"seed": seed, "validation_fraction": 0.2, **fit})
    start = time.process_time()
    with timed(spent):
        progress = one.run()
    seconds = time.process_time() - start
    events = [
        [e["step"], e["level"], e["name"], round(e["value"], 3), e["did"]] for e in progress.health["events"]
    ]
    return {
        "seconds": round(seconds, 2),
        "looking": round(spent[0], 3),
        "steps": progress.step,
        "best": round(progress.best, 4),
        "best_step": progress.best_step,
        "rows_looked_at": one.health.rows if one.health.looks else 0,
        "events": events,
        "last": last(progress),
    }


# -- sabotage ------------------------------------------------------------------------------------------------

BEGINS = 0.55  # of the fit: right after the next validation
# sabotage -> the families it is done to, as named in HEALTHY; set-ups beside what is done in the middle
DONE_TO = {
    "learning rate x 100": ["autoregressive tables", "vae tables", "gan tables"],
    "label leak": ["gan pictures"],
    "not a number": ["autoregressive tables", "gan tables"],
    "collapse": ["gan tables", "vae tables", "gan pictures"],
    "frozen generator": ["gan tables", "autoregressive tables"],
    "memorising": ["gan tables", "vae tables"],
    "dropped class": ["gan pictures", "vae pictures"],
}
SET_UPS: dict[str, tuple[dict[str, Any], int | None]] = {
    "tiny batch": ({"batch_size": 4, "max_epochs": 1}, 500),
    "tiny data": ({"max_epochs": 40}, 150),
}


def matrix(data: Path, chosen: str | None) -> None:
    """Keeps, after each fit: sabotage, family -> what was said within one validation (of set-ups: within the fit).

    chosen: some, with commas between: "collapse", or "collapse: gan tables"
    """
    path = record.RESULTS / "sabotage_matrix.json"
    found: dict[str, Any] = json.loads(path.read_text())["figures"] if chosen and path.exists() else {}
    for kind, names in DONE_TO.items():
        for name in names:
            if chosen is None or {kind, f"{kind}: {name}"} & set(chosen.split(",")):
                found[f"{kind}, {name}"] = spoilt(kind, name, data)
                record.save("sabotage_matrix", found, "sabotage", rows=ROWS["small"])
    for kind, (settings, rows) in SET_UPS.items():
        for name in ("autoregressive tables", "gan tables"):
            if chosen is None or kind in chosen.split(","):
                family, of, model, fit = HEALTHY[name]
                one = new_fit(family, of, data, model, {**fit, "validation_fraction": 0.4, **settings}, rows)
                events = _ran(one)
                found[f"{kind}, {name}"] = {
                    "found": sorted({e["name"] for e in events}),
                    "said": sorted({e["said"] for e in events}),
                    "done": sorted({e["did"] for e in events if e["did"]}),
                }
                record.save("sabotage_matrix", found, "sabotage", rows=ROWS["small"])


def spoilt(kind: str, name: str, data: Path) -> dict[str, Any]:
    """What the monitors said from the beginning of the sabotage to the next validation, and what was done."""
    family, of, model, fit = HEALTHY[name]
    settings = {"seed": 0, "validation_fraction": 0.3, **fit, "max_epochs": 8, "evaluations": 8}
    few = (
        ROWS["small"] if of in ("adult", "small") else None
    )  # a class of a tenth takes ninety records to be missed
    one = new_fit(family, of, data, model, settings, few)
    step, begun = one._step, list[int]()

    def changed(number: int) -> bool:
        if one.progress.done >= BEGINS and not begun and one.progress.history[-1]["step"] == number:
            begun.append(number)
            KINDS[kind](one)
        return step(number)

    one._step = changed  # type: ignore[method-assign]
    events = _ran(one)
    until = begun[0] + one.total_steps / 8 + 1
    before = sorted({e["name"] for e in events if e["step"] <= begun[0]})
    found = [e for e in events if begun[0] < e["step"] <= until]
    return {
        "found": sorted({e["name"] for e in found}),
        "said": sorted({e["said"] for e in found}),
        "done": sorted({e["did"] for e in found if e["did"]}),
        "before": before,
        "read": {s: v for s, v in last(one.progress).items() if v},
    }


def _ran(one: Fit) -> list[dict[str, Any]]:
    with contextlib.suppress(TrainingFailed):
        one.run()
    events: list[dict[str, Any]] = one.progress.health["events"]
    return events


def last(progress: Progress) -> dict[str, float]:
    """The last reading of every signal."""
    found: dict[str, float] = {}
    for entry in progress.history:
        found |= {n.removeprefix("health_"): round(v, 3) for n, v in entry.items() if n.startswith("health_")}
    return found


if __name__ == "__main__":
    main()
