"""Generator and critic of tables: straight-through Gumbel outputs along a tree of fields, packed judgement."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai_core.adversarial import kernel_distance
from genai_core.networks.adversaries import Critic, Generator
from genai_core.networks.mlp import ResidualMLP, TokenEncoder
from genai_core.networks.tokens import TokenTable
from genai_core.observations import TokenObservation
from genai_core.spaces import Tokens

START_PASSES, START_STEPS = 12, (100, 600)  # of the likelihood before the game; least and most steps
START_BATCH, START_RATE = 512, 3e-3


class TokenGenerator(Generator):
    """Noise -> hidden state -> a token of every position."""

    learning_rate = 3e-4  # of the game: faster ones undo the start before the critic knows better
    epochs = (6, 480)

    def __init__(self, space: Tokens, settings: Any) -> None:
        super().__init__()
        self.space, self.settings, self.temperature = space, settings, settings.temperature
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
        """The game starts from the decoder of a variational autoencoder (Larsen et al. 2016), whose encoder is dropped.

        From marginals alone the critic wins for good on a table of 15 columns.
        """
        self.observation.initialise(x)
        torch.manual_seed(0)  # a fit that goes on starts from here again; every step has a seed of its own
        width, latent = self.body.first.out_features, self.body.first.in_features
        encoder = nn.Sequential(TokenEncoder(self.space, self.settings), nn.Linear(width, 2 * latent))
        parts = [*self.parameters(), *encoder.to(x.device).parameters()]
        optimiser = torch.optim.AdamW(parts, lr=START_RATE, betas=(0.9, 0.99), weight_decay=0.01)
        rows = min(START_BATCH, max(len(x) // 20, 32), len(x))
        steps = min(max(START_PASSES * len(x) // rows, START_STEPS[0]), START_STEPS[1])
        for step in range(steps):
            batch = x[torch.randint(0, len(x), (rows,), device=x.device)]
            with torch.enable_grad():
                gradients = torch.autograd.grad(self._bound(encoder, batch), parts)
            for parameter, gradient in zip(parts, gradients, strict=True):
                parameter.grad = gradient
            optimiser.param_groups[0]["lr"] = START_RATE * min(1.0, 2 * (1 - step / steps))
            optimiser.step()
        optimiser.zero_grad()

    def _bound(self, encoder: nn.Module, x: Tensor) -> Tensor:
        """Minus the lower bound of the likelihood, nats per record, under the noise that is drawn from."""
        mean, log_scale = encoder(x).chunk(2, 1)
        log_scale = log_scale.clamp(-8, 4)
        z = mean + log_scale.exp() * torch.randn_like(mean)
        cost = (0.5 * (mean.square() + (2 * log_scale).exp() - 1) - log_scale).sum(1)
        return (cost - self.observation.log_prob(self.body(z), x).sum(1)).mean()


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
