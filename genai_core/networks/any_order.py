"""A causal network over tokens that works in any order of the fields.

Every visible token adds its vector to a running sum (the context); each position reads the context of what comes
before it through layers of its own. One order costs one pass over all positions in training, and sampling adds one
vector a token, so a row costs O(positions x width x hidden).

After NADE (Larochelle & Murray 2011), its any-order training (Uria, Murray & Larochelle 2014) and TabularARGN
(Tiwald et al. 2025).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai_core.model import Condition
from genai_core.networks.causal import CausalNetwork
from genai_core.networks.tokens import TokenEmbedding, TokenHeads, draw, offsets_of, sharpened
from genai_core.spaces import Tokens
from genai_core.watermark import uniforms

HIDDEN, DROPOUT = 64, 0.15
FREE_DECAY = 2.0


class AnyOrderNetwork(CausalNetwork):
    """log p(token | the tokens before it) for every position, in any order of the fields."""

    learning_rate = 3e-3
    weight_decay = 0.05

    def __init__(self, space: Tokens, settings: Any) -> None:
        super().__init__()
        self.space, context, embedding = space, settings.context, settings.embedding
        hidden = settings.hidden or HIDDEN
        self.random_orders = settings.random_orders
        self.base = base_order(space)
        self._sampler: Sampler | None = None
        number = len(space.positions)
        self.embedding = TokenEmbedding(space, embedding)
        width = self.embedding.width
        self.source = nn.Parameter(torch.randn(number, width, context) * (number * width) ** -0.5)
        self.presence = nn.Parameter(torch.zeros(number, 1, context))
        self.inner = nn.Parameter(torch.randn(number, context, hidden) * (2 / context) ** 0.5)
        self.layers = nn.Parameter(torch.randn(2, number, hidden, hidden) * hidden**-0.5)
        self.biases = nn.Parameter(torch.zeros(3, number, 1, hidden))
        self.heads = TokenHeads(space, hidden)
        self.dropout = DROPOUT if settings.dropout is None else settings.dropout

    def groups(self) -> list[dict]:
        """The free part of ordered tables decays strongly: the smooth part must carry what it can."""
        free = [self.embedding.table.free, self.heads.table.free]
        rest = [p for p in self.parameters() if all(p is not f for f in free)]
        return [{"params": rest}, {"params": free, "weight_decay": FREE_DECAY}]

    def initialise(self, x: Tensor) -> None:
        self.heads.set_frequencies(x)

    def train(self, mode: bool = True) -> AnyOrderNetwork:
        self._sampler = None  # laid out from the weights, which may change now
        return super().train(mode)

    def sample(
        self,
        rows: int,
        generator: torch.Generator,
        conditions: Sequence[Condition] = (),
        temperature: float = 1.0,
        top_p: float = 1.0,
    ) -> Tensor:
        """Conditioned fields are drawn first and the rest given them: exact, without rejection."""
        self._sampler = self._sampler or Sampler(self)
        first = [c.field for c in conditions]
        order = position_order(self.space, first + [f for f in self.base if f not in first])
        masks = {
            i: table
            for c in conditions
            for i, table in zip(self.space.positions_of(c.field), c.allowed, strict=True)
        }
        return self._sampler(rows, order, generator, masks, temperature, top_p)

    def expected(self, x: Tensor, fields: Sequence[int]) -> Tensor:
        """x with each of the fields as it would be expected, given all others: see `networks.expected`."""
        from genai_core.networks.expected import expected

        self._sampler = self._sampler or Sampler(self)
        return expected(self, self._sampler, x, fields)

    def _order(self) -> Tensor:
        """The base order, or in training now and then a random one."""
        if not self.training or torch.rand(()) >= self.random_orders:
            return position_order(self.space, self.base)
        return position_order(self.space, torch.randperm(len(self.base)).tolist())

    def forward(self, x: Tensor, order: Tensor | None = None) -> Tensor:
        """Nats (batch, positions). order: a permutation of the positions, see `position_order`."""
        order = self._order() if order is None else order
        context = _SumBefore.apply(self.added(x), order.tolist())
        return self.heads.log_prob(self._hidden(context), x)

    def added(self, x: Tensor) -> Tensor:
        """(positions, rows, context): what each token adds to the running sum."""
        return torch.baddbmm(self.presence, self.embedding(x).transpose(0, 1), self.source)

    def _hidden(self, context: Tensor) -> Tensor:
        first, second, third = self.biases
        h = self._drop(F.gelu(torch.baddbmm(first, context, self.inner)))
        h = h + self._drop(F.gelu(torch.baddbmm(second, h, self.layers[0])))
        return h + F.gelu(torch.baddbmm(third, h, self.layers[1]))

    def _drop(self, h: Tensor) -> Tensor:
        """Dropout with a mask of random bytes, the rate rounded to 1/256: torch's own mask took a fifth of a step."""
        cut = round(self.dropout * 256)
        if not self.training or not cut:
            return h
        words = torch.empty((h.numel() + 7) // 8, dtype=torch.int64, device=h.device).random_(-(2**63), None)
        keep = (words.view(torch.uint8)[: h.numel()] >= cut).view_as(h)
        return h * keep * (256 / (256 - cut))


class _SumBefore(torch.autograd.Function):
    """For every position the sum of what comes before it in `order`; (positions, batch, width) in and out.

    A loop of additions: torch's cumsum over the outer dimension took an eighth of a training step.
    """

    @staticmethod
    def forward(ctx: Any, added: Tensor, order: list[int]) -> Tensor:
        ctx.order = order
        return _running(added, order)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _running(gradient, ctx.order[::-1]), None


def _running(values: Tensor, order: list[int]) -> Tensor:
    out = torch.empty_like(values)
    total = torch.zeros_like(values[0])
    for i in order:
        out[i] = total
        total += values[i]
    return out


class Sampler:
    """Draws records position by position from an `AnyOrderNetwork`."""

    @torch.no_grad()
    def __init__(self, network: AnyOrderNetwork) -> None:
        self.network, self.space = network, network.space
        heads, table = network.heads.table(), network.embedding.table()
        cuts = [slice(o, o + v) for o, v in zip(offsets_of(self.space), self.space.vocabularies, strict=True)]
        width = table.shape[1]
        self.added = [table[c] @ network.source[i, :width] + network.presence[i] for i, c in enumerate(cuts)]
        self.from_value = network.source[:, width:]
        self.weights = [heads[c].T.contiguous() for c in cuts]
        self.bias = [self._drawable_bias(i, c) for i, c in enumerate(cuts)]
        self.allowed = [
            None if p.allowed is None else torch.from_numpy(p.allowed) for p in self.space.positions
        ]

    def _drawable_bias(self, i: int, cut: slice) -> Tensor:
        bias = self.network.heads.bias[cut].clone()
        bias[~torch.from_numpy(self.space.positions[i].drawable)] = float("-inf")
        return bias

    @torch.no_grad()
    def __call__(
        self,
        rows: int,
        order: Tensor,
        generator: torch.Generator,
        masks: dict[int, Tensor],
        temperature: float = 1.0,
        top_p: float = 1.0,
    ) -> Tensor:
        """x (rows, positions). masks: position -> further `allowed` table of a condition."""
        x = torch.zeros(rows, len(self.space.positions), dtype=torch.long)
        context = torch.zeros(rows, self.network.source.shape[2])
        features = self.network.embedding
        for number, i in enumerate(order.tolist()):
            logits = self.logits(i, context, x, masks.get(i))
            uniform = uniforms(generator, x, i, order[:number].tolist())
            x[:, i] = draw(sharpened(logits, temperature, top_p), uniform)
            context += self.added[i][x[:, i]]
            if int(features.stride[i]):
                row = (
                    features.base[i]
                    + x[:, i]
                    + x[:, features.parent[i]] * max(int(features.stride[i]) - 1, 0)
                )
                context += features.features[row] @ self.from_value[i]
        return x

    def logits(self, i: int, context: Tensor, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(rows, vocabulary) of position i after what made the context; -inf for tokens that cannot be."""
        net = self.network
        h = F.gelu(torch.addmm(net.biases[0, i], context, net.inner[i]))
        h = h + F.gelu(torch.addmm(net.biases[1, i], h, net.layers[0, i]))
        h = h + F.gelu(torch.addmm(net.biases[2, i], h, net.layers[1, i]))
        logits = torch.addmm(self.bias[i], h, self.weights[i])
        for table in (self.allowed[i], mask):
            if table is not None:
                parent = self.space.positions[i].parent
                keep = table if table.dim() == 1 or parent is None else table[x[:, parent]]
                logits = logits.masked_fill(~keep, float("-inf"))
        return logits


def position_order(space: Tokens, fields: list[int]) -> Tensor:
    """Positions in the order of `fields`; the positions of one field stay together."""
    return torch.tensor([i for field in fields for i in space.positions_of(field)])


def base_order(space: Tokens) -> list[int]:
    """Fields by the size of their first vocabulary, small ones first: their distributions are learnt best."""
    sizes = [space.vocabularies[space.positions_of(f)[0]] for f in range(len(space.fields))]
    return np.argsort(sizes, kind="stable").tolist()
