"""A small table of every modality, the settings that read it, and families small enough to learn it in a test."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import soundfile
from PIL import Image

from genai_core import catalog
from tests.contract.spaces import small_table


def pictures(rows: int = 60, seed: int = 0) -> pa.Table:
    """8 x 8 PNG: a bright bar, upright or lying, which is the label."""
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 40, (rows, 8, 8)).astype(np.uint8)
    lying = random.random(rows) < 0.5
    for row, at in enumerate(random.integers(1, 6, rows)):
        (pixels[row] if lying[row] else pixels[row].T)[at : at + 2] += 200
    cells = [encoded(picture) for picture in pixels]
    return pa.table({"picture": cells, "bar": np.where(lying, "lying", "upright")})


def encoded(picture: np.ndarray) -> bytes:
    """PNG of uint8 pixels (height, width) or (height, width, 3)."""
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "PNG")
    return out.getvalue()


def texts(rows: int = 60, seed: int = 0) -> pa.Table:
    """Short sentences, and who says them."""
    random = np.random.default_rng(seed)
    who = random.choice(["cat", "dog"], rows)
    said = [
        f"the {w} says {'miau' if w == 'cat' else 'wuff'} {'!' * n}"
        for w, n in zip(who, random.integers(0, 3, rows), strict=True)
    ]
    return pa.table({"said": said, "who": who})


def sounds(rows: int = 60, seed: int = 0) -> pa.Table:
    """An eighth of a second of a low or a high tone, as WAV."""
    random = np.random.default_rng(seed)
    high = random.random(rows) < 0.5
    encoded = []
    for one in high:
        out = io.BytesIO()
        tone = np.sin(np.arange(250) * (0.9 if one else 0.3) + random.random()) * random.uniform(0.3, 0.8)
        soundfile.write(out, tone, 2000, format="WAV")
        encoded.append(out.getvalue())
    return pa.table({"clip": encoded, "pitch": np.where(high, "high", "low")})


class Case(NamedTuple):
    """A modality with a table of it."""

    table: Callable[..., pa.Table]
    modality: dict[str, Any]


CASES = {
    "audio": Case(sounds, {"kind": "audio", "label": "pitch", "seconds": 0.125, "mels": 16}),
    "image": Case(pictures, {"kind": "image", "label": "bar"}),
    "image_codes": Case(
        pictures,
        {"kind": "image_codes", "label": "bar", "codes": 64, "factor": 4, "channels": 8, "steps": 20},
    ),
    "tabular": Case(small_table, {"kind": "tabular"}),
    "text": Case(texts, {"kind": "text", "label": "who", "length": 40}),
}
SMALL: dict[str, dict[str, Any]] = {
    "autoregressive": {"hidden": 16, "layers": 1, "context": 16},
    "cyclegan": {"channels": 4, "blocks": 1},
    "dcgan": {"latent": 4, "channels": 4},
    "gan": {"latent": 4, "hidden": 16, "channels": 4},
    "vae": {"latent": 4, "hidden": 16, "channels": 4, "importance_samples": 2},
}
PAIRS = [
    (kind, modality)
    for kind in catalog.MODELS
    for modality in catalog.MODALITIES
    if modality in catalog.FAMILIES[kind].scores
]
