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
from genai_core.networks.latent_prior import LOG_2PI, LatentPrior
from genai_core.networks.mlp import ResidualMLP
from genai_core.precision import in_float32
from genai_core.spaces import Space, Tokens

VALIDATION_BATCH = 512
VALIDATION_SAMPLES = 4  # enough to tell checkpoints apart
TABLE_EPOCHS, TABLE_STEPS = 16, 640  # the first are enough, unless they are fewer steps than the second
TABLE_PATIENCE = 1000  # the bound sways until the rate comes down; stopping earlier cost .08 of C2ST
NOISE_SEED = 0  # the bound uses the same noise for every record, so a score does not depend on its batch


class Vae(Model, Samples, Reconstructs, LogProb):
    """Gaussian latent, sampled (not argmax) observation; the bound is importance-weighted (Burda et al. 2016)."""

    bound = LOWER
    learning_rate = 2e-3
    weight_decay = 0.001

    def __init__(self, space: Space, settings: Settings | None = None) -> None:
        super().__init__(space)
        chosen = settings or Settings()
        self.settings = chosen.model_copy(update={"hidden": chosen.hidden or networks.width(space)})
        s: Any = self.settings
        self.patience = TABLE_PATIENCE if isinstance(space, Tokens) else self.patience
        self.encoder: Any = networks.encoder(space, s)
        self.posterior = nn.Linear(s.hidden, 2 * s.latent)
        self.body = ResidualMLP(s.latent, s.hidden)
        self.prior = LatentPrior(s.latent, s.components, s.couplings)
        self.observation: Any = networks.decoder(space, s)

    def initialise(self, x: Tensor) -> None:
        self.observation.initialise(x)

    def epochs(self, steps: int) -> int:
        """Tables are learnt in fewer: what 24 add is learnt by heart."""
        most = super().epochs(steps)
        return min(max(TABLE_EPOCHS, TABLE_STEPS // steps), most) if isinstance(self.space, Tokens) else most

    def posterior_of(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation, (batch, latent) each."""
        mean, log_scale = self.posterior(self.encoder(x)).chunk(2, 1)
        return mean, log_scale.clamp(-8, 4)

    def forward(self, x: Tensor, phase: str) -> Tensor:
        """Minus the importance-weighted bound of `training_samples` draws (Burda et al. 2016); one: the plain bound.

        The posterior's gradient goes through the draws alone (Roeder et al. 2017; several: Tucker et al. 2019).
        """
        samples = self.settings.training_samples
        mean, log_scale = self.posterior_of(x)
        z = mean + log_scale.exp() * torch.randn(samples, *mean.shape, device=mean.device)
        nats = self.observation.log_prob(self.body(z.flatten(0, 1)), x.repeat(samples, 1)).sum(1)
        cost = _gaussian(z, mean.detach(), log_scale.detach()) - self.prior.log_prob(z)
        # free bits (Kingma et al. 2016): the latent may carry a little for nothing, so it is not abandoned early
        free = self.settings.free_bits * mean.shape[1] * 2**self.restraint
        cost = cost + (free - cost.mean()).clamp(min=0)
        if self.settings.warm_up:  # the latent is used before it must pay (Bowman et al. 2016)
            cost = cost * min(1.0, self.done / self.settings.warm_up)
        weights = nats.view(samples, -1) - cost
        share = torch.softmax(weights.detach(), 0)
        if samples > 1:
            z.register_hook(lambda gradient: gradient * share.unsqueeze(2))
        return -(share * weights).sum(0).mean()

    @torch.no_grad()
    def validation_loss(self, x: Tensor) -> float:
        parts = [-float(self.bounded(part, VALIDATION_SAMPLES).sum()) for part in x.split(VALIDATION_BATCH)]
        return sum(parts) / len(x)

    def log_prob(self, x: Tensor) -> Tensor:
        return self.bounded(x, self.settings.importance_samples)

    def bounded(self, x: Tensor, samples: int) -> Tensor:
        """Importance-weighted bound; the part that belongs to no entry (the latent's cost) is shared evenly."""
        mean, log_scale = self.posterior_of(x)
        generator = torch.Generator().manual_seed(NOISE_SEED)
        noise = torch.randn(samples, mean.shape[1], generator=generator).to(mean.device)
        total = torch.full((len(x),), -torch.inf, device=x.device)  # log of the sum of the weights so far
        share = torch.zeros(x.shape, device=x.device)  # mean of the entries' nats under the weights so far
        for epsilon in noise:
            z = mean + log_scale.exp() * epsilon
            nats = self.observation.log_prob(self.body(z), x)
            weight = nats.sum(1) + self.prior.log_prob(z) - _gaussian(z, mean, log_scale)
            total, before = torch.logaddexp(total, weight), total
            share = share * (before - total).exp().unsqueeze(1) + nats * (weight - total).exp().unsqueeze(1)
        bound = total - math.log(len(noise))
        return share + ((bound - share.sum(1)) / share.shape[1]).unsqueeze(1)

    def reconstruct(self, x: Tensor) -> Tensor:
        return self.observation.log_prob(self.body(self.posterior_of(x)[0]), x)

    @torch.no_grad()
    def sample(self, rows: int, generator: torch.Generator, conditions: Sequence[Condition] = ()) -> Tensor:
        z = self.prior.draw(rows, generator)
        return self.observation.draw(self.body(z), generator, conditions)


@in_float32
def _gaussian(z: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """log density, nats (...), of z (..., latent)."""
    squares = ((z - mean) * (-log_scale).exp()).square()
    return -(0.5 * (squares + LOG_2PI) + log_scale).sum(-1)


MODEL = Vae
