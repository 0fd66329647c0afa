"""Plain multilayer perceptrons, and the encoder and critic of the Tokens space built from them."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from genai_core.networks.tokens import TokenEmbedding, TokenTable
from genai_core.spaces import Tokens


class ResidualMLP(nn.Module):
    """inputs -> hidden, then residual layers at that width."""

    def __init__(self, inputs: int, hidden: int, layers: int = 2) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, hidden)
        self.rest = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        h = F.gelu(self.first(x))
        for layer in self.rest:
            h = h + F.gelu(layer(h))
        return h


class TokenEncoder(nn.Module):
    """x (batch, positions) -> (batch, hidden)."""

    def __init__(self, space: Tokens, hidden: int, embedding: int) -> None:
        super().__init__()
        self.embedding = TokenEmbedding(space, embedding)
        self.body = ResidualMLP(len(space.positions) * self.embedding.width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self.embedding(x).flatten(1))


class TokenCritic(nn.Module):
    """Dense one-hot records (batch, all tokens) -> logits (batch / pac,); `pac` records are judged together.

    PacGAN (Lin et al. 2018): several samples at once show a discriminator that modes are missing.
    """

    def __init__(self, space: Tokens, hidden: int, pac: int) -> None:
        super().__init__()
        self.pac = pac
        scale = (3 * len(space.positions)) ** -0.5
        self.table = TokenTable(space, hidden, scale, scale)
        self.body = ResidualMLP(hidden * pac, hidden)
        self.head = nn.Linear(hidden, 1)

    def forward(self, dense: Tensor) -> Tensor:
        h = F.leaky_relu(dense @ self.table(), 0.2)
        return self.head(self.body(h.reshape(len(h) // self.pac, -1))).squeeze(1)
