"""N-gram counts as part of a network: interpolated Kneser-Ney, no training record judged by counts of its own block

Kneser & Ney (1995) and Chen & Goodman (1999), with discounts learnt by gradient. A record that is trained on would find
itself in the counts and the network would learn to trust them blindly; so the counts of the block of records that it
belongs to are taken off first (stacking: Wolpert 1992).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LONGEST = (
    7  # tokens of an n-gram; held-out nats per character of Tiny Shakespeare: 6: 1.546, 7: 1.531, 8: 1.530
)
BLOCKS = 16
OCCURRENCES = 2**21  # counted at most
REACH = 16  # tokens before a token that tell whether two windows show the same place of a text
FACTOR = 6364136223846793005  # of the rolling hash (Knuth's multiplier)


class Counts(NamedTuple):
    """How often a token followed a context: context * vocabulary + token, sorted, and the number beside it."""

    entries: Tensor
    numbers: Tensor

    def dense(self, contexts: Tensor, vocabulary: int) -> Tensor:
        """Shape of contexts + (vocabulary,)."""
        flat = contexts.reshape(-1) * vocabulary
        first = torch.searchsorted(self.entries, flat)
        size = torch.searchsorted(self.entries, flat + vocabulary) - first
        row = torch.repeat_interleave(size)
        at = torch.arange(len(row), device=row.device) + (first - size.cumsum(0) + size)[row]
        out = torch.zeros(len(flat) * vocabulary, device=row.device)
        out[row * vocabulary + self.entries[at] % vocabulary] = self.numbers[at].to(out.dtype)
        return out.view(*contexts.shape, vocabulary)


class NGrams(nn.Module):
    """log p(token | the few tokens before it) of a `Sequence`, from counts of the training records.

    windows: the records are windows of longer texts that may overlap, so a place that several show counts once.
    """

    entries: Tensor
    numbers: Tensor
    powers: Tensor

    def __init__(self, vocabulary: int, windows: bool) -> None:
        super().__init__()
        self.vocabulary, self.windows, self.order = vocabulary, windows, longest(vocabulary)
        self.register_buffer("entries", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("numbers", torch.zeros(0, dtype=torch.int32))
        powers = torch.tensor([(vocabulary + 1) ** i for i in range(self.order - 1)])
        self.register_buffer("powers", powers, persistent=False)
        # D(n) = a n / (n + b), the discount of a count n: b = exp(late), D(1) = sigmoid(one)
        self.one = nn.Parameter(torch.full((self.order, 1, 1), 1.4))
        self.late = nn.Parameter(torch.full((self.order, 1, 1), 0.7))
        # by block, for training only: neither saved nor copied at every step, so no buffers
        self._own: Counts | None = None
        self._hashes = self._blocks = torch.zeros(0, dtype=torch.int64)

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        for name in ("entries", "numbers"):  # their lengths come from the data
            if prefix + name in state:
                setattr(self, name, torch.empty_like(state[prefix + name], device=self.entries.device))
        super()._load_from_state_dict(state, prefix, *rest)

    @torch.no_grad()
    def initialise(self, x: Tensor, counted: Tensor) -> None:
        """Count the n-grams of x (rows, length); `counted`, of its shape, is False for what follows an end."""
        block = torch.arange(len(x), device=x.device) * BLOCKS // len(x)
        self._hashes, order = _hash(x).sort(stable=True)
        self._blocks = block[order]
        row, column = self._occurrences(x, counted)
        context = self.contexts(x, 0, x.shape[1])[-1, row, column]
        pair = (context * self.vocabulary + x[row, column]) * BLOCKS + block[row]
        whole, own = zip(*self._levels(pair), strict=True)
        self.entries, self.numbers = _sorted(whole)
        self._own = _sorted(own)
        self.numbers = self.numbers.to(torch.int32)

    def _occurrences(self, x: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
        """Rows and columns of the tokens to count."""
        if self.windows:
            reach = min(REACH, x.shape[1] // 4)
            seen = _hash(x.unfold(1, reach + 1, 1).reshape(-1, reach + 1)).sort(stable=True)
            new = torch.ones_like(seen.values, dtype=torch.bool)
            new[1:] = seen.values.diff() != 0
            at = seen.indices[new].sort().values
            row, column = at // (x.shape[1] - reach), at % (x.shape[1] - reach) + reach
        else:
            row, column = counted.nonzero(as_tuple=True)
        step = -(-len(row) // OCCURRENCES)
        return row[::step], column[::step]

    def _levels(self, pair: Tensor) -> Iterator[tuple[Counts, Counts]]:
        """From the longest n-grams to the single token: counts, and the part of them that goes with each block.

        pair: entry * BLOCKS + block of each occurrence. The longest are counted as they occur, the others by the
        number of different tokens seen before them; so these lose one with a block for every n-gram, longer by a
        token, that occurs in that block only.
        """
        pairs, lost = torch.unique(pair, return_counts=True)
        entries, numbers = torch.unique(pair // BLOCKS, return_counts=True)
        for size in range(self.order, 0, -1):
            entry, block = pairs // BLOCKS, pairs % BLOCKS
            context, token = entry // self.vocabulary, entry % self.vocabulary
            yield (
                Counts(entries, numbers),
                Counts((context * BLOCKS + block) * self.vocabulary + token, lost),
            )
            if size > 1:
                only = lost == numbers[torch.searchsorted(entries, entry)]
                entries, numbers = torch.unique(self._shortened(entries, size), return_counts=True)
                short = self._shortened(entry[only], size) * BLOCKS + block[only]
                pairs, lost = torch.unique(short, return_counts=True)

    def _shortened(self, entries: Tensor, size: int) -> Tensor:
        """n-grams of `size` tokens without their first."""
        context, token = entries // self.vocabulary, entries % self.vocabulary
        kept = (context // self.order) % (self.vocabulary + 1) ** (size - 2)
        return (kept * self.order + size - 2) * self.vocabulary + token

    def contexts(self, x: Tensor, first: int, last: int) -> Tensor:
        """Codes (order, rows, last - first) of the last 0, 1, ... tokens before each place; start tokens precede x."""
        history = F.pad(x, (self.order - 1, 0), value=self.vocabulary)[:, first : last + self.order - 2]
        before = history.unfold(1, self.order - 1, 1).flip(-1)
        codes = F.pad((before * self.powers).cumsum(-1), (1, 0)) * self.order
        return (codes + torch.arange(self.order, device=x.device)).movedim(-1, 0)

    def forward(
        self, x: Tensor, first: int = 0, last: int | None = None, without: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """x (rows, length) -> nats (rows, places, vocabulary), and how often the contexts were seen (rows, places,
        order) on a log scale, of the places first .. last - 1, by default all; place `length` is the one after x.

        without: the block of each row (rows,), see `blocks_of`, that is not to be counted.
        """
        contexts = self.contexts(x, first, x.shape[1] if last is None else last)
        counts = Counts(self.entries, self.numbers).dense(contexts, self.vocabulary)
        if without is not None and self._own is not None:
            blocks = without.view(1, -1, 1)
            contexts = torch.where(blocks < 0, -1, contexts * BLOCKS + blocks)
            counts = counts - self._own.dense(contexts, self.vocabulary)
        return self._smoothed(counts)

    def blocks_of(self, x: Tensor) -> Tensor | None:
        """The block of each whole record (rows,), -1 for those that were not counted; None before any was."""
        if self._own is None:
            return None
        hashes = _hash(x)
        at = torch.searchsorted(self._hashes, hashes).clamp(max=len(self._hashes) - 1)
        return torch.where(self._hashes[at] == hashes, self._blocks[at], -1)

    def _smoothed(self, counts: Tensor) -> tuple[Tensor, Tensor]:
        """From counts (order, rows, length, vocabulary)."""
        order, *shape, vocabulary = counts.shape
        counts = counts.view(order, -1, vocabulary)
        total = counts.sum(-1, keepdim=True)
        late = self.late.exp()
        kept = counts - (1 + late) * torch.sigmoid(self.one) * (counts / (counts + late))
        backed_off = torch.where(total > 0, total - kept.sum(-1, keepdim=True), 1.0)
        scale = 1 / total.clamp(min=1)
        p = torch.full_like(counts[0], 1 / vocabulary)
        for k in range(order):
            p = torch.addcmul(kept[k], backed_off[k], p) * scale[k]
        seen = torch.log1p(total).squeeze(-1).movedim(0, -1)
        return p.log().view(*shape, vocabulary), seen.view(*shape, order)


def longest(vocabulary: int) -> int:
    """The longest n-grams whose codes, with order and block, fit into 63 bits; LONGEST at most."""
    order = LONGEST
    while order > 2 and (vocabulary + 1) ** (order - 1) * order * BLOCKS * vocabulary >= 2**63:
        order -= 1
    return order


def _hash(x: Tensor) -> Tensor:
    """Of rows of tokens, int64."""
    out = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    for column in x.unbind(1):
        out = out * FACTOR + column + 1
    return out


def _sorted(counts: tuple[Counts, ...]) -> Counts:
    entries, order = torch.cat([c.entries for c in counts]).sort()
    return Counts(entries, torch.cat([c.numbers for c in counts])[order])
