"""Generator and critic of sequences: they play over the codes of an autoencoder that is trained beside them

After ARAE (Zhao et al. 2018): tokens have no gradient, codes do. It is the weakest way to write text that this project
has; an autoregressive model of the same size is better in every respect.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai_core.evaluation.frechet import kernel_distance
from genai_core.networks.adversaries import Critic, Generator
from genai_core.networks.mlp import ResidualMLP
from genai_core.networks.sequence_autoencoder import Ends, SequenceEncoder, SequenceObservation
from genai_core.spaces import Sequence

NOISE = (
    0.3  # of codes while the autoencoder learns, per dimension of unit variance: near codes must say the same
)
PAIRS = 128  # features that pairs of neighbouring tokens are counted in
FACTOR = 2654435761  # of their hash (Knuth's multiplier)


class SequenceGenerator(Generator):
    """Noise (and labels) -> codes (batch, latent), and the autoencoder that gives codes a meaning."""

    learning_rate = 4e-3
    own_phase = "autoencoder"
    compared = 256  # a token after the other is drawn

    def __init__(self, space: Sequence, settings: Any) -> None:
        super().__init__()
        self.space, self.ends = space, Ends(space)
        self.encoder = SequenceEncoder(space, settings)
        self.code = nn.Linear(settings.hidden, settings.latent)
        self.body = ResidualMLP(settings.latent, settings.hidden)
        self.observation = SequenceObservation(space, settings)
        self.of_label = nn.Embedding(space.classes, settings.latent) if space.classes else None
        self.maker = nn.Sequential(
            ResidualMLP(settings.latent, settings.hidden), nn.Linear(settings.hidden, settings.latent)
        )

    def initialise(self, x: Tensor) -> None:
        self.observation.initialise(x)

    def own_loss(self, x: Tensor) -> Tensor:
        """Nats per record that the decoder needs, given the record's code with some noise."""
        code = self._code(x)
        code = code + NOISE * torch.randn_like(code)
        return -self.observation.log_prob(self.body(code), x).sum() / len(x)

    def parameters_of(self, phase: str) -> list[nn.Parameter]:
        of_game = [self.maker] if self.of_label is None else [self.maker, self.of_label]
        parts = [self.encoder, self.code, self.body, self.observation] if phase == self.own_phase else of_game
        return [p for part in parts for p in part.parameters()]

    def forward(self, z: Tensor, labels: Tensor | None) -> Tensor:
        z = z if self.of_label is None else z + self.of_label(labels)
        return _unit(self.maker(z))

    def draw(self, z: Tensor, labels: Tensor | None, generator: torch.Generator) -> Tensor:
        return self.observation.drawn(self.body(self(z, labels)), labels, generator)

    @torch.no_grad()
    def dense(self, x: Tensor) -> Tensor:
        return self._code(x)

    def _code(self, x: Tensor) -> Tensor:
        return _unit(self.code(self.encoder(x)))

    def distance(self, real: Tensor, made: Tensor) -> float:
        """Kernel distance of how often pairs of neighbouring tokens occur, of lengths and labels.

        Not of codes: an autoencoder that forgets everything makes all codes alike.
        """
        a, b = (self._features(x).numpy(force=True) for x in (real, made))
        return kernel_distance(a, b)

    def _features(self, x: Tensor) -> Tensor:
        tokens = x[:, self.space.labelled :]
        counted = self.ends.counted(tokens).float()
        pairs = (tokens[:, :-1] * self.space.vocabulary + tokens[:, 1:]) * FACTOR % 2**31 % PAIRS
        found = torch.zeros(len(x), PAIRS, device=x.device).scatter_add_(1, pairs, counted[:, 1:])
        lengths = counted.sum(1, keepdim=True)
        parts = [found / lengths, lengths / self.space.length]
        if self.space.classes:
            parts.append(F.one_hot(x[:, 0], self.space.classes).float())
        return torch.cat(parts, 1)


class SequenceCritic(Critic):
    """Codes (batch, latent), `pac` of which are judged together (Lin et al. 2018) -> logits (batch / pac,)."""

    def __init__(self, space: Sequence, settings: Any) -> None:
        super().__init__()
        self.pac = settings.pac
        self.of_label = nn.Embedding(space.classes, settings.latent) if space.classes else None
        self.body = ResidualMLP(settings.latent * self.pac, settings.hidden)
        self.head = nn.Linear(settings.hidden, 1)

    def forward(self, dense: Tensor, labels: Tensor | None) -> Tensor:
        h = dense if self.of_label is None else dense + self.of_label(labels)
        return self.head(self.body(h.reshape(len(h) // self.pac, -1))).squeeze(1)


def sequence_players(space: Sequence, settings: Any) -> tuple[SequenceGenerator, SequenceCritic]:
    """Generator and critic."""
    return SequenceGenerator(space, settings), SequenceCritic(space, settings)


def _unit(code: Tensor) -> Tensor:
    """With mean 0 and variance 1 over the dimensions of each code: codes cannot run away from the noise."""
    return F.layer_norm(code, code.shape[1:])
