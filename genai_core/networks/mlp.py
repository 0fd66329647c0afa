"""Plain multilayer perceptrons, and the encoder of tables built from them."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from genai_core.networks.tokens import TokenEmbedding
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

    def __init__(self, space: Tokens, settings: Any) -> None:
        super().__init__()
        self.embedding = TokenEmbedding(space, settings.embedding)
        self.body = ResidualMLP(len(space.positions) * self.embedding.width, settings.hidden)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self.embedding(x).flatten(1))
