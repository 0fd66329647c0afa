"""Sequences through a code: the code is used, what follows the end costs nothing, a GAN plays over codes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from genai_core import catalog
from genai_core.hyperparameters import FitSettings
from genai_core.loop import Fit
from genai_core.model import Condition
from genai_core.spaces import Sequence

SPACE = Sequence(12, 14, end=11, classes=2)
VAE = {
    "latent": 4,
    "hidden": 32,
    "embedding": 8,
    "free_bits": 0.5,
    "warm_up": 0.4,
    "couplings": 0,
    "components": 8,
}
GAN = {"latent": 8, "hidden": 32, "embedding": 8}


def data(rows: int = 600) -> np.ndarray:
    """Five runs of one of five letters, each followed by a letter of its own: which the code should say."""
    random = np.random.default_rng(0)
    letter = random.integers(0, 5, rows)
    lengths = random.integers(6, 13, rows)
    tokens = np.where(np.arange(14) % 3 == 2, letter[:, None] + 5, letter[:, None])
    tokens[np.arange(14) >= lengths[:, None]] = SPACE.end
    return np.concatenate([(letter % 2)[:, None], tokens], 1)


def fitted(kind: str, settings: dict, epochs: int) -> torch.nn.Module:
    torch.manual_seed(1)
    model = catalog.build_model(kind, SPACE, settings)
    rows = data()
    Fit(
        model, rows[100:], rows[:100], FitSettings(max_epochs=epochs, seed=3, patience=100, evaluations=6)
    ).run()
    return model.eval()


@pytest.fixture(scope="module")
def vae() -> torch.nn.Module:
    return fitted("vae", VAE, 18)


@pytest.fixture(scope="module")
def gan() -> torch.nn.Module:
    return fitted("gan", GAN, 18)


def letters(x: torch.Tensor) -> torch.Tensor:
    """Share of records whose tokens are all of one letter."""
    tokens = x[:, 1:]
    kinds = torch.where(tokens == SPACE.end, -1, tokens % 5)
    return ((kinds == kinds[:, :1]) | (kinds == -1)).all(1).float().mean()


@torch.no_grad()
def test_the_code_says_what_the_text_is(vae) -> None:
    x = torch.from_numpy(data(400))
    mean, log_scale = vae.posterior_of(x)
    z = mean + log_scale.exp() * torch.randn(mean.shape, generator=torch.Generator().manual_seed(0))
    squares = ((z - mean) / log_scale.exp()).square()
    posterior = -(0.5 * (squares + np.log(2 * np.pi)) + log_scale).sum(1)
    divergence = float((posterior - vae.prior.log_prob(z)).mean())
    assert divergence > 0.8 * np.log(5)  # which of five letters
    own = vae.reconstruct(x).sum(1).mean()
    of_another = vae.observation.log_prob(vae.body(mean.roll(1, 0)), x).sum(1).mean()
    assert own > of_another + 2


@torch.no_grad()
def test_samples_are_whole(vae) -> None:
    x = vae.sample(300, torch.Generator().manual_seed(0))
    ended = (x[:, 1:] == SPACE.end).cumsum(1) > 0
    assert (x[:, 1:][ended] == SPACE.end).all()
    assert ended[:, -1].float().mean() > 0.9
    assert letters(x) > 0.6
    assert set((x[:, 1] % 5).tolist()) == set(range(5))


@torch.no_grad()
def test_what_follows_the_end_and_who_is_beside_costs_nothing(vae) -> None:
    x = torch.from_numpy(data(50))
    nats = vae.reconstruct(x)
    after = (x[:, 1:] == SPACE.end).cumsum(1) > 1
    assert (nats[:, 1:][after] == 0).all()
    assert nats[:, 0].exp().sum() == pytest.approx(25, abs=5)  # the labels, about even
    padded = torch.cat([x, torch.full((50, 6), SPACE.end)], 1)
    assert torch.allclose(vae.encoder(x), vae.encoder(padded), atol=1e-5)


@torch.no_grad()
def test_a_label_can_be_asked_for(vae, gan) -> None:
    for model in (vae, gan):
        wanted = Condition(0, [torch.tensor([False, True])])
        x = model.sample(100, torch.Generator().manual_seed(0), [wanted])
        assert (x[:, 0] == 1).all()
        assert (x[:, 1] % 5 % 2).float().mean() > 0.7


def test_the_autoencoder_comes_before_the_game(gan) -> None:
    assert gan.phases == ("autoencoder", "discriminator", "generator")
    groups = [{id(p) for p in group["params"]} for phase in gan.phases for group in gan.parameters_of(phase)]
    assert sum(map(len, groups)) == len(set.union(*groups)) == len(list(gan.parameters()))


@torch.no_grad()
def test_a_gan_over_codes_writes_what_the_decoder_knows(gan) -> None:
    x = gan.sample(300, torch.Generator().manual_seed(0))
    assert letters(x) > 0.5
    assert len(set((x[:, 1] % 5).tolist())) >= 4
    real = torch.from_numpy(data(256))
    other = real.clone()
    other[:, 1:] = (other[:, 1:] + 1) % 12
    assert gan.generator.distance(real, x[:256]) < gan.generator.distance(real, other) / 2
