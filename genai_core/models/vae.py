"""Variational autoencoder (Kingma & Welling 2014): samples, reconstructs, bounds the likelihood from below."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from genai_core import networks
from genai_core.hyperparameters import Vae as Settings
from genai_core.model import LOWER, Condition, LogProb, Model, Reconstructs, Samples
from genai_core.networks.mlp import ResidualMLP
from genai_core.networks.tokens import sum_by_field
from genai_core.spaces import Tokens

NOISE_SEED = 0  # the bound uses the same noise for every record, so a score does not depend on its batch


class Vae(Model, Samples, Reconstructs, LogProb):
    """Gaussian latent, sampled (not argmax) observation; the bound is importance-weighted (Burda et al. 2016)."""

    bound = LOWER
    learning_rate = 2e-3
    weight_decay = 0.001

    def __init__(self, space: Tokens, settings: Settings | None = None) -> None:
        super().__init__(space)
        self.settings = s = settings or Settings()
        self.encoder: Any = networks.encoder(space, s.hidden, s.embedding)
        self.posterior = nn.Linear(s.hidden, 2 * s.latent)
        self.body = ResidualMLP(s.latent, s.hidden)
        self.observation: Any = networks.decoder(space, s.hidden)

    def initialise(self, x: Tensor) -> None:
        self.observation.heads.set_frequencies(x)

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
        return kl_per_dimension.sum() - self.observation.log_prob(self.body(z), x).sum() / len(x)

    @torch.no_grad()
    def validation_loss(self, x: Tensor) -> float:
        parts = [-float(self.log_prob(part).sum()) for part in x.split(1024)]
        return sum(parts) / len(x)

    def log_prob(self, x: Tensor) -> Tensor:
        """Importance-weighted bound; the part that belongs to no field (the latent's cost) is shared evenly."""
        mean, log_scale = self._posterior(x)
        noise = torch.randn(
            self.settings.importance_samples,
            mean.shape[1],
            generator=torch.Generator().manual_seed(NOISE_SEED),
        ).to(mean.device)
        fields, weights = [], []
        for epsilon in noise:
            z = mean + log_scale.exp() * epsilon
            field = sum_by_field(self.space, self.observation.log_prob(self.body(z), x))
            fields.append(field)
            weights.append(field.sum(1) + (0.5 * (epsilon.square() - z.square()) + log_scale).sum(1))
        log_weight = torch.stack(weights)
        bound = torch.logsumexp(log_weight, 0) - torch.log(torch.tensor(float(len(noise))))
        share = torch.einsum("kb,kbf->bf", torch.softmax(log_weight, 0), torch.stack(fields))
        return share + ((bound - share.sum(1)) / share.shape[1]).unsqueeze(1)

    def reconstruct(self, x: Tensor) -> Tensor:
        return sum_by_field(self.space, self.observation.log_prob(self.body(self._posterior(x)[0]), x))

    @torch.no_grad()
    def sample(self, rows: int, generator: torch.Generator, conditions: Sequence[Condition] = ()) -> Tensor:
        z = torch.randn(rows, self.settings.latent, generator=generator)
        return self.observation.draw(self.body(z), generator)


MODEL = Vae
