"""Pictures of 64 x 64 in colour as codes: what the codes keep, nats a code, and how good samples are.

python -m benchmarks.codes --data DIR      DIR/textures/brick.png, grass.png, gravel.png (scikit-image's, CC0)

Two photographs of scikit-learn (china.jpg, flower.jpg) are two more classes. All pieces for training come from the left
of each picture, those for the choice of settings from its middle, those for the test from its right.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import Tensor

import genai_core as genai
from benchmarks import record
from benchmarks.classifier import accuracy, fitted
from genai_core.evaluation.frechet import apart
from genai_core.networks.picture_features import PictureFeatures
from genai_core.pictures import codes
from genai_core.spaces import Grid

SIDE = 64
TEXTURES, PHOTOGRAPHS = ("brick", "grass", "gravel"), ("china", "flower")
CLASSES = (*TEXTURES, *PHOTOGRAPHS)
PARTS = {"train": (0.0, 0.6), "validation": (0.6, 0.8), "test": (0.8, 1.0)}  # of a picture's width
SMALL = Grid(3, 32, 32, classes=len(CLASSES))  # what the classifier sees
MADE = 50  # a class


def main() -> None:
    """Fit codec and model, measure on the test pieces, record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--pieces", type=int, default=300, help="for training, of each picture")
    parser.add_argument("--codes", type=int, default=512)
    parser.add_argument("--factor", type=int, default=8)
    parser.add_argument("--steps", type=int, default=1200, help="of the autoencoder")
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--even", type=float, default=codes.EVEN, help="weight of what keeps codes in use")
    parser.add_argument("--epochs", type=int, default=6, help="of the transformer")
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--dropout", type=float, default=0.2)
    parser.add_argument("--keep", type=Path, help="folder that keeps the model for another run")
    parser.add_argument("--pilot", action="store_true", help="validation pieces only, nothing is kept")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    codes.EVEN = chosen.even
    sources = pictures(chosen.data / "textures")
    train = pieces(sources, "train", chosen.pieces, 0)
    part = "validation" if chosen.pilot else "test"
    held_out = pieces(sources, part, MADE, 1)
    model = kept_or_learnt(train, chosen)
    figures = {"part": part, **model.provenance["benchmark"], "notes": list(model.codec.notes)}
    figures |= kept_by_codes(model, held_out) | likelihood(model, held_out)
    made, drawing = timed(lambda: samples(model))
    figures |= judged(model, made, sources, train, held_out) | {"sample_cpu_seconds": drawing}
    if chosen.pilot:
        print(figures)
    else:
        sheet(model, made, held_out).save(record.RESULTS / "codes.jpg", quality=90)
        record.save(
            "codes", figures, **{k: v for k, v in vars(chosen).items() if k not in ("data", "keep", "pilot")}
        )


def timed(work: Any) -> tuple[Any, float]:
    """What `work` returns and the CPU-seconds it took."""
    start = time.process_time()
    return work(), round(time.process_time() - start, 1)


def pictures(folder: Path) -> list[np.ndarray]:
    """uint8 (height, width, 3) of each class."""
    grey = [np.asarray(Image.open(folder / f"{name}.png").convert("RGB")) for name in TEXTURES]
    return [*grey, *load_sample_images().images]


def pieces(sources: list[np.ndarray], part: str, each: int, seed: int) -> pa.Table:
    """SIDE x SIDE pixels from anywhere in a part of each picture, in the order of the classes."""
    random = np.random.default_rng([seed, list(PARTS).index(part)])
    found = []
    for source in sources:
        first, last = (round(share * source.shape[1]) for share in PARTS[part])
        for _ in range(each):
            top = random.integers(source.shape[0] - SIDE + 1)
            left = random.integers(first, last - SIDE + 1)
            found.append(source[top : top + SIDE, left : left + SIDE])
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(np.stack(found))
    return pa.table({"picture": tensors, "class": np.repeat(CLASSES, each)})


def kept_or_learnt(train: pa.Table, chosen: argparse.Namespace) -> genai.FittedModel:
    """The model, fitted unless an earlier run has kept it."""
    if chosen.keep and chosen.keep.exists():
        return genai.load(chosen.keep)
    model, seconds = timed(lambda: learnt(train, chosen))
    model.provenance["benchmark"] = {"fit_cpu_seconds": seconds}
    if chosen.keep:
        model.save(chosen.keep)
    return model


def learnt(train: pa.Table, chosen: argparse.Namespace) -> genai.FittedModel:
    """The autoencoder and the transformer of its codes; a tenth of the pieces decides when to stop."""
    order = np.random.default_rng(0).permutation(train.num_rows)
    return genai.fit(
        train.take(pa.array(order)),
        "autoregressive",
        modality={
            "kind": "image_codes",
            "label": "class",
            "codes": chosen.codes,
            "factor": chosen.factor,
            "channels": chosen.channels,
            "steps": chosen.steps,
        },
        model={"hidden": chosen.hidden, "layers": chosen.layers, "dropout": chosen.dropout},
        max_epochs=chosen.epochs,
        evaluations=12,
        seed=0,
    )


def pixels_of(table: pa.Table) -> np.ndarray:
    """uint8 (rows, 3, SIDE, SIDE)."""
    return table["picture"].combine_chunks().to_numpy_ndarray().transpose(0, 3, 1, 2)


def kept_by_codes(model: genai.FittedModel, held_out: pa.Table) -> dict[str, Any]:
    """Peak signal-to-noise ratio of held-out pieces, by class, and how many codes they use."""
    records = model.codec.encode(held_out)
    made = model.codec.pixels(records.tokens)
    errors = np.square(made.astype(float) - pixels_of(held_out)).mean((1, 2, 3))
    by_class = errors.reshape(len(CLASSES), -1).mean(1)
    share = np.bincount(records.tokens[:, 1:].ravel()) / records.tokens[:, 1:].size
    entropy = float(-(share[share > 0] * np.log(share[share > 0])).sum())
    return {
        "psnr": round(decibels(errors.mean()), 2),
        "psnr_by_class": {n: round(decibels(e), 2) for n, e in zip(CLASSES, by_class, strict=True)},
        "codes_a_picture": records.tokens.shape[1] - 1,
        "codes_used": int((share > 0).sum()),
        "perplexity_of_codes": round(float(np.exp(entropy)), 1),
        "entropy_of_codes": round(entropy, 3),
    }


def decibels(error: float) -> float:
    """Peak signal-to-noise ratio of a mean squared error of bytes."""
    return float(10 * np.log10(255**2 / error))


def likelihood(model: genai.FittedModel, held_out: pa.Table) -> dict[str, float]:
    """Nats a code given those before it, the label apart."""
    name = "negative_log_likelihood"
    shares = model.score(held_out, [name]).per_column[name]
    return {"nats_a_code": round(float(shares[:, 1].mean() / (model.codec.space.entries - 1)), 3)}


def samples(model: genai.FittedModel) -> pa.Table:
    """MADE pictures of every class."""
    parts = [model.sample(MADE, seed=number, where={"class": n}) for number, n in enumerate(CLASSES)]
    return pa.concat_tables(parts)


def judged(
    model: genai.FittedModel,
    made: pa.Table,
    sources: list[np.ndarray],
    train: pa.Table,
    held_out: pa.Table,
) -> dict[str, Any]:
    """Frechet distances to fresh pieces of the training parts; and whether a classifier of real ones knows them."""
    fresh, others = (pieces(sources, "train", MADE, seed) for seed in (2, 3))
    through = model.codec.decode(model.codec.encode(others).tokens, np.random.default_rng(0))
    found = {}
    for name, table in (("samples", made), ("reconstructions", through), ("other_part", held_out)):
        result = apart(features(table), features(fresh), features(others))
        found[f"frechet_ratio_of_{name}"] = round(result.ratio, 2)
    judge = fitted(SMALL, small(train), seed=0, epochs=3, evaluations=3)
    for name, table in (("samples", made), ("real", held_out)):
        found[f"recognised_{name}"] = round(accuracy(judge, small(table)), 3)
    return found


@torch.inference_mode()
def features(table: pa.Table) -> np.ndarray:
    """Of untrained convolutions, see `PictureFeatures`."""
    x: Tensor = torch.from_numpy(pixels_of(table).astype(np.float32)) / 127.5 - 1
    return torch.cat([PictureFeatures(3)(part) for part in x.split(128)]).double().numpy()


def small(table: pa.Table) -> np.ndarray:
    """Records (rows, entries) of SMALL."""
    pixels = pixels_of(table).reshape(-1, 3, 32, 2, 32, 2).mean((3, 5)).round().astype(np.uint8)
    labels = np.array([CLASSES.index(name) for name in table["class"].to_pylist()], np.uint8)
    return np.concatenate([labels[:, None], pixels.reshape(len(pixels), -1)], 1)


def sheet(model: genai.FittedModel, made: pa.Table, held_out: pa.Table, across: int = 4) -> Image.Image:
    """For every class a row: real pieces, the same from their codes, samples."""
    through = model.codec.decode(model.codec.encode(held_out).tokens, np.random.default_rng(0))
    rows = []
    for number in range(len(CLASSES)):
        one = slice(number * MADE, number * MADE + across)
        tiles = [picture for table in (held_out, through, made) for picture in pixels_of(table)[one]]
        rows.append(np.concatenate(tiles, 2))
    return Image.fromarray(np.concatenate(rows, 1).transpose(1, 2, 0))


if __name__ == "__main__":
    main()
