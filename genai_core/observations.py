"""Observations: p(x | parameters) of a space. The parameters are a hidden state; reconstruction error is its
negative log-probability."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai_core.model import Condition
from genai_core.networks.dependence_tree import dependence_tree
from genai_core.networks.tokens import TokenHeads, offsets_of
from genai_core.spaces import Tokens

BELOW = 1 - 2**-22  # times a sum of weights: rounding stays below it
GIVEN_SCALE = 0.1  # of what a token first says to the fields that hang on it


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
    """Fields given h (batch, hidden) and the field that each of them hangs on most, along a tree learnt from data.

    A latent that must say every pair of columns that agree (a code and its number) to the letter blurs them: with
    independent fields these pairs gave synthetic rows away first. A position inside a field hangs on its parent.
    """

    tree: Tensor
    order: Tensor
    starts: Tensor

    def __init__(self, space: Tokens, settings: Any) -> None:
        super().__init__()
        self.space, hidden = space, settings.hidden
        self.heads = TokenHeads(space, hidden)
        self.offsets = offsets_of(space)
        self.cuts = [slice(o, o + v) for o, v in zip(self.offsets, space.vocabularies, strict=True)]
        # no smooth part and no decay: these cost .3 nats of Adult, for pairs of categories must be exact
        self.given = nn.Parameter(torch.randn(sum(space.vocabularies), hidden) * GIVEN_SCALE)
        parents = [-1 if p.parent is None else p.parent for p in space.positions]
        self.register_buffer("tree", torch.tensor(parents))
        self.register_buffer("order", torch.arange(len(parents)))
        self.register_buffer("starts", torch.tensor(self.offsets), persistent=False)

    def initialise(self, x: Tensor) -> None:
        """Marginals, and which field hangs on which."""
        self.heads.set_frequencies(x)
        tree, order = dependence_tree(self.space, x.numpy(force=True))
        self.tree.copy_(torch.tensor(tree))
        self.order.copy_(torch.tensor(order))

    def log_prob(self, h: Tensor, x: Tensor) -> Tensor:
        """Nats (batch, positions) of tokens x given h (batch, hidden)."""
        above = self.tree.clamp(min=0)
        given = F.embedding(x[:, above] + self.starts[above], self.given)
        given = given * (self.tree >= 0).unsqueeze(1)
        return self.heads.log_prob(h.unsqueeze(0) + given.transpose(0, 1), x)

    def draw(self, h: Tensor, generator: torch.Generator, conditions: Sequence[Condition] = ()) -> Tensor:
        """Tokens (batch, positions) drawn given h; only what can be decoded."""
        x = torch.zeros(len(self.space.positions), len(h), dtype=torch.long)
        uniform = torch.rand(x.shape, generator=generator)
        weight, bias, given = self.heads.table(), self._drawable_bias(), self.given
        tree: list[int] = self.tree.tolist()
        for i in self.order.tolist():
            state = h if tree[i] < 0 else h + given[x[tree[i]] + self.offsets[tree[i]]]
            logits = torch.addmm(bias[self.cuts[i]], state, weight[self.cuts[i]].T)
            x[i] = _inverse_cdf(self._allowed(i, logits, x), uniform[i])
        return x.T.contiguous()

    def relaxed(self, h: Tensor, temperature: float) -> Tensor:
        """Dense one-hot records (batch, all tokens) with gradients: straight-through Gumbel (Jang et al. 2017)."""
        found: dict[int, Tensor] = {}
        x = torch.zeros(len(self.space.positions), len(h), dtype=torch.long, device=h.device)
        weight, bias, given = self.heads.table(), self._drawable_bias(), self.given
        tree: list[int] = self.tree.tolist()
        for i in self.order.tolist():
            state = h if tree[i] < 0 else h + found[tree[i]] @ given[self.cuts[tree[i]]]
            logits = torch.addmm(bias[self.cuts[i]], state, weight[self.cuts[i]].T)
            found[i] = F.gumbel_softmax(self._allowed(i, logits, x), temperature, hard=True)
            x[i] = found[i].detach().argmax(1)
        return torch.cat([found[i] for i in range(len(found))], 1)

    def _drawable_bias(self) -> Tensor:
        """Biases (all tokens,), -inf of tokens from which no record can be decoded."""
        drawable = np.concatenate([position.drawable for position in self.space.positions])
        bias: Tensor = self.heads.bias
        return bias.masked_fill(~torch.from_numpy(drawable).to(bias.device), float("-inf"))

    def _allowed(self, i: int, logits: Tensor, x: Tensor) -> Tensor:
        """Logits of position i, -inf where the parent's token forbids it; x (positions, batch)."""
        position = self.space.positions[i]
        if position.allowed is None:
            return logits
        keep = torch.from_numpy(position.allowed).to(x.device)[x[position.parent]]
        return logits.masked_fill(~keep, float("-inf"))

    def dense(self, x: Tensor) -> Tensor:
        """Tokens (batch, positions) as dense one-hot records (batch, all tokens)."""
        index = x + torch.tensor(self.offsets, device=x.device)
        return torch.zeros(len(x), sum(self.space.vocabularies), device=x.device).scatter_(1, index, 1.0)


def _inverse_cdf(logits: Tensor, uniform: Tensor) -> Tensor:
    """One token a row; logits (batch, vocabulary) are overwritten; uniform (batch,) in [0, 1).

    As `draw`, in three passes over the logits: strictly below the sum, the first sum above has a weight of its own.
    """
    cumulative = logits.sub_(logits.amax(1, keepdim=True)).exp_().cumsum_(1)
    below = (uniform * BELOW).to(cumulative).unsqueeze(1) * cumulative[:, -1:]
    return torch.searchsorted(cumulative, below, right=True).squeeze(1)
