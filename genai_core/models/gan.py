"""Generative adversarial network (Goodfellow et al. 2014): an implicit model, samples without a likelihood.

Relativistic pairing with R1 and R2 penalties (Huang et al. 2024), or Wasserstein with a gradient penalty (Gulrajani
et al. 2017); packed critic, averaged generator.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from genai_core import networks
from genai_core.adversarial import (
    critic_loss,
    generator_loss,
)
from genai_core.hyperparameters import Gan as Settings
from genai_core.model import Condition, Discriminates, Model, Samples
from genai_core.networks.adversaries import Critic, Generator
from genai_core.networks.labels import Labels
from genai_core.spaces import Space

VALIDATION_ROWS = 2048


class Gan(Model, Samples, Discriminates):
    """Samples; its discriminator tells made from real, which is not a density."""

    phases = ("discriminator", "generator")
    learning_rate = 1e-3
    weight_decay = 0.0
    betas = (0.0, 0.99)

    def __init__(self, space: Space, settings: Settings | None = None) -> None:
        super().__init__(space)
        self.settings = s = settings or Settings()
        self.labels = Labels(getattr(space, "classes", 0))
        self.generator: Generator
        self.critic: Critic
        self.generator, self.critic = networks.players(space, s)

    def initialise(self, x: Tensor) -> None:
        self.labels.initialise(x)
        self.generator.initialise(x)

    def parameters_of(self, phase: str) -> list[dict]:
        player = self.critic if phase == "discriminator" else self.generator
        return [{"params": list(player.parameters())}]

    def forward(self, x: Tensor, phase: str) -> Tensor:
        x = x[: len(x) // self.critic.pac * self.critic.pac]
        labels, _ = self.labels.split(x)
        z = torch.randn(len(x), self.settings.latent, device=x.device)
        real = self.generator.dense(x)
        if phase == "generator":
            return generator_loss(self.critic, real, self.generator(z, labels), labels, self.settings.loss)
        with torch.no_grad():
            made = self.generator(z, labels)
        return critic_loss(self.critic, real, made, labels, self.settings.loss, self.settings.gamma)

    @torch.no_grad()
    def validation_loss(self, x: Tensor) -> float:
        """Kernel distance between held-out and made records: there is no likelihood to go by."""
        x = x[:VALIDATION_ROWS]
        made = self.sample(len(x), torch.Generator().manual_seed(0)).to(x.device)
        return self.generator.distance(x, made)

    def discriminate(self, x: Tensor) -> Tensor:
        labels, _ = self.labels.split(x)
        pac = self.critic.pac
        each = None if labels is None else labels.repeat_interleave(pac, 0)
        return self.critic(self.generator.dense(x).repeat_interleave(pac, 0), each)

    @torch.no_grad()
    def sample(self, rows: int, generator: torch.Generator, conditions: Sequence[Condition] = ()) -> Tensor:
        labels = self.labels.draw(rows, generator, conditions)
        z = torch.randn(rows, self.settings.latent, generator=generator)
        return self.generator.draw(z, labels, generator)


MODEL = Gan
