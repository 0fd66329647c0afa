"""DCGAN: the published layers and game, other sizes and labels, and a short training."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from genai_core.errors import InvalidInput
from genai_core.hyperparameters import Dcgan as Settings
from genai_core.hyperparameters import FitSettings
from genai_core.loop import Fit
from genai_core.model import Condition
from genai_core.models.dcgan import Dcgan
from genai_core.spaces import Grid
from tests.contract.spaces import tiny_space

SPACES = [
    Grid(1, 28, 28, classes=10),
    Grid(3, 9, 6),
    Grid(1, 4, 5, levels=2, classes=3),
    Grid(3, 32, 32),
    Grid(1, 40, 32, classes=2),
]


def records(space: Grid, rows: int = 6) -> torch.Tensor:
    random = np.random.default_rng(0)
    pictures = random.integers(0, space.levels, (rows, space.size))
    labels = random.integers(0, max(space.classes, 1), (rows, space.labelled))
    return torch.from_numpy(np.concatenate([labels, pictures], 1))


def model(space: Grid, channels: int = 4) -> Dcgan:
    torch.manual_seed(0)
    return Dcgan(space, Settings(channels=channels, latent=5))


@pytest.mark.parametrize("space", SPACES, ids=lambda space: f"{space.shape}-{space.classes}")
def test_loss_is_finite_and_reaches_every_parameter(space: Grid) -> None:
    gan = model(space).train()
    reached = set()
    for phase in gan.phases:
        loss = gan(records(space), phase)
        assert torch.isfinite(loss)
        parameters = gan.parameters_of(phase)[0]["params"]
        gradients = torch.autograd.grad(loss, parameters)
        reached |= {id(p) for p, g in zip(parameters, gradients, strict=True) if torch.isfinite(g).all()}
    assert reached == {id(p) for p in gan.parameters()}


@pytest.mark.parametrize("space", SPACES, ids=lambda space: f"{space.shape}-{space.classes}")
def test_samples_are_possible_records_and_follow_the_generator(space: Grid) -> None:
    gan = model(space).eval()
    first, again, other = (gan.sample(9, torch.Generator().manual_seed(seed)) for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == (9, space.entries)
    assert first.min() >= 0
    assert first[:, space.labelled :].max() < space.levels


def test_layers_are_the_published_ones_at_64_pixels() -> None:
    gan = Dcgan(Grid(3, 64, 64), Settings())

    def layers(player: nn.Module) -> list[tuple]:
        kinds = (nn.Conv2d, nn.ConvTranspose2d)
        return [
            (m.in_channels, m.out_channels, m.stride) if isinstance(m, kinds) else type(m).__name__
            for m in player.modules()
            if not list(m.children()) and not isinstance(m, nn.Flatten | nn.Unflatten)
        ]

    halve = (2, 2)
    assert layers(gan.generator.network) == [
        *[(100, 512, (1, 1)), "BatchNorm2d", "ReLU", (512, 256, halve), "BatchNorm2d", "ReLU"],
        *[(256, 128, halve), "BatchNorm2d", "ReLU", (128, 64, halve), "BatchNorm2d", "ReLU"],
        *[(64, 3, halve), "Tanh"],
    ]
    assert layers(gan.critic.network) == [
        *["Canvas", (3, 64, halve), "LeakyReLU", (64, 128, halve), "BatchNorm2d", "LeakyReLU"],
        *[(128, 256, halve), "BatchNorm2d", "LeakyReLU", (256, 512, halve), "BatchNorm2d", "LeakyReLU"],
        (512, 1, (1, 1)),
    ]
    weights = torch.cat([m.weight.flatten() for m in gan.modules() if isinstance(m, nn.Conv2d)])
    assert weights.std().item() == pytest.approx(0.02, rel=0.01)
    assert (gan.learning_rate, gan.betas, gan.ema, gan.constant_rate) == (2e-4, (0.5, 0.999), 0.0, True)


def test_labels_change_what_is_made_and_how_it_is_judged() -> None:
    gan = model(SPACES[0]).eval()
    z = torch.randn(1, 5).expand(2, -1)
    made = gan.generator(z, torch.tensor([0, 1]))
    assert not torch.equal(made[0], made[1])
    judged = gan.critic(made[:1].expand(2, -1, -1, -1), torch.tensor([0, 1]))
    assert judged[0] != judged[1]
    wanted = [Condition(0, [torch.arange(10) == 7])]
    assert (gan.sample(20, torch.Generator().manual_seed(0), wanted)[:, 0] == 7).all()


def test_discriminating_does_not_depend_on_the_neighbours() -> None:
    gan = model(SPACES[1]).train()
    x = records(SPACES[1], 10)
    gan(x, "discriminator")
    gan.eval()
    with torch.no_grad():
        assert torch.allclose(gan.discriminate(x)[3:5], gan.discriminate(x[3:5]), atol=1e-5)


def test_other_records_than_pictures_are_refused() -> None:
    with pytest.raises(InvalidInput, match="learns pictures"):
        Dcgan(tiny_space())


def test_a_short_training_comes_closer_at_a_constant_rate() -> None:
    random = np.random.default_rng(0)
    space = Grid(1, 8, 8, classes=2)
    patterns = np.zeros((2, 8, 8), np.int64)
    patterns[0, :4] = patterns[1, :, 4:] = 255
    kind = random.integers(0, 2, 1500)
    pictures = np.clip(patterns[kind].reshape(1500, 64) + random.integers(-20, 21, (1500, 64)), 0, 255)
    rows = np.concatenate([kind[:, None], pictures], 1)
    gan = model(space, channels=16)
    settings = FitSettings(max_epochs=10, batch_size=64, seed=1, evaluations=4, patience=99)
    fit = Fit(gan, rows[150:], rows[:150], settings)
    fit.run()
    assert {group["lr"] for o in fit.optimisers.values() for group in o.param_groups} == {2e-4}
    x = gan.sample(400, torch.Generator().manual_seed(0))
    error = (x[:, None, 1:] - torch.from_numpy(patterns.reshape(2, 64))).abs().float().mean(2)
    assert (error.argmin(1) == x[:, 0]).float().mean() > 0.9  # the label's pattern
    assert error.min(1).values.median() < 60
