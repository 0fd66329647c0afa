"""Generator and critic of tables: straight-through Gumbel outputs along a tree of fields, packed judgement."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai_core.adversarial import kernel_distance
from genai_core.networks.adversaries import Critic, Generator
from genai_core.networks.mlp import ResidualMLP
from genai_core.networks.tokens import TokenTable
from genai_core.observations import TokenObservation
from genai_core.spaces import Tokens

START_STEPS, START_BATCH, START_RATE = 400, 512, 5e-3  # of the likelihood before the game


class TokenGenerator(Generator):
    """Noise -> hidden state -> a token of every position."""

    def __init__(self, space: Tokens, settings: Any) -> None:
        super().__init__()
        self.space, self.temperature = space, settings.temperature
        self.body = ResidualMLP(settings.latent, settings.hidden)
        self.observation = TokenObservation(space, settings)

    def forward(self, z: Tensor, labels: Tensor | None) -> Tensor:
        return self.observation.relaxed(self.body(z), self.temperature)

    def draw(self, z: Tensor, labels: Tensor | None, generator: torch.Generator) -> Tensor:
        return self.observation.draw(self.body(z), generator)

    def dense(self, x: Tensor) -> Tensor:
        return self.observation.dense(x)

    def distance(self, real: Tensor, made: Tensor) -> float:
        return kernel_distance(self._main(real), self._main(made))

    def _main(self, x: Tensor) -> Tensor:
        """Dense records of the positions without parent: ranks inside a bin agree by chance only."""
        dense, columns = self.dense(x), self.observation.cuts
        main = [cut for cut, p in zip(columns, self.space.positions, strict=True) if p.parent is None]
        return torch.cat([dense[:, cut] for cut in main], 1)

    def initialise(self, x: Tensor) -> None:
        """The game starts where likelihood ends: at pairs of fields that agree, whatever the noise says.

        From marginals alone the critic wins for good on a table of 15 columns.
        """
        self.observation.initialise(x)
        parts = [*self.observation.parameters()]
        optimiser = torch.optim.AdamW(parts, lr=START_RATE, weight_decay=0.01)
        for step in range(START_STEPS):
            batch = x[torch.randint(len(x), (min(START_BATCH, len(x)),), device=x.device)]
            noise = torch.randn(len(batch), self.body.first.in_features, device=x.device)
            with torch.enable_grad():
                loss = -self.observation.log_prob(self.body(noise).detach(), batch).sum() / len(batch)
                gradients = torch.autograd.grad(loss, parts)
            for parameter, gradient in zip(parts, gradients, strict=True):
                parameter.grad = gradient
            optimiser.param_groups[0]["lr"] = START_RATE * min(1.0, 2 * (1 - step / START_STEPS))
            optimiser.step()
        optimiser.zero_grad()


class TokenCritic(Critic):
    """Dense one-hot records (batch, all tokens) -> logits (batch / pac,); `pac` records are judged together.

    PacGAN (Lin et al. 2018): several samples at once show a discriminator that modes are missing.
    """

    def __init__(self, space: Tokens, settings: Any) -> None:
        super().__init__()
        self.pac = settings.pac
        scale = (3 * len(space.positions)) ** -0.5
        self.table = TokenTable(space, settings.hidden, scale, scale)
        self.body = ResidualMLP(settings.hidden * self.pac, settings.hidden)
        self.head = nn.Linear(settings.hidden, 1)

    def forward(self, dense: Tensor, labels: Tensor | None) -> Tensor:
        h = F.leaky_relu(dense @ self.table(), 0.2)
        return self.head(self.body(h.reshape(len(h) // self.pac, -1))).squeeze(1)


def token_players(space: Tokens, settings: Any) -> tuple[TokenGenerator, TokenCritic]:
    """Generator and critic."""
    return TokenGenerator(space, settings), TokenCritic(space, settings)
