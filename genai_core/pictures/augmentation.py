"""Differentiable augmentation of pictures for adversarial training (DiffAugment: Zhao et al. 2020)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

SHIFT = 1 / 8  # largest translation, share of the side
HOLE = 1 / 2  # side of the cut-out square, share of the picture's
GREY_POLICY = ("translation", "cutout")
COLOUR_POLICY = ("colour", *GREY_POLICY)


def augment(pictures: Tensor, policy: Sequence[str]) -> Tensor:
    """Randomly changed pictures (batch, channels, height, width) in -1 .. 1, differentiable twice.

    Critics that see real and made pictures only like this cannot learn few real ones by heart. policy: names of
    STEPS, done in that order; nothing changes when it is empty. Randomness: torch's global generator.
    """
    for name in policy:
        pictures = STEPS[name](pictures)
    return pictures


def colour(pictures: Tensor) -> Tensor:
    """Brightness +- .5, saturation 0 .. 2, contrast .5 .. 1.5."""
    pictures = pictures + _uniform(pictures) - 0.5
    grey = pictures.mean(1, keepdim=True)
    pictures = (pictures - grey) * (2 * _uniform(pictures)) + grey
    level = pictures.mean((1, 2, 3), keepdim=True)
    return (pictures - level) * (_uniform(pictures) + 0.5) + level


def translation(pictures: Tensor) -> Tensor:
    """Shifts by up to an eighth of the sides; what comes in from outside is 0, mid-grey."""
    rows, columns = (_shifts(len(pictures), side, pictures) for side in pictures.shape[2:])
    return rows.unsqueeze(1) @ pictures @ columns.unsqueeze(1).mT


def cutout(pictures: Tensor) -> Tensor:
    """A rectangle of half the sides, anywhere, also in part outside, becomes 0 (DeVries & Taylor 2017)."""
    rows, columns = (_hole(len(pictures), side, pictures) for side in pictures.shape[2:])
    return pictures * (1 - rows.unsqueeze(2) * columns.unsqueeze(1)).unsqueeze(1)


STEPS = {"colour": colour, "translation": translation, "cutout": cutout}


def _uniform(pictures: Tensor) -> Tensor:
    return torch.rand(len(pictures), 1, 1, 1, device=pictures.device)


def _shifts(batch: int, side: int, like: Tensor) -> Tensor:
    """Matrices (batch, side, side) that shift a side: products are cheaper than gathers, and differentiable twice."""
    reach = int(side * SHIFT + 0.5)
    shift = torch.randint(-reach, reach + 1, (batch, 1, 1), device=like.device)
    place = torch.arange(side, device=like.device)
    return (place.view(1, side, 1) - place.view(1, 1, side) == shift).to(like)


def _hole(batch: int, side: int, like: Tensor) -> Tensor:
    """1 inside the cut-out stretch of a side, (batch, side)."""
    size = int(side * HOLE + 0.5)
    start = torch.randint(0, side + 1 - size % 2, (batch, 1), device=like.device) - size // 2
    place = torch.arange(side, device=like.device)
    return ((place >= start) & (place < start + size)).to(like)
