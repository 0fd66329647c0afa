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

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai_core.model import Condition
from genai_core.networks.causal import CausalNetwork
from genai_core.networks.pairs import PairEmbedding
from genai_core.networks.tokens import FEATURES, TokenEmbedding, TokenHeads, draw, offsets_of, sharpened
from genai_core.spaces import Implied, Tokens
from genai_core.tables.orders import base_order, implied_in, position_order
from genai_core.watermark import uniforms

HIDDEN, WIDER, MANY_TOKENS = 48, 64, 1000
MANY_POSITIONS = 256  # each has layers of its own: 500 columns have 24 million weights with the wider ones
DROPOUT = 0.15
EPOCHS, STEPS = 12, 480  # the first are enough, unless they are fewer steps than the second
FREE_DECAY = 2.0
SAFE_WIDTH = 16  # columns
DRAWN, UNKNOWN = -1, -2  # in place of tokens that are given


class AnyOrderNetwork(CausalNetwork):
    """log p(token | the tokens before it) for every position, in any order of the fields."""

    learning_rate = 8e-3
    weight_decay = 0.05

    def __init__(self, space: Tokens, settings: Any) -> None:
        super().__init__()
        self.space, embedding = space, settings.embedding
        wider = sum(space.vocabularies) > MANY_TOKENS and len(space.positions) <= MANY_POSITIONS
        hidden = settings.hidden or (WIDER if wider else HIDDEN)
        context = settings.context or 2 * hidden
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
        self.heads = TokenHeads(space, hidden, pairs=True)
        self.pairs = PairEmbedding(space, embedding)
        self.dropout = DROPOUT if settings.dropout is None else settings.dropout

    def groups(self) -> list[dict]:
        """The free part of ordered tables decays strongly: the smooth part must carry what it can."""
        free = [self.embedding.table.free, self.heads.table.free]
        rest = [p for p in self.parameters() if all(p is not f for f in free)]
        return [{"params": rest}, {"params": free, "weight_decay": FREE_DECAY}]

    def epochs(self, steps: int) -> int:
        return min(max(EPOCHS, STEPS // steps), super().epochs(steps))

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
        temperature: float | Sequence[float] = 1.0,
        top_p: float | Sequence[float] = 1.0,
        given: Tensor | None = None,
    ) -> Tensor:
        """Conditioned fields are drawn first and the rest given them: without rejection.

        temperature, top_p  of all positions, or one for each
        given               tokens (rows, positions) that rows have already; DRAWN where they are to be drawn, UNKNOWN
                            for what a row has but the network shall not see
        """
        self._sampler = self._sampler or Sampler(self)
        first = [c.field for c in conditions if c.first]
        order = position_order(self.space, first + [f for f in self.base if f not in first])
        return self._sampler(rows, order, generator, conditions, temperature, top_p, given)

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
        if not self.training and not torch.is_grad_enabled():
            self._sampler = self._sampler or Sampler(self)
            return self._sampler.log_prob(x, order)
        context = _SumBefore.apply(self.added(x), order.tolist())
        return without_implied(
            self.heads.log_prob(self._hidden(context), x), x, implied_in(self.space, order)
        )

    def added(self, x: Tensor) -> Tensor:
        """(positions, rows, context): what each token adds to the running sum."""
        embedded = self.embedding(x).transpose(0, 1)
        if self.pairs.at:
            of_pairs = F.pad(self.pairs(x), (0, FEATURES))
            embedded = embedded.index_add(0, torch.tensor(self.pairs.at, device=x.device), of_pairs)
        return torch.baddbmm(self.presence, embedded, self.source)

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

    generate_vmap_rule = True  # gradients of single records: see genai_core.privacy

    @staticmethod
    def forward(added: Tensor, order: list[int]) -> Tensor:
        return _running(added, order)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, list[int]], output: Tensor) -> None:
        ctx.order = inputs[1]

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
    """Goes from position to position with what tokens add laid out as tables, for an `AnyOrderNetwork`.

    It draws records, and gives their log-probabilities in half the time that the path of the training takes.
    """

    @torch.no_grad()
    def __init__(self, network: AnyOrderNetwork) -> None:
        self.network, self.space = network, network.space
        heads, table = network.heads.table(), network.embedding.table()
        cuts = [slice(o, o + v) for o, v in zip(offsets_of(self.space), self.space.vocabularies, strict=True)]
        width = table.shape[1]
        self.added = [table[c] @ network.source[i, :width] + network.presence[i] for i, c in enumerate(cuts)]
        self.added_pairs = {
            i: pairs @ network.source[i, :width]
            for i, pairs in zip(network.pairs.at, network.pairs.tables, strict=True)
        }
        self.from_value = network.source[:, width:]
        self._fold_features()
        self.weights = [_widened(heads[c]) for c in cuts]
        self.bias = [network.heads.bias[c].clone() for c in cuts]
        self.drawable_bias = [self._drawable_bias(i) for i in range(len(cuts))]
        self.allowed = [
            None if p.allowed is None else torch.from_numpy(p.allowed).to(table.device)
            for p in self.space.positions
        ]

    def _fold_features(self) -> None:
        """Features of values that depend on their own token alone are part of what the token adds."""
        features = self.network.embedding
        for i, size in enumerate(self.space.vocabularies):
            if int(features.stride[i]) == 1:
                own = features.features[int(features.base[i]) :][:size]
                self.added[i] = self.added[i] + own @ self.from_value[i]

    def _drawable_bias(self, i: int) -> Tensor:
        bias = self.bias[i].clone()
        bias[~torch.from_numpy(self.space.positions[i].drawable)] = float("-inf")
        return bias

    @torch.no_grad()
    def __call__(
        self,
        rows: int,
        order: Tensor,
        generator: torch.Generator,
        conditions: Sequence[Condition] = (),
        temperature: float | Sequence[float] = 1.0,
        top_p: float | Sequence[float] = 1.0,
        given: Tensor | None = None,
    ) -> Tensor:
        """x (rows, positions); the arguments are those of `AnyOrderNetwork.sample`."""
        x = torch.zeros(
            len(self.space.positions), rows, dtype=torch.long
        ).T  # a position's tokens lie together
        context = torch.zeros(rows, self.network.source.shape[2])
        steering = Steering(self.space, conditions, rows, generator)
        asked = {c.field for c in conditions}
        follows = {one.position: one for one in implied_in(self.space, order) if one.field not in asked}
        known: dict[int, Tensor] = {}  # tokens that follow from others, -1 where they do not
        if given is not None:
            x = given.clamp(min=0)
            for i in range(x.shape[1]):
                context += self.adds(i, x) * (given[:, i : i + 1] >= 0)
        for number, i in enumerate(order.tolist()):
            uniform = uniforms(generator, x, i, order[:number].tolist())
            todo = None if given is None else given[:, i] == DRAWN
            if todo is not None and not bool(todo.any()):
                continue
            logits = steering(i, self.logits(i, context, x), x)
            found = draw(sharpened(logits, _at(temperature, i), _at(top_p, i)), uniform)
            if i in known:
                found = torch.where(known[i] >= 0, known[i], found)
            x[:, i] = found if todo is None else torch.where(todo, found, x[:, i])
            if i in follows:
                tokens = torch.from_numpy(follows[i].tokens(x.numpy()))
                known |= dict(zip(follows[i].own, tokens.unbind(1), strict=True))
            added = self.adds(i, x)
            context += added if todo is None else added * todo.unsqueeze(1)
        return x

    def adds(self, i: int, x: Tensor) -> Tensor:
        """(rows, context): what the tokens of position i add to the running sum; with the value's own features."""
        features, parent = self.network.embedding, self.space.positions[i].parent
        added = F.embedding(x[:, i], self.added[i])  # indexing took six times as long
        if i in self.added_pairs:
            added += F.embedding(x[:, parent] * self.space.vocabularies[i] + x[:, i], self.added_pairs[i])
        stride = int(features.stride[i])
        if stride > 1:
            row = features.base[i] + x[:, i] + x[:, features.parent[i]] * (stride - 1)
            added += F.embedding(row, features.features) @ self.from_value[i]
        return added

    @torch.no_grad()
    def log_prob(self, x: Tensor, order: Tensor) -> Tensor:
        """Nats (rows, positions) of the tokens x, each given those before it in `order`."""
        x = x.T.contiguous().T
        context = self.from_value.new_zeros(len(x), self.from_value.shape[2])
        found = context.new_empty(x.shape[1], len(x))
        for i in order.tolist():
            logits = torch.log_softmax(self.logits(i, context, x, drawing=False), 1)
            found[i] = logits.gather(1, x[:, i : i + 1]).squeeze(1)
            context += self.adds(i, x)
        return without_implied(found.T, x, implied_in(self.space, order))

    def logits(self, i: int, context: Tensor, x: Tensor, drawing: bool = True) -> Tensor:
        """(rows, vocabulary) of position i after what made the context; -inf for tokens that cannot be.

        drawing: those that no value can be written of cannot be either
        """
        net, parent = self.network, self.space.positions[i].parent
        h = F.gelu(torch.addmm(net.biases[0, i], context, net.inner[i]))
        for layer in (0, 1):
            h += F.gelu(torch.addmm(net.biases[1 + layer, i], h, net.layers[layer, i]))
        bias = (self.drawable_bias if drawing else self.bias)[i]
        logits = (h @ self.weights[i])[:, : len(bias)] + bias
        if i in self.added_pairs:
            logits += net.heads.pair(i)(h, x[:, parent])
        allowed = self.allowed[i]
        if allowed is None:
            return logits
        return logits.masked_fill(~allowed.index_select(0, x[:, parent]), float("-inf"))


def _widened(head: Tensor) -> Tensor:
    """(hidden, tokens or more): with 5 to 11 columns a product of MKL depends on where in the batch a row stands."""
    return F.pad(head, (0, 0, 0, max(SAFE_WIDTH - len(head), 0))).T.contiguous()


class Steering:
    """What conditions do to the logits of each position, row by row."""

    def __init__(
        self, space: Tokens, conditions: Sequence[Condition], rows: int, generator: torch.Generator
    ) -> None:
        self.space = space
        self.tables: dict[int, list[tuple[Tensor, Tensor | None]]] = {}
        for condition in conditions:
            choice = None
            if condition.shares is not None:
                uniform = torch.rand(rows, generator=generator)
                choice = draw(condition.shares.log().expand(rows, -1), uniform)
            positions = space.values_of(condition.field)
            for i, table in zip(positions, condition.allowed, strict=True):
                self.tables.setdefault(i, []).append((table, choice))

    def __call__(self, i: int, logits: Tensor, x: Tensor) -> Tensor:
        parent = self.space.positions[i].parent
        for table, choice in self.tables.get(i, ()):
            index = [part for part in (choice, None if parent is None else x[:, parent]) if part is not None]
            own = table[tuple(index[: table.dim() - 1])] if index else table
            logits = logits.masked_fill(~own, float("-inf")) if own.dtype == torch.bool else logits + own
        return logits


def _at(value: float | Sequence[float], i: int) -> float:
    return value if isinstance(value, int | float) else value[i]


def without_implied(nats: Tensor, x: Tensor, implied: Sequence[Implied]) -> Tensor:
    """Nats (rows, positions) of tokens x, 0 for those that follow from others."""
    for one in implied:
        own = torch.tensor(one.own, device=x.device)
        follows = (x[:, one.position] > 0).unsqueeze(1)
        nats = nats.index_copy(1, own, nats[:, own].masked_fill(follows, 0.0))
    return nats
