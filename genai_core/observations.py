"""Observations: p(x | parameters) of a space. The parameters are a hidden state; reconstruction error is its
negative log-probability."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai_core.model import Condition
from genai_core.networks.tokens import TokenHeads, draw, offsets_of
from genai_core.spaces import Tokens


class Observation(nn.Module, ABC):
    """p(x | h) for records x (batch, entries) and hidden states h (batch, hidden)."""

    @abstractmethod
    def log_prob(self, h: Tensor, x: Tensor) -> Tensor:
        """Nats, the shape of x; of a label: those of its own probability."""

    @abstractmethod
    def draw(self, h: Tensor, generator: torch.Generator, conditions: Sequence[Condition] = ()) -> Tensor:
        """Records drawn given h; only what can be decoded, and every condition on a label holds."""

    def initialise(self, x: Tensor) -> None:
        """Set what a sample of the training data says before the first step."""


class TokenObservation(Observation):
    """Independent fields given h (batch, hidden); within a field a position also depends on its parent's token."""

    parent_starts: Tensor

    def __init__(self, space: Tokens, settings: Any) -> None:
        super().__init__()
        self.space, hidden = space, settings.hidden
        self.heads = TokenHeads(space, hidden)
        self.offsets = offsets_of(space)
        self.cuts = [slice(o, o + v) for o, v in zip(self.offsets, space.vocabularies, strict=True)]
        self.nested = [i for i, p in enumerate(space.positions) if p.parent is not None]
        self.nested_parents = [p.parent for p in space.positions if p.parent is not None]
        starts = torch.tensor([self.offsets[p] for p in self.nested_parents])
        self.register_buffer("parent_starts", starts.long(), persistent=False)
        self.given = nn.Parameter(
            torch.randn(sum(space.vocabularies), hidden) * 0.5 if self.nested else torch.zeros(0)
        )

    def log_prob(self, h: Tensor, x: Tensor) -> Tensor:
        """Nats (batch, positions) of tokens x given h (batch, hidden)."""
        hidden = h.unsqueeze(0).expand(x.shape[1], -1, -1)
        if self.nested:
            given = F.embedding(x[:, self.nested_parents] + self.parent_starts, self.given).transpose(0, 1)
            index = torch.tensor(self.nested, device=x.device)
            hidden = hidden.clone().index_copy(0, index, F.gelu(h.unsqueeze(0) + given))
        return self.heads.log_prob(hidden, x)

    def initialise(self, x: Tensor) -> None:
        self.heads.set_frequencies(x)

    def draw(self, h: Tensor, generator: torch.Generator, conditions: Sequence[Condition] = ()) -> Tensor:
        """Tokens (batch, positions) drawn given h; only what can be decoded."""
        x = torch.zeros(len(h), len(self.space.positions), dtype=torch.long)
        weight, bias = self.heads.table(), self.heads.bias
        for i, position in enumerate(self.space.positions):
            state = h
            if position.parent is not None:
                state = F.gelu(h + self.given[x[:, position.parent] + self.offsets[position.parent]])
            logits = state @ weight[self.cuts[i]].T + bias[self.cuts[i]]
            logits = logits.masked_fill(~torch.from_numpy(position.drawable), float("-inf"))
            if position.allowed is not None:
                keep = torch.from_numpy(position.allowed)[x[:, position.parent]]
                logits = logits.masked_fill(~keep, float("-inf"))
            x[:, i] = draw(logits, torch.rand(len(h), generator=generator))
        return x

    def relaxed(self, h: Tensor, temperature: float) -> Tensor:
        """Dense one-hot records (batch, all tokens) with gradients: straight-through Gumbel (Jang et al. 2017)."""
        found: list[Tensor] = []
        weight, bias = self.heads.table(), self.heads.bias
        for i, position in enumerate(self.space.positions):
            state, allowed = h, None
            if position.parent is not None:
                parent = found[position.parent]
                state = F.gelu(h + parent @ self.given[self.cuts[position.parent]])
                allowed = torch.from_numpy(position.allowed).to(h.device)[parent.argmax(1)]
            logits = state @ weight[self.cuts[i]].T + bias[self.cuts[i]]
            logits = logits.masked_fill(~torch.from_numpy(position.drawable).to(h.device), float("-inf"))
            if allowed is not None:
                logits = logits.masked_fill(~allowed, float("-inf"))
            found.append(F.gumbel_softmax(logits, temperature, hard=True))
        return torch.cat(found, 1)

    def dense(self, x: Tensor) -> Tensor:
        """Tokens (batch, positions) as dense one-hot records (batch, all tokens)."""
        index = x + torch.tensor(self.offsets, device=x.device)
        return torch.zeros(len(x), sum(self.space.vocabularies), device=x.device).scatter_(1, index, 1.0)
