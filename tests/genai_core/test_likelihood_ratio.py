"""The background of the likelihood ratio: counted neighbours, ends of texts, and what cancels out."""

from __future__ import annotations

import math

import pytest
import torch

from genai_core.scores import likelihood_ratio
from genai_core.spaces import Grid, Sequence


class Uniform:
    """A model to which every value is equally likely."""

    def __init__(self, space: Grid | Sequence, values: int) -> None:
        self.space, self.values = space, values

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        return torch.full(x.shape, -math.log(self.values))


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_the_background_knows_its_neighbours() -> None:
    space = Grid(1, 4, 4, levels=4)
    flat = torch.randint(4, (500, 1), generator=seeded()).expand(-1, 16)  # each picture of one level
    model = Uniform(space, 4)
    state = likelihood_ratio.fit(model, flat, seeded())
    noisy = torch.randint(4, (50, 16), generator=seeded())
    of_flat, of_noisy = (
        likelihood_ratio.score(model, x, torch.zeros(len(x), 1), state) for x in (flat[:50], noisy)
    )
    assert (of_flat > of_noisy.max() + 5).all()  # the same to the model; the background expects what is flat
    found = likelihood_ratio.entries(model, flat[:50], state)
    assert torch.allclose(found.sum(1, keepdim=True), of_flat)


@pytest.mark.parametrize("space", [Grid(3, 5, 4, levels=7), Sequence(11, 6), Sequence(16, 6, ordered=True)])
def test_the_background_is_a_distribution(space: Grid | Sequence) -> None:
    values = space.levels if isinstance(space, Grid) else space.vocabulary
    x = torch.randint(values, (40, space.entries), generator=seeded())
    state = likelihood_ratio.fit(Uniform(space, values), x, seeded())
    total = torch.zeros(len(x))
    for value in range(values):  # of the last entry, which no other depends on
        changed = x.clone()
        changed[:, -1] = value
        total += likelihood_ratio._background(space, changed, state)[:, -1].exp()
    assert torch.allclose(total, torch.ones(len(x)), atol=1e-5)


def test_what_follows_the_end_costs_nothing_and_the_label_only_its_nats() -> None:
    space = Sequence(5, 6, end=4, classes=3)
    x = torch.tensor([[2, 0, 1, 4, 4, 4, 4]])
    model = Uniform(space, 5)
    state = likelihood_ratio.fit(model, x, seeded())
    assert state["counts"].sum() == 3  # two tokens and the end
    found = likelihood_ratio.entries(model, x, state) - math.log(5)
    assert found[0, 0] == 0 and (found[0, 4:] == 0).all() and (found[0, 1:4] < 0).all()
