"""Players of pictures: any size, colour, classes and loss; what is drawn; what checkpoints are chosen by."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from genai_core.hyperparameters import FitSettings, Gan
from genai_core.loop import Fit
from genai_core.model import Condition
from genai_core.models.gan import Gan as GanModel
from genai_core.networks.picture_players import PictureCritic, ResidualCritic, pyramid
from genai_core.spaces import Grid

SPACES = [
    Grid(channels, *size, levels=levels, classes=classes)
    for channels, size, levels, classes in (
        (1, (8, 8), 256, 0),
        (3, (9, 6), 256, 3),
        (1, (15, 10), 2, 4),
        (3, (2, 3), 300, 0),
        (1, (28, 28), 256, 10),
    )
]
SMALL = {"channels": 8, "latent": 6, "hidden": 16, "embedding": 4}


def records(space: Grid, rows: int = 13) -> torch.Tensor:
    random = np.random.default_rng(0)
    pictures = random.integers(0, space.levels, (rows, space.size))
    labels = random.integers(0, max(space.classes, 1), (rows, space.labelled))
    return torch.from_numpy(np.concatenate([labels, pictures], 1))


def model(space: Grid, **settings: object) -> GanModel:
    torch.manual_seed(0)
    return GanModel(space, Gan(**{**SMALL, **settings}))


@pytest.mark.parametrize(
    ("space", "loss", "precision"),
    [
        *itertools.product(SPACES, ["relativistic", "wasserstein"], ["float32"]),
        (SPACES[1], "relativistic", "bfloat16"),
    ],
    ids=lambda value: f"{value.shape}-{value.classes}" if isinstance(value, Grid) else value,
)
def test_loss_is_finite_and_reaches_every_parameter(space: Grid, loss: str, precision: str) -> None:
    gan = model(space, loss=loss, precision=precision).train()
    for phase in dict.fromkeys(gan.phases):  # 13 records are no whole number of packs of two
        value = gan(records(space), phase)
        assert torch.isfinite(value)
        named = dict((gan.critic if phase == "discriminator" else gan.generator).named_parameters())
        gradients = torch.autograd.grad(value, list(named.values()), allow_unused=True)
        unreached = [
            name for name, g in zip(named, gradients, strict=True) if g is None or not torch.isfinite(g).all()
        ]
        # Wasserstein critics do not feel a constant
        assert [name for name in unreached if not (loss == "wasserstein" and name == "network.bias")] == []


@pytest.mark.parametrize("space", SPACES, ids=lambda space: f"{space.shape}-{space.classes}")
def test_samples_are_possible_records_and_follow_the_generator(space: Grid) -> None:
    gan = model(space).eval()
    first, again, other = (gan.sample(20, torch.Generator().manual_seed(seed)) for seed in (5, 5, 6))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first.shape == (20, space.entries) and first.dtype == torch.int64
    assert first.min() >= 0 and first[:, space.labelled :].max() < space.levels
    assert not space.classes or first[:, 0].max() < space.classes


def test_dense_pictures_span_minus_one_to_one_and_are_drawn_back() -> None:
    generator = model(SPACES[1]).generator
    x = records(SPACES[1])
    dense = generator.dense(x)
    assert dense.shape == (13, 3, 9, 6)
    assert (dense.min(), dense.max()) == (-1, 1)
    generator.network = torch.nn.Module()
    generator.network.forward = lambda z, labels: 1.2 * dense  # beyond the range: cut
    assert torch.equal(generator.draw(torch.zeros(13, 6), x[:, 0], torch.Generator())[:, 0], x[:, 0])
    generator.network.forward = lambda z, labels: dense
    assert torch.equal(generator.draw(torch.zeros(13, 6), x[:, 0], torch.Generator()), x)


def test_a_condition_fixes_the_label() -> None:
    allowed = torch.tensor([False, True, False])
    x = model(SPACES[1]).eval().sample(50, torch.Generator().manual_seed(0), [Condition(0, [allowed])])
    assert (x[:, 0] == 1).all()


@pytest.mark.parametrize(
    ("height", "width", "lowest", "canvas"),
    [
        (28, 28, (7, 7), (28, 28)),
        (64, 64, (4, 4), (64, 64)),
        (9, 6, (5, 3), (10, 6)),
        (40, 32, (5, 4), (40, 32)),
        (3, 7, (3, 7), (3, 7)),
    ],
)
def test_resolutions(height: int, width: int, lowest: tuple[int, int], canvas: tuple[int, int]) -> None:
    found = pyramid(height, width)
    assert (found.lowest, found.canvas) == (lowest, canvas)
    assert max(found.lowest) <= 7


def test_the_label_and_its_place_in_the_pack_matter_to_the_critic() -> None:
    space = SPACES[1]
    torch.manual_seed(0)
    critic = PictureCritic(space, ResidualCritic(space, Gan(**SMALL, pac=2)), pac=2).eval()
    dense = torch.rand(2, 3, 9, 6)
    logits = {pair: critic(dense, torch.tensor(pair)).item() for pair in ((0, 0), (0, 1), (1, 0))}
    assert len(set(logits.values())) == 3


def test_the_critic_augments_in_training_only() -> None:
    gan = model(SPACES[0], augment=True)
    dense = gan.generator.dense(records(SPACES[0], 8))
    gan.critic.eval()
    assert torch.equal(gan.critic(dense, None), gan.critic(dense, None))
    gan.critic.train()
    assert not torch.equal(gan.critic(dense, None), gan.critic(dense, None))


def test_discriminating_does_not_depend_on_the_neighbours() -> None:
    gan = model(SPACES[1]).eval()
    x = records(SPACES[1], 10)
    with torch.no_grad():
        assert torch.allclose(gan.discriminate(x)[3:5], gan.discriminate(x[3:5]), atol=1e-5)


def test_distance_sees_pictures_and_labels() -> None:
    space = Grid(1, 8, 8, classes=2)
    x = records(space, 400)
    x[:, 1:] = (x[:, 1:] // 4 + 128 * x[:, :1]).clamp(max=255)
    distance = model(space).generator.distance
    swapped = x[:200].clone()
    swapped[:, 0] = 1 - swapped[:, 0]
    darker = x[:200].clone()
    darker[:, 1:] //= 2
    near = distance(x[200:], x[:200])
    assert abs(near) < 0.05
    assert distance(x[200:], swapped) > 0.2
    assert distance(x[200:], darker) > 0.2


def test_gamma_falls_over_the_fit_and_wasserstein_has_five_critic_steps() -> None:
    gan = model(SPACES[0], gamma=2.0)
    found = []
    for gan.done in (0.0, 0.5, 1.0):
        found.append(gan._gamma())
    assert found == pytest.approx([2.0, 1.1, 0.2])
    assert gan.phases == ("discriminator", "generator")
    assert model(SPACES[0], loss="wasserstein").phases == ("discriminator",) * 5 + ("generator",)


def test_a_short_training_on_two_patterns_draws_both() -> None:
    random = np.random.default_rng(0)
    space = Grid(1, 6, 6)
    patterns = np.zeros((2, 6, 6), np.int64)
    patterns[0, :3] = patterns[1, :, 3:] = 255
    kind = random.integers(0, 2, 1500)
    rows = np.clip(patterns[kind].reshape(1500, 36) + random.integers(-20, 21, (1500, 36)), 0, 255)
    gan = model(space, augment=False, channels=16, gamma=10.0)
    settings = FitSettings(
        max_epochs=9, batch_size=64, seed=1, learning_rate=5e-3, evaluations=4, patience=99, ema=0.95
    )
    Fit(gan, rows[150:], rows[:150], settings).run()
    x = gan.sample(400, torch.Generator().manual_seed(0)).view(400, 1, 36)
    error = (x - torch.from_numpy(patterns.reshape(2, 36))).abs().float().mean(2)
    near = error.min(1).values < 40
    assert near.float().mean() > 0.7
    share = error.argmin(1)[near].float().mean()
    assert 0.25 < share < 0.75
