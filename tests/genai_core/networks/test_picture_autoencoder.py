"""The VAE on pictures: any size, exact heads, labels that hold, masks that hide what is not drawn yet."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from genai_core import catalog
from genai_core.hyperparameters import FitSettings, Vae
from genai_core.loop import Fit
from genai_core.model import Condition
from genai_core.networks.latent_prior import LatentPrior
from genai_core.networks.levels import LogisticMixture, levels_of, scaled, whole
from genai_core.networks.picture_autoencoder import PictureObservation
from genai_core.spaces import Grid

SMALL = {"channels": 8, "hidden": 32, "latent": 8, "components": 4, "couplings": 2}
SPACES = [
    Grid(1, 8, 8, levels=17, classes=10),
    Grid(1, 28, 28, levels=2),
    Grid(3, 7, 5),
    Grid(3, 9, 12, levels=2, classes=3),
    Grid(1, 1, 9, levels=16),
    Grid(1, 40, 33),
]


def new(space: Grid, **settings: Any) -> Any:
    torch.manual_seed(0)
    return catalog.build_model("vae", space, SMALL | settings)


def some(space: Grid, rows: int = 6) -> torch.Tensor:
    random = np.random.default_rng(0)
    levels = random.integers(0, space.levels, (rows, space.size))
    labels = random.integers(0, max(space.classes, 1), (rows, space.labelled))
    return torch.from_numpy(np.column_stack([labels, levels]))


def digits(labels: bool = True) -> np.ndarray:
    found = load_digits()
    return np.column_stack([found.target, found.data] if labels else [found.data]).astype(np.int64)


def fitted(space: Grid, rows: np.ndarray, **settings: Any) -> Any:
    model = new(space, **settings)
    fit = FitSettings(max_epochs=10, evaluations=2, batch_size=64, learning_rate=5e-3, clip=50.0)
    Fit(model, rows[300:], rows[:300], fit).run()
    return model


@pytest.fixture(scope="module")
def of_digits() -> Any:
    return fitted(SPACES[0], digits(), free_bits=0.5)


@pytest.mark.parametrize("parts", [1, 4])
@pytest.mark.parametrize("space", SPACES, ids=lambda s: "x".join(map(str, (*s.shape, s.levels))))
def test_any_picture(space: Grid, parts: int) -> None:
    model = new(space, parts=parts, training_samples=2).train()
    x = some(space)
    model.initialise(x)
    loss = model(x, "fit")
    gradients = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    names = [name for name, _ in model.named_parameters()]
    assert torch.isfinite(loss)
    assert [n for n, g in zip(names, gradients, strict=True) if g is None] == []
    with torch.no_grad():
        for nats in (model.eval().log_prob(x), model.reconstruct(x)):
            assert nats.shape == x.shape
            assert torch.isfinite(nats).all()
        drawn = model.sample(5, torch.Generator().manual_seed(3))
        assert torch.equal(drawn, model.sample(5, torch.Generator().manual_seed(3)))
    assert drawn.shape == (5, space.entries)
    assert int(drawn.min()) >= 0
    assert int(drawn[:, space.labelled :].max()) < space.levels


@pytest.mark.parametrize("parts", [1, 4])
@pytest.mark.parametrize("space", [Grid(1, 2, 3, levels=2), Grid(1, 1, 2, levels=5), Grid(3, 1, 1, levels=4)])
def test_the_observation_is_a_distribution(space: Grid, parts: int) -> None:
    """Over all pictures p(x | h) sums to one, and what is drawn is as frequent as it says."""
    torch.manual_seed(1)
    observation = PictureObservation(space, Vae(**SMALL, parts=parts))
    with torch.no_grad():
        for p in observation.parameters():
            p.add_(0.3 * torch.randn_like(p))
        every = torch.tensor(list(itertools.product(range(space.levels), repeat=space.size)))
        h = torch.randn(1, 32)
        probability = observation.log_prob(h.expand(len(every), -1), every).sum(1).exp()
        assert float(probability.sum()) == pytest.approx(1, abs=1e-4)
        rows = 20_000
        drawn = observation.draw(h.expand(rows, -1), torch.Generator().manual_seed(0))
        place = drawn @ torch.tensor([space.levels**i for i in range(space.size)][::-1])
        found = torch.bincount(place, minlength=len(every)) / rows
    assert float((found - probability).abs().sum()) < 3 * float((probability / rows).sqrt().sum())


def test_a_part_sees_the_earlier_ones_only() -> None:
    space = Grid(1, 8, 8, levels=2)
    torch.manual_seed(0)
    observation = PictureObservation(space, Vae(**SMALL))
    h, x = torch.randn(1, 32), torch.zeros(1, 64, dtype=torch.long)
    order = (2 * (torch.arange(8) % 2)[:, None] + torch.arange(8) % 2).flatten()
    with torch.no_grad():
        before = observation.log_prob(h, x)
        for phase in range(4):
            pixel = int((order == phase).nonzero()[5])
            changed = x.clone()
            changed[0, pixel] = 1
            moved = (observation.log_prob(h, changed) != before)[0]
            moved[pixel] = False
            assert bool((order[moved] > phase).all())
            assert bool(moved.any()) == (phase < 3)


@pytest.mark.parametrize("levels", [3, 17, 256])
def test_the_logistic_mixture_is_exact_over_all_levels(levels: int) -> None:
    head = LogisticMixture(2, levels)
    torch.manual_seed(0)
    parameters = (2 * torch.randn(1, head.count, 1, 1, 1)).double()
    centre = torch.zeros(1, 2, 1, 1, 1).double()
    every = torch.tensor(list(itertools.product(range(levels), repeat=2))).double()
    v = (every * (2 / (levels - 1)) - 1)[:, :, None, None, None]
    nats = head.log_prob(parameters.expand(len(v), *parameters.shape[1:]), centre, v).sum((1, 2, 3, 4))
    assert float(nats.exp().sum()) == pytest.approx(1, abs=1e-9)


def test_bernoulli_for_two_levels_alone() -> None:
    assert levels_of(Grid(3, 4, 4, levels=2)).count == 3
    assert levels_of(Grid(3, 4, 4, levels=3)).count == 5 * (1 + 3 + 3 + 3)
    space = Grid(3, 2, 3, levels=7)
    x = some(space)
    assert torch.equal(whole(scaled(x, space), space), x)


def test_the_prior_is_a_density_and_draws_from_itself() -> None:
    torch.manual_seed(0)
    prior = LatentPrior(2, components=3, couplings=3, hidden=16)
    with torch.no_grad():
        for p in prior.parameters():
            p.add_(0.4 * torch.randn_like(p))
        step = 0.1
        axis = torch.arange(-25, 25, step)
        grid = torch.cartesian_prod(axis, axis)
        mass = prior.log_prob(grid).exp() * step**2
        drawn = prior.draw(20_000, torch.Generator().manual_seed(0))
    assert float(mass.sum()) == pytest.approx(1, abs=0.01)
    mean = (mass[:, None] * grid).sum(0)
    spread = (mass[:, None] * (grid - mean).square()).sum(0).sqrt()
    assert torch.allclose(drawn.mean(0), mean, atol=0.05 * float(spread.max()))
    assert torch.allclose(drawn.std(0), spread, rtol=0.1)


def test_learns_digits(of_digits: Any) -> None:
    """Better than independent pixels of the same class, with a latent that says something."""
    x = torch.from_numpy(digits())
    with torch.no_grad():
        nats = -of_digits.log_prob(x[:300]).sum(1).mean()
        reconstructed = -of_digits.reconstruct(x[:300]).sum(1).mean()
    counts = torch.ones(10, 64, 17)
    for row in x[300:]:
        counts[row[0], torch.arange(64), row[1:]] += 1
    share = (counts / counts.sum(2, keepdim=True)).log()
    independent = -torch.stack([share[r[0], torch.arange(64), r[1:]].sum() for r in x[:300]]).mean() + np.log(
        10
    )
    assert float(nats) < float(independent) - 5
    assert float(reconstructed) < float(nats)


def test_conditions_on_the_label_hold_and_the_pictures_follow(of_digits: Any) -> None:
    """A classifier that has seen real digits reads the label that was asked for in most samples."""
    from sklearn.neighbors import KNeighborsClassifier

    known = KNeighborsClassifier(5).fit(digits()[:, 1:], digits()[:, 0])
    allowed = torch.zeros(10, dtype=torch.bool)
    allowed[[3, 6]] = True
    drawn = of_digits.sample(300, torch.Generator().manual_seed(0), [Condition(0, [allowed])])
    assert set(drawn[:, 0].tolist()) == {3, 6}
    assert (known.predict(drawn[:, 1:].numpy()) == drawn[:, 0].numpy()).mean() > 0.7


def test_noise_is_odder_than_digits_by_reconstruction(of_digits: Any) -> None:
    x = torch.from_numpy(digits()[:200])
    shuffled = x.clone()
    shuffled[:, 1:] = x[:, 1:][:, torch.randperm(64, generator=torch.Generator().manual_seed(0))]
    with torch.no_grad():
        usual, odd = (-of_digits.reconstruct(rows).sum(1) for rows in (x, shuffled))
    assert float((odd[:, None] > usual).float().mean()) > 0.95
