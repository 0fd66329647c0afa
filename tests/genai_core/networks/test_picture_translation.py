"""CycleGAN's networks: the shape of what they are given, near the identity at first, on the levels of the space."""

from __future__ import annotations

import pytest
import torch

from genai_core.hyperparameters import Cyclegan as Settings
from genai_core.networks.levels import scaled, whole
from genai_core.networks.picture_translation import PatchDiscriminator, TranslationGenerator
from genai_core.spaces import Grid

SMALL = Settings(channels=4, blocks=1)
SIZES = [(1, 8, 8), (1, 9, 13), (3, 16, 10), (1, 28, 28), (3, 65, 70)]


def some(space: Grid, rows: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    levels = torch.randint(0, space.levels, (rows, space.size), generator=generator)
    return scaled(levels, space)


@pytest.mark.parametrize("shape", SIZES)
def test_any_size_from_8_by_8(shape: tuple[int, int, int]) -> None:
    space = Grid(*shape, classes=2)
    pictures = some(space)
    assert TranslationGenerator(space, SMALL)(pictures).shape == pictures.shape
    judged = PatchDiscriminator(space, SMALL)(pictures)
    assert judged.dim() == 2
    assert len(judged) == 3
    assert judged.shape[1] >= 4  # patches, not one verdict


def test_it_starts_near_the_identity() -> None:
    torch.manual_seed(0)
    space = Grid(1, 16, 16, classes=2)
    pictures = some(space, 32)
    made = TranslationGenerator(space, Settings(channels=8))(pictures)
    assert (made - pictures).abs().mean() < 0.1  # of 2


@pytest.mark.parametrize("levels", [2, 256])
def test_what_is_made_lies_on_the_levels_and_has_a_gradient(levels: int) -> None:
    space = Grid(1, 8, 8, levels=levels, classes=2)
    network = TranslationGenerator(space, SMALL)
    made = network(some(space))
    torch.testing.assert_close(made, scaled(whole(made, space), space), atol=1e-5, rtol=0)
    made.mean().backward()
    last = [p for p in network.parameters() if p.grad is not None and p.grad.abs().sum() > 0]
    assert last
