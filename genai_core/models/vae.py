"""Variational autoencoder (Kingma & Welling 2014): samples, reconstructs, bounds the likelihood from below."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from genai_core import networks
from genai_core.hyperparameters import Vae as Settings
from genai_core.model import LOWER, Condition, LogProb, Model, Reconstructs, Samples
from genai_core.networks.mlp import ResidualMLP
from genai_core.spaces import Space

VALIDATION_BATCH = 512
NOISE_SEED = 0  # the bound uses the same noise for every record, so a score does not depend on its batch


class Vae(Model, Samples, Reconstructs, LogProb):
    """Gaussian latent, sampled (not argmax) observation; the bound is importance-weighted (Burda et al. 2016)."""

    bound = LOWER
    learning_rate = 2e-3
    weight_decay = 0.001

    def __init__(self, space: Space, settings: Settings | None = None) -> None:
        super().__init__(space)
        self.settings = s = settings or Settings()
        self.encoder: Any = networks.encoder(space, s)
        self.posterior = nn.Linear(s.hidden, 2 * s.latent)
        self.body = ResidualMLP(s.latent, s.hidden)
        self.observation: Any = networks.decoder(space, s)

    def initialise(self, x: Tensor) -> None:
        self.observation.initialise(x)

    def _posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation, (batch, latent) each."""
        mean, log_scale = self.posterior(self.encoder(x)).chunk(2, 1)
        return mean, log_scale.clamp(-8, 4)

    def forward(self, x: Tensor, phase: str) -> Tensor:
        mean, log_scale = self._posterior(x)
        z = mean + log_scale.exp() * torch.randn_like(mean)
        kl = 0.5 * (mean.square() + (2 * log_scale).exp() - 1) - log_scale
        # free bits (Kingma et al. 2016): a dimension may carry a little for nothing, so it is not abandoned early
        kl_per_dimension = kl.mean(0).clamp(min=self.settings.free_bits)
        cost = kl_per_dimension.sum()
        if self.settings.warm_up:  # the latent is used before it must pay (Bowman et al. 2016)
            cost = cost * min(1.0, self.done / self.settings.warm_up)
        return cost - self.observation.log_prob(self.body(z), x).sum() / len(x)

    @torch.no_grad()
    def validation_loss(self, x: Tensor) -> float:
        parts = [-float(self.log_prob(part).sum()) for part in x.split(VALIDATION_BATCH)]
        return sum(parts) / len(x)

    def log_prob(self, x: Tensor) -> Tensor:
        """Importance-weighted bound; the part that belongs to no entry (the latent's cost) is shared evenly."""
        mean, log_scale = self._posterior(x)
        noise = torch.randn(
            self.settings.importance_samples,
            mean.shape[1],
            generator=torch.Generator().manual_seed(NOISE_SEED),
        ).to(mean.device)
        total = torch.full((len(x),), -torch.inf, device=x.device)  # log of the sum of the weights so far
        share = torch.zeros(x.shape, device=x.device)  # mean of the entries' nats under the weights so far
        for epsilon in noise:
            z = mean + log_scale.exp() * epsilon
            nats = self.observation.log_prob(self.body(z), x)
            weight = nats.sum(1) + (0.5 * (epsilon.square() - z.square()) + log_scale).sum(1)
            total, before = torch.logaddexp(total, weight), total
            share = share * (before - total).exp().unsqueeze(1) + nats * (weight - total).exp().unsqueeze(1)
        bound = total - math.log(len(noise))
        return share + ((bound - share.sum(1)) / share.shape[1]).unsqueeze(1)

    def reconstruct(self, x: Tensor) -> Tensor:
        return self.observation.log_prob(self.body(self._posterior(x)[0]), x)

    @torch.no_grad()
    def sample(self, rows: int, generator: torch.Generator, conditions: Sequence[Condition] = ()) -> Tensor:
        z = torch.randn(rows, self.settings.latent, generator=generator)
        return self.observation.draw(self.body(z), generator, conditions)


MODEL = Vae
