"""Draw docs/judging.png: what people see of a blind test, of real digits and of a model's that learnt for minutes.

python docs/judge_page.py --data DIR      DIR/mnist/mnist.npz; needs Chromium
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

import genai_core
from genai_core.pictures.encoded import png
from pipelines import judge
from pipelines.context import Context
from pipelines.judge import JudgeJob

ROOT = Path(__file__).parent.parent
ROWS, EPOCHS, SEED = 6000, 12, 7


def main() -> None:
    """Train, generate, write the pages, photograph them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        with np.load(chosen.data / "mnist" / "mnist.npz") as file:
            digits = file["x_train"][:ROWS]
        real = pa.table({"digit": [png(Image.fromarray(digit)) for digit in digits]})
        settings = {"kind": "image"}
        model = genai_core.fit(real, "vae", modality=settings, seed=SEED, max_epochs=EPOCHS)
        pq.write_table(real, folder / "real.parquet")
        pq.write_table(model.sample(200, seed=SEED), folder / "made.parquet")
        sources = {
            label: {"kind": "parquet", "path": str(folder / f"{name}.parquet")}
            for label, name in (("real", "real"), ("synthetic", "made"))
        }
        job = {**sources, "modality": settings, "neighbours": 8, "sink": {"path": str(folder / "out")}}
        judge.run(JudgeJob.model_validate(job), Context())
        shots = [photograph(folder, page, *size) for page, size in PAGES.items()]
    stacked(shots).save(ROOT / "docs" / "judging.png", optimize=True)


PAGES = {"blind.html": (900, 620), "neighbours.html": (900, 560)}


def photograph(folder: Path, page: str, width: int, height: int) -> Image.Image:
    """What Chromium shows of a page."""
    shot = folder / f"{page}.png"
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += [f"--window-size={width},{height}", f"--user-data-dir={folder / 'profile'}"]
    command += [f"--screenshot={shot}", f"file://{folder / 'out' / page}"]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return Image.open(io.BytesIO(shot.read_bytes())).convert("RGB")


def stacked(shots: list[Image.Image]) -> Image.Image:
    """One above the other."""
    sheet = Image.new("RGB", (max(s.width for s in shots), sum(s.height for s in shots)), (255, 255, 255))
    top = 0
    for shot in shots:
        sheet.paste(shot, (0, top))
        top += shot.height
    return sheet.quantize(64)


if __name__ == "__main__":
    sys.exit(main())
