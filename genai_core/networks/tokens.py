"""Building blocks for the Tokens space: embeddings and output heads that know a value axis.

A number's tokens are not unordered. Their embeddings and output weights are the sum of a smooth part (radial bases
along the axis) and a free part under strong weight decay; beside the embedding stand the value's own features.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai_core.networks.pairs import PairLogits, paired
from genai_core.precision import at_least_float32
from genai_core.spaces import Position, Space, Tokens

BASES = 16
FEATURES = 6
ORDERED_FROM = 8  # shorter axes gain nothing from a smooth part
FREE_SCALE = 0.1
WIDTHS = (4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)


def offsets_of(space: Tokens) -> list[int]:
    """First row of each position in a table of all tokens."""
    return np.concatenate([[0], np.cumsum(space.vocabularies)])[:-1].tolist()


def _ordered(position: Position) -> bool:
    return position.values is not None and int(np.isfinite(_axis(position)).sum()) >= ORDERED_FROM


def _axis(position: Position) -> np.ndarray:
    values = position.values
    if values is None:
        return np.full(position.vocabulary, np.nan)
    return values if values.ndim == 1 else np.arange(position.vocabulary, dtype=float)


def _basis(position: Position) -> np.ndarray:
    """(vocabulary, BASES) radial bases over the rank along the axis; zero rows for tokens off it."""
    on_axis = np.isfinite(_axis(position))
    place = np.linspace(0, 1, max(on_axis.sum(), 1))[:, None]
    rows = np.zeros((position.vocabulary, BASES), np.float32)
    rows[on_axis] = np.exp(-0.5 * ((place - np.linspace(0, 1, BASES)) * BASES) ** 2)
    return rows


class TokenTable(nn.Module):
    """One vector a token of every position: free part + smooth part along value axes."""

    bases: Tensor
    rows: Tensor

    def __init__(self, space: Tokens, width: int, free_scale: float, smooth_scale: float) -> None:
        super().__init__()
        total = sum(space.vocabularies)
        ordered = [i for i, p in enumerate(space.positions) if _ordered(p)]
        self.free = nn.Parameter(torch.randn(total, width) * free_scale)
        self.smooth = nn.Parameter(torch.randn(len(ordered), BASES, width) * smooth_scale)
        longest = max((space.vocabularies[i] for i in ordered), default=0)
        bases = np.zeros((len(ordered), longest, BASES), np.float32)
        rows = np.full(total, len(ordered) * longest)  # the zero row
        for number, i in enumerate(ordered):
            size, start = space.vocabularies[i], offsets_of(space)[i]
            bases[number, :size] = _basis(space.positions[i])
            rows[start : start + size] = number * longest + np.arange(size)
        on_axis = torch.from_numpy(rows < len(ordered) * longest)
        self.register_buffer("bases", torch.from_numpy(bases), persistent=False)
        self.register_buffer("rows", torch.from_numpy(rows), persistent=False)
        with torch.no_grad():
            self.free[on_axis] *= FREE_SCALE

    def forward(self) -> Tensor:
        """The table, shape (all tokens, width)."""
        smooth = torch.bmm(self.bases, self.smooth).flatten(0, 1)
        return self.free + torch.cat([smooth, smooth.new_zeros(1, smooth.shape[1])])[self.rows]


class TokenEmbedding(nn.Module):
    """Tokens (batch, positions) -> (batch, positions, width), the last FEATURES of width from the value itself."""

    offsets: Tensor
    features: Tensor
    base: Tensor
    stride: Tensor
    parent: Tensor

    def __init__(self, space: Tokens, embedding: int) -> None:
        super().__init__()
        self.width = embedding + FEATURES
        self.table = TokenTable(space, embedding, 1.0, 0.5)
        self.register_buffer("offsets", torch.tensor(offsets_of(space)), persistent=False)
        features, base, stride, parent = _feature_table(space)
        for name, value in (("features", features), ("base", base), ("stride", stride), ("parent", parent)):
            self.register_buffer(name, value, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings of whole records."""
        return torch.cat([F.embedding(x + self.offsets, self.table()), self.value_features(x)], -1)

    def value_features(self, x: Tensor) -> Tensor:
        """(batch, positions, FEATURES)."""
        own = torch.where(self.stride > 0, x, 0)
        return self.features[self.base + own + x[:, self.parent] * (self.stride - 1).clamp(min=0)]


def _feature_table(space: Tokens) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features of all values, and per position: first row, stride of the parent's token + 1 (0: no values), parent."""
    tables, rows = [np.zeros((1, FEATURES), np.float32)], 1
    base, stride, parent = [], [], []
    for i, position in enumerate(space.positions):
        values = position.values
        paired = values is not None and values.ndim == 2
        base.append(0 if values is None else rows)
        stride.append(0 if values is None else 1 + position.vocabulary * paired)
        parent.append(position.parent if paired and position.parent is not None else i)
        if values is not None:
            tables.append(_features(values.reshape(-1)))
            rows += values.size
    return (
        torch.from_numpy(np.concatenate(tables)),
        torch.tensor(base),
        torch.tensor(stride),
        torch.tensor(parent),
    )


def _features(z: np.ndarray) -> np.ndarray:
    """Bounded views of a standardised value at several scales; zero off the axis."""
    z = np.nan_to_num(z, nan=0.0, posinf=0.0, neginf=0.0)
    views = [
        np.tanh(z / 3),
        np.tanh(z),
        np.tanh(3 * z),
        np.tanh(10 * z),
        np.arcsinh(10 * z) / 4,
        np.clip(z, -5, 5) / 2,
    ]
    return np.stack(views, -1).astype(np.float32)


class _Bucket(nn.Module):
    """Positions of similar vocabulary, padded to one width, so that one matrix product serves them all."""

    positions: Tensor
    rows: Tensor
    base: Tensor
    parents: Tensor
    allowed: Tensor

    def __init__(self, space: Tokens, positions: list[int], width: int) -> None:
        super().__init__()
        offsets, pad = offsets_of(space), sum(space.vocabularies)
        rows = np.full((len(positions), width), pad)
        tables: list[np.ndarray] = []
        base, parents, height = [], [], 0
        for number, i in enumerate(positions):
            position = space.positions[i]
            rows[number, : position.vocabulary] = offsets[i] + np.arange(position.vocabulary)
            if position.allowed is not None:
                tables.append(np.pad(position.allowed, ((0, 0), (0, width - position.vocabulary))))
                base.append(height)
                parents.append(position.parent)
                height += len(position.allowed)
        self.nested = bool(tables)
        buffers = {"positions": positions, "rows": rows, "base": base, "parents": parents}
        for name, value in buffers.items():
            self.register_buffer(name, torch.as_tensor(np.array(value, dtype=np.int64)), persistent=False)
        allowed = np.concatenate(tables) if tables else np.zeros((0, width), bool)
        self.register_buffer("allowed", torch.from_numpy(allowed), persistent=False)


class TokenHeads(nn.Module):
    """Hidden states -> log-probabilities of tokens, masked to what a parent's token allows."""

    def __init__(self, space: Tokens, hidden: int, pairs: bool = False) -> None:
        super().__init__()
        self.space = space
        self.pairs = nn.ModuleDict()
        for i in paired(space) if pairs else []:
            parent = space.positions[i].parent or 0
            self.pairs[str(i)] = PairLogits(space.vocabularies[parent], space.vocabularies[i], hidden)
        self.table = TokenTable(space, hidden, hidden**-0.5, 0.0)
        self.bias = nn.Parameter(torch.zeros(sum(space.vocabularies)))
        groups: dict[tuple[int, bool], list[int]] = defaultdict(list)
        for i, position in enumerate(space.positions):
            width = next((w for w in WIDTHS if w >= position.vocabulary), position.vocabulary)
            groups[width if str(i) not in self.pairs else -i, position.allowed is not None].append(i)
        self.buckets = nn.ModuleList(
            _Bucket(space, group, max(width, space.vocabularies[group[0]]))
            for (width, _), group in groups.items()
        )

    @torch.no_grad()
    def set_frequencies(self, x: Tensor) -> None:
        """Start from the log frequencies of the tokens, x (rows, positions)."""
        for i, start in enumerate(offsets_of(self.space)):
            size = self.space.vocabularies[i]
            counts = torch.bincount(x[:, i], minlength=size).float() + 0.1
            self.bias[start : start + size] = torch.log(counts / counts.sum()).to(self.bias)
            if str(i) in self.pairs:
                self.bias[start : start + size] = 0.0
                self.pair(i).set_frequencies(x[:, i], x[:, self.space.positions[i].parent or 0])

    def pair(self, i: int) -> PairLogits:
        """The table of pairs of position i."""
        found = self.pairs[str(i)]
        assert isinstance(found, PairLogits)
        return found

    def logits(self, hidden: Tensor, x: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Per bucket: positions (n,), masked logits (n, batch, width). hidden: (positions, batch, hidden)."""
        weight = F.pad(self.table(), (0, 0, 0, 1))
        bias = F.pad(self.bias, (0, 1), value=float("-inf"))
        found = []
        for bucket in self._each_bucket():
            logits, i = self._bucket_logits(bucket, hidden, x, weight, bias), int(bucket.positions[0])
            if str(i) in self.pairs:  # alone in its bucket
                logits = logits + self.pair(i)(hidden[i], x[:, self.space.positions[i].parent or 0])
            found.append((bucket.positions, logits))
        return found

    def _each_bucket(self) -> list[_Bucket]:
        return [module for module in self.buckets if isinstance(module, _Bucket)]

    @staticmethod
    def _bucket_logits(bucket: _Bucket, hidden: Tensor, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        w = weight[bucket.rows].transpose(1, 2)
        logits = torch.baddbmm(bias[bucket.rows].unsqueeze(1), hidden[bucket.positions], w)
        if bucket.nested:
            row = x[:, bucket.parents].T + bucket.base.unsqueeze(1)
            logits = logits.masked_fill(~bucket.allowed[row], float("-inf"))
        return logits

    def log_prob(self, hidden: Tensor, x: Tensor) -> Tensor:
        """Nats (batch, positions) of the tokens x given hidden (positions, batch, hidden)."""
        out = torch.zeros(x.shape[1], x.shape[0], device=x.device)
        found, where = [], []
        for positions, logits in self.logits(hidden, x):
            target = x[:, positions].T.reshape(-1)
            logits = at_least_float32(logits)
            loss = F.cross_entropy(logits.flatten(0, 1), target, reduction="none")
            found.append(-loss.view(len(positions), -1))
            where.append(positions)
        return out.index_copy(0, torch.cat(where), torch.cat(found)).T


def sum_by_field(space: Space, per_entry: Tensor) -> Tensor:
    """(batch, entries) -> (batch, fields)."""
    fields = torch.as_tensor(space.field_of, device=per_entry.device)
    out = per_entry.new_zeros(len(per_entry), len(space.fields))
    return out.index_add(1, fields, per_entry)


def sharpened(logits: Tensor, temperature: float, top_p: float) -> Tensor:
    """Logits (batch, vocabulary) for drawing: divided by the temperature, then only the smallest set of tokens that
    holds `top_p` of the probability (nucleus sampling: Holtzman et al. 2020)."""
    if temperature != 1.0:
        logits = logits / temperature
    if top_p >= 1.0:
        return logits
    ranked, order = torch.softmax(logits, 1).sort(1, descending=True)
    beyond = ranked.cumsum(1) - ranked >= top_p
    return logits.masked_fill(torch.zeros_like(beyond).scatter(1, order, beyond), float("-inf"))


def draw(logits: Tensor, uniform: Tensor) -> Tensor:
    """One token a row by inverse CDF; logits (batch, vocabulary), -inf where impossible; uniform (batch,) in [0, 1)."""
    weights = torch.softmax(logits, 1)
    cumulative = weights.cumsum(1)
    token = torch.searchsorted(cumulative, uniform.unsqueeze(1) * cumulative[:, -1:], right=True)
    token = token.clamp_(max=logits.shape[1] - 1)
    # rounding can land on a token of weight zero at the far end: step back to a possible one
    impossible = weights.gather(1, token) == 0
    if impossible.any():
        token = torch.where(impossible, weights.argmax(1, keepdim=True), token)
    return token.squeeze(1)
