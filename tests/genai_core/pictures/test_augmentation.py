"""DiffAugment: what the steps do, that they are differentiable, that nothing happens without a policy."""

from __future__ import annotations

import pytest
import torch

from genai_core.pictures.augmentation import COLOUR_POLICY, GREY_POLICY, STEPS, augment, cutout, translation


def pictures(batch: int = 4, channels: int = 3, height: int = 9, width: int = 6) -> torch.Tensor:
    return torch.rand(batch, channels, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_no_policy_changes_nothing() -> None:
    x = pictures()
    assert torch.equal(augment(x, ()), x)


@pytest.mark.parametrize("policy", [*((name,) for name in STEPS), COLOUR_POLICY, GREY_POLICY])
def test_every_step_changes_pictures_and_is_differentiable_twice(policy: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    x = pictures(16).requires_grad_(True)
    y = augment(x, policy)
    assert y.shape == x.shape
    assert not torch.equal(y, x)
    (first,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), x)
    assert torch.isfinite(second).all() and second.abs().sum() > 0


def test_translation_moves_whole_pictures_by_at_most_an_eighth() -> None:
    torch.manual_seed(0)
    x = torch.zeros(200, 1, 16, 24)
    x[:, :, 8, 12] = 1
    moved = translation(x).flatten(1)
    assert (moved.sum(1) == 1).all()
    assert (moved.argmax(1) // 24).unique().tolist() == [6, 7, 8, 9, 10]
    assert (moved.argmax(1) % 24).unique().tolist() == [9, 10, 11, 12, 13, 14, 15]


def test_cutout_empties_a_rectangle_of_half_the_sides_in_all_channels() -> None:
    torch.manual_seed(0)
    x = torch.ones(300, 3, 8, 10)
    hole = cutout(x) == 0
    assert torch.equal(hole[:, 0], hole[:, 2])
    assert hole[:, 0].any(2).sum(1).max() == 4
    assert hole[:, 0].any(1).sum(1).max() == 5
    assert (hole[:, 0].sum((1, 2)) == 20).any()


def test_the_same_seed_augments_alike() -> None:
    torch.manual_seed(1)
    first = augment(pictures(), COLOUR_POLICY)
    torch.manual_seed(1)
    assert torch.equal(first, augment(pictures(), COLOUR_POLICY))
