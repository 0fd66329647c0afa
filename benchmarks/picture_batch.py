"""Pictures through generate and score jobs against a plain torch loop of the same network: >= 0.9 of its rate.

python -m benchmarks.picture_batch [--pictures 8192] [--repeats 5]

Both do the same work from one fitted model: draw pictures, encode them as PNG, write Parquet; read Parquet, decode,
reconstruct, write a score a row. The job also writes footers, records, p-values and the manifest. Both run alone, in
turns; what counts is the difference between two sizes, so that starting Python and loading the model do not.
"""

from __future__ import annotations

import argparse
import io
import shutil
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.batch import run
from benchmarks.process_tree import watch
from benchmarks.record import save, spread

SEED, BATCH, SHARDS = 7, 256, (1, 4)
SCORE = "reconstruction"


def main() -> None:
    """Measure, or be one of the plain loops that are measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=int, default=8192, help="of a shard")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--work", type=Path, default=Path("/tmp/genai-pictures"))
    parser.add_argument("--plain", choices=("generate", "score"), help=argparse.SUPPRESS)
    parser.add_argument("--shards", type=int, default=1, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.plain:
        {"generate": plain_generate, "score": plain_score}[chosen.plain](chosen)
        return
    prepare(chosen.work)
    figures = {verb: compare(verb, chosen) for verb in ("generate", "score")}
    save("picture_batch", figures, seed=SEED, pictures_per_shard=chosen.pictures, repeats=chosen.repeats)


def prepare(work: Path) -> None:
    """A model of scikit-learn's digits, at 32 x 32 pixels: what it is worth does not matter here."""
    if (work / "model").exists():
        return
    import genai_core
    from genai_core.threads import denormals_flushed

    work.mkdir(parents=True, exist_ok=True)
    reading = {"kind": "image", "label": "digit"}
    with denormals_flushed():
        model = genai_core.fit(digits(), "vae", modality=reading, seed=SEED, max_epochs=4)
    model.save(work / "model")


def digits() -> pa.Table:
    """PNG bytes and labels."""
    from PIL import Image
    from sklearn.datasets import load_digits

    found = load_digits()
    pixels = np.kron((found.images * (255 / 16)).astype(np.uint8), np.ones((4, 4), np.uint8))
    return pa.table({"image": [png(Image.fromarray(one)) for one in pixels], "digit": found.target})


def png(image: Any) -> bytes:
    """Encoded bytes."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def compare(verb: str, chosen: argparse.Namespace) -> dict[str, Any]:
    """CPU-seconds a shard of the job and of the loop, and pictures per CPU-second."""
    found: dict[str, list[float]] = {"job": [], "plain": []}
    for _ in range(chosen.repeats):
        for name, cost in (("job", job_cost), ("plain", plain_cost)):
            few, many = (cost(verb, shards, chosen) for shards in SHARDS)
            found[name].append((many - few) / (SHARDS[1] - SHARDS[0]))
    medians = {name: statistics.median(values) for name, values in found.items()}
    return {
        "cpu_seconds_per_shard": {name: spread(values) for name, values in found.items()},
        "pictures_per_cpu_second": {name: round(chosen.pictures / m) for name, m in medians.items()},
        "rate_of_the_plain_loop": round(medians["plain"] / medians["job"], 3),
    }


def job_cost(verb: str, shards: int, chosen: argparse.Namespace) -> float:
    """CPU-seconds of `genai run`."""
    shutil.rmtree(chosen.work / verb, ignore_errors=True)
    job: dict[str, Any] = {"job": verb, "model": "model", "sink": {"path": verb}, "track": {"enabled": False}}
    if verb == "generate":
        job |= {"rows": shards * chosen.pictures, "seed": SEED, "rows_per_shard": chosen.pictures}
    else:
        job |= {"source": {"kind": "parquet", "path": f"made-{shards}"}, "scores": [SCORE], "top_k": 1}
    return run(chosen.work, job).cpu_seconds


def plain_cost(verb: str, shards: int, chosen: argparse.Namespace) -> float:
    """CPU-seconds of the loops below; the one that generates leaves what both score."""
    words = ["--plain", verb, "--shards", str(shards), "--pictures", str(chosen.pictures)]
    command = [sys.executable, "-m", "benchmarks.picture_batch", *words, "--work", str(chosen.work)]
    return watch(command, cwd=Path(__file__).parents[1]).cpu_seconds


def plain_generate(chosen: argparse.Namespace) -> None:
    """Draw, encode, write."""
    import torch
    from PIL import Image

    model, values = fitted(chosen.work)
    out = chosen.work / f"made-{chosen.shards}"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    for shard in range(chosen.shards):
        generator = torch.Generator().manual_seed(shard)
        images, labels = [], []
        with torch.inference_mode():
            for _ in range(chosen.pictures // BATCH):
                x = model.model.sample(BATCH, generator).numpy()
                pixels = x[:, 1:].astype(np.uint8).reshape(-1, *model.codec.space.shape[1:])
                images += [png(Image.fromarray(one)) for one in pixels]
                labels.append(values[x[:, 0]])
        table = pa.table({"image": images, "digit": np.concatenate(labels)})
        pq.write_table(table, out / f"{shard}.parquet", compression="zstd")


def plain_score(chosen: argparse.Namespace) -> None:
    """Read, decode, reconstruct, write."""
    import torch
    from PIL import Image

    model, values = fitted(chosen.work)
    out = chosen.work / "plain"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    for shard in range(chosen.shards):
        table = pq.read_table(chosen.work / f"made-{chosen.shards}" / f"{shard}.parquet")
        pixels = np.stack([np.asarray(Image.open(io.BytesIO(b.as_py()))) for b in table.column("image")])
        labels = np.searchsorted(values, table.column("digit").to_numpy())
        x = torch.from_numpy(
            np.concatenate([labels[:, None], pixels.reshape(len(pixels), -1)], 1).astype(np.int64)
        )
        with torch.inference_mode():
            scores = torch.cat([-model.model.reconstruct(part).sum(1) for part in x.split(BATCH)])
        made = pa.table({"row": np.arange(len(x)), SCORE: scores.numpy().astype(np.float64)})
        pq.write_table(made, out / f"{shard}.parquet", compression="zstd")


def fitted(work: Path) -> tuple[Any, np.ndarray]:
    """The model on one thread, and the labels' values."""
    import torch

    from genai_core import load

    torch.set_num_threads(1)
    model = load(work / "model")
    return model, model.codec.classes.values.to_numpy()  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
