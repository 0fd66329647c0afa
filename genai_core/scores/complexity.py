"""Likelihood corrected for complexity (Serra et al. 2020): nats minus those that a lossless compressor needs.

A model of pictures gives plain ones a high likelihood, whatever they show: raw nats call every MNIST digit more normal
than the Fashion pictures that were learnt. A compressor knows nothing but plainness, so the difference is what the
model knows beyond it.
"""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from genai_core.model import LogProb, Model
from genai_core.pictures.encoded import image_of
from genai_core.scores import State, negative_log_likelihood
from genai_core.scores.negative_log_likelihood import entries as entries

NEEDS = LogProb
UNIT = "nats"
NATS_PER_BYTE = 8 * math.log(2)
COMPRESSORS: tuple[dict[str, Any], ...] = (
    {"format": "PNG", "optimize": True},
    {"format": "WEBP", "lossless": True, "quality": 100},
)


def score(model: Model, x: Tensor, log_measure: Tensor, state: State) -> Tensor:
    """(rows, fields): each field's share; the picture's is what it has in excess of its compressed length."""
    return from_entries(model, x, entries(model, x, state), log_measure)


def from_entries(model: Model, x: Tensor, entries: Tensor, log_measure: Tensor) -> Tensor:
    """(rows, fields), of the nats of each entry."""
    nats = negative_log_likelihood.from_entries(model, x, entries, log_measure)
    nats[:, -1] -= torch.tensor([compressed(picture) for picture in _bytes(model, x)])
    return nats


def _bytes(model: Model, x: Tensor) -> np.ndarray:
    space = model.space
    levels = x[:, space.labelled :].cpu().numpy().reshape(-1, *space.shape)
    return np.rint(levels * (255 / (space.levels - 1))).astype(np.uint8)


def compressed(pixels: np.ndarray) -> float:
    """Nats of the shorter of PNG and lossless WebP; uint8 (channels, height, width)."""
    channels = [pixels] if len(pixels) in (1, 3) else pixels[:, None]
    return sum(_shortest(image_of(channel)) for channel in channels) * NATS_PER_BYTE


def _shortest(image: Image.Image) -> int:
    lengths = []
    for how in COMPRESSORS:
        out = io.BytesIO()
        image.save(out, **how)
        lengths.append(out.tell())
    return min(lengths)
