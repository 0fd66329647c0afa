"""Tables over pairs of tokens, for large categories: a value is a group and a member, and neither says much alone"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai_core.spaces import Tokens

RANK = 16


def paired(space: Tokens) -> list[int]:
    """Positions whose tokens mean nothing without their parent's: members of groups of unordered values."""
    return [i for i, p in enumerate(space.positions) if p.parent is not None and p.values is None]


class PairEmbedding(nn.Module):
    """What a whole value adds to the embedding of its second token."""

    def __init__(self, space: Tokens, width: int) -> None:
        super().__init__()
        self.at = paired(space)
        self.parents = [int(space.positions[i].parent or 0) for i in self.at]
        self.sizes = [space.vocabularies[i] for i in self.at]
        self.tables = nn.ParameterList(
            torch.randn(space.vocabularies[p] * size, width) * 0.5
            for p, size in zip(self.parents, self.sizes, strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(positions at which there are pairs, batch, width)."""
        found = [
            F.embedding(x[:, parent] * size + x[:, i], table)
            for i, parent, size, table in zip(self.at, self.parents, self.sizes, self.tables, strict=True)
        ]
        return torch.stack(found)


class PairLogits(nn.Module):
    """What a pair adds to the logit of its second token: its own frequency, and RANK numbers that read the state."""

    def __init__(self, parents: int, vocabulary: int, hidden: int) -> None:
        super().__init__()
        self.shape = (parents, vocabulary)
        self.bias = nn.Parameter(torch.zeros(parents, vocabulary))
        self.vectors = nn.Parameter(torch.randn(parents, vocabulary * RANK) * 0.1)
        self.read = nn.Parameter(torch.randn(hidden, RANK) * hidden**-0.5)

    def forward(self, h: Tensor, parent: Tensor) -> Tensor:
        """(batch, vocabulary) of states h (batch, hidden) after the parent's tokens (batch,)."""
        vectors = F.embedding(parent, self.vectors).view(len(h), -1, RANK)
        return F.embedding(parent, self.bias) + torch.bmm(vectors, (h @ self.read).unsqueeze(2)).squeeze(2)

    @torch.no_grad()
    def set_frequencies(self, token: Tensor, parent: Tensor) -> None:
        """Start from the log frequencies of tokens after each parent's, both (rows,)."""
        parents, vocabulary = self.shape
        counts = torch.bincount(parent * vocabulary + token, minlength=parents * vocabulary).float() + 0.1
        counts = counts.view(parents, vocabulary)
        self.bias.copy_(torch.log(counts / counts.sum(1, keepdim=True)))
