"""Generative adversarial network (Goodfellow et al. 2014) over tokens: an implicit model, no likelihood.

Relativistic pairing with R1 and R2 penalties (Huang et al. 2024), straight-through Gumbel outputs, packed
discriminator, averaged generator.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from genai_core import networks
from genai_core.adversarial import (
    gradient_penalty,
    kernel_distance,
    relativistic_discriminator_loss,
    relativistic_generator_loss,
)
from genai_core.hyperparameters import Gan as Settings
from genai_core.model import Condition, Discriminates, Model, Samples
from genai_core.networks.mlp import ResidualMLP
from genai_core.spaces import Tokens

VALIDATION_ROWS = 2048


class Gan(Model, Samples, Discriminates):
    """Samples; its discriminator tells made from real, which is not a density."""

    phases = ("discriminator", "generator")
    learning_rate = 1e-3
    weight_decay = 0.0
    betas = (0.0, 0.99)

    def __init__(self, space: Tokens, settings: Settings | None = None) -> None:
        super().__init__(space)
        self.settings = s = settings or Settings()
        self.generator = ResidualMLP(s.latent, s.hidden)
        self.observation: Any = networks.decoder(space, s.hidden)
        self.critic: Any = networks.critic(space, s.hidden, s.pac)

    def initialise(self, x: Tensor) -> None:
        self.observation.heads.set_frequencies(x)

    def parameters_of(self, phase: str) -> list[dict]:
        if phase == "discriminator":
            return [{"params": list(self.critic.parameters())}]
        return [{"params": [*self.generator.parameters(), *self.observation.parameters()]}]

    def forward(self, x: Tensor, phase: str) -> Tensor:
        x = x[: len(x) // self.settings.pac * self.settings.pac]
        real = self.observation.dense(x)
        z = torch.randn(len(x), self.settings.latent, device=x.device)
        if phase == "generator":
            fake = self.observation.relaxed(self.generator(z), self.settings.temperature)
            return relativistic_generator_loss(self.critic(real), self.critic(fake))
        with torch.no_grad():
            fake = self.observation.relaxed(self.generator(z), self.settings.temperature)
        real.requires_grad_(True)
        fake.requires_grad_(True)
        logit_real, logit_fake = self.critic(real), self.critic(fake)
        penalty = gradient_penalty(logit_real, real) + gradient_penalty(logit_fake, fake)
        return relativistic_discriminator_loss(logit_real, logit_fake) + 0.5 * self.settings.gamma * penalty

    @torch.no_grad()
    def validation_loss(self, x: Tensor) -> float:
        """Kernel distance between held-out and made records: there is no likelihood to go by."""
        x = x[:VALIDATION_ROWS]
        made = self.sample(len(x), torch.Generator().manual_seed(0)).to(x.device)
        return kernel_distance(self._main(x), self._main(made))

    def _main(self, x: Tensor) -> Tensor:
        """Dense records of the positions without parent: ranks inside a bin agree by chance only."""
        dense, columns = self.observation.dense(x), self.observation.cuts
        main = [cut for cut, p in zip(columns, self.space.positions, strict=True) if p.parent is None]
        return torch.cat([dense[:, cut] for cut in main], 1)

    def discriminate(self, x: Tensor) -> Tensor:
        return self.critic(self.observation.dense(x).repeat_interleave(self.settings.pac, 0))

    @torch.no_grad()
    def sample(self, rows: int, generator: torch.Generator, conditions: Sequence[Condition] = ()) -> Tensor:
        z = torch.randn(rows, self.settings.latent, generator=generator)
        return self.observation.draw(self.generator(z), generator)


MODEL = Gan
