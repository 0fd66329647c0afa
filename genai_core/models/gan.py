"""Generative adversarial network (Goodfellow et al. 2014): an implicit model, samples without a likelihood.

Relativistic pairing with R1 and R2 penalties (Huang et al. 2024), or Wasserstein with a gradient penalty (Gulrajani
et al. 2017); packed critic, averaged generator.
"""

from __future__ import annotations

import math
from contextlib import nullcontext

import torch
from torch import Tensor

from genai_core import networks
from genai_core.adversarial import critic_loss, generator_loss
from genai_core.hyperparameters import Gan as Settings
from genai_core.model import Discriminates, Samples
from genai_core.spaces import Space
from genai_core.two_players import TwoPlayers

WASSERSTEIN_STEPS = 5  # of the critic for one of the generator, as published


class Gan(TwoPlayers, Samples, Discriminates):
    """Samples; its discriminator tells made from real, which is not a density."""

    betas = (0.0, 0.99)

    def __init__(self, space: Space, settings: Settings | None = None) -> None:
        s = settings or Settings()
        generator, critic = networks.players(space, s)
        super().__init__(space, generator, critic, s.latent)
        self.settings = s
        self.learning_rate, self.ema = generator.learning_rate, generator.ema
        steps = s.critic_steps or (WASSERSTEIN_STEPS if s.loss == "wasserstein" else 1)
        own = () if generator.own_phase is None else (generator.own_phase,)
        self.phases = (*own, *("discriminator",) * steps, "generator")

    def forward(self, x: Tensor, phase: str) -> Tensor:
        if phase == self.generator.own_phase:
            return self.generator.own_loss(x)
        s = self.settings
        own = torch.autocast(x.device.type, torch.bfloat16) if s.precision == "bfloat16" else nullcontext()
        with own:
            real, made, labels = self.deal(x, phase)
            if phase == "generator":
                return generator_loss(self.critic, real, made, labels, s.loss)
            return critic_loss(self.critic, real, made, labels, s.loss, self._gamma())

    def _gamma(self) -> float:
        """Weight of the penalties: strong at first, for stability, then annealed along a cosine (Huang et al. 2024)."""
        if self.settings.loss == "wasserstein":
            return self.settings.gamma
        final = self.critic.final_gamma
        gamma = self.settings.gamma * 2**self.restraint
        return gamma * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * self.done)))


MODEL = Gan
