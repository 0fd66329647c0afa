"""Causal network of pictures: a recurrence down the rows, and a perceptron over the pixels around each pixel.

What a pixel depends on reaches it in two ways. A recurrent state reads whole rows from the top and says what the
rows above amount to (the row-wise idea of PixelRNN: van den Oord et al. 2016). A window of the nearest pixels above
and to the left, raw, gives the detail. Both meet in a small residual perceptron that works on all pixels at once.

In trials of 90 CPU-seconds on binarised MNIST, validation nats: recurrences down and along at every pixel 93.0; the
same window under causal convolutions at half resolution 86.9, under a convolutional recurrence 86.0, this shape 83.8.
Sampling keeps the state and the pixels drawn so far: there is nothing else to cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from genai_core.model import Condition
from genai_core.networks.causal import CausalNetwork
from genai_core.networks.labels import Labels
from genai_core.networks.levels import Bernoulli, LogisticMixture, scaled
from genai_core.networks.tokens import draw, sharpened
from genai_core.spaces import Grid

HIDDEN, LAYERS, DROPOUT = 128, 2, 0.1
STATE = 3  # times hidden: width of the state that goes down the rows
CONTEXT, PLACE = (
    16,
    16,
)  # channels of what the state says about a pixel; width of a row's or label's embedding
ABOVE, ASIDE, LEFT = 5, 8, 27  # the window: rows above, columns to either side there, columns to the left
MIXTURES = 10
PIECE = 2**14  # pixels handled together: their activations stay in the cache
KEPT = 2**20  # entries of a batch beyond which activations are computed again instead of being kept


class PixelNetwork(CausalNetwork):
    """log p(channel of a pixel | label, pixels before it in raster order, its earlier channels), exact.

    hidden: width of the perceptron; layers: its residual blocks; dropout: of the state that goes down the rows.
    """

    learning_rate = 4e-3
    weight_decay = 0.01

    def __init__(self, space: Grid, settings: Any) -> None:
        super().__init__()
        self.space = space
        hidden, layers = settings.hidden or HIDDEN, settings.layers or LAYERS
        channels, height, width = space.shape
        self.labels = Labels(space.classes)
        self.levels = Bernoulli(1) if space.levels == 2 else LogisticMixture(1, space.levels, MIXTURES)
        self.above, self.aside = min(ABOVE, max(height - 1, 1)), min(ASIDE, width - 1)
        self.left = min(LEFT, max(width - 1, 1))

        self.row = nn.Parameter(torch.randn(height, 1, PLACE) * 0.3)
        self.state = nn.LSTM(channels * width + PLACE, STATE * hidden)
        self.context = nn.Linear(STATE * hidden, width * CONTEXT)
        self.drop = nn.Dropout(DROPOUT if settings.dropout is None else settings.dropout)
        self.from_context = nn.Linear(CONTEXT, hidden, bias=False)
        self.from_above = nn.Linear(channels * self.above * (2 * self.aside + 1), hidden, bias=False)
        self.from_left = nn.Linear(channels * self.left, hidden, bias=False)
        self.place = nn.Parameter(torch.zeros(height, width, hidden))
        self.blocks = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(layers))
        self.channels = _EarlierChannels(channels, hidden) if channels > 1 else None
        self.out = nn.Linear(hidden, self.levels.count)
        self.centre = nn.Parameter(torch.zeros(space.shape))
        if space.classes:
            self.row_label = nn.Embedding(space.classes, PLACE)
            self.block_label = nn.Embedding(space.classes, (layers + 1) * hidden)
            nn.init.zeros_(self.block_label.weight)

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Frequencies of the labels, and the mean picture."""
        self.labels.initialise(x)
        pictures = self.labels.split(x)[1]
        mean = pictures.float().mean(0).view(self.space.shape) * (2 / (self.space.levels - 1)) - 1
        self.centre.copy_(self.levels.centre(mean))

    # -- all pixels at once ----------------------------------------------------------------------------------
    def forward(self, x: Tensor) -> Tensor:
        labels, rest = self.labels.split(x)
        v = scaled(rest, self.space)
        with self._arithmetic(x.device.type):
            previous = F.pad(_seen(v), (0, 0, 1, 0))[:, :, :-1]
            context, _ = self._context(previous, slice(None), labels)
        pieces = max(-(-len(x) * self.space.height * self.space.width // PIECE), 1)
        by_label = [None] * pieces if labels is None else labels.chunk(pieces)
        again = torch.is_grad_enabled() and x.numel() > KEPT
        nats = [
            checkpoint(self._nats, *piece, use_reentrant=False) if again else self._nats(*piece)
            for piece in zip(v.chunk(pieces), context.chunk(pieces), by_label, strict=False)
        ]
        return torch.cat([self.labels.log_prob(x), torch.cat(nats)], 1)

    def _arithmetic(self, device: str) -> torch.autocast:
        """Training multiplies in bfloat16 where that is native; likelihoods and samples are computed in float32."""
        return torch.autocast(device, torch.bfloat16, enabled=self.training and multiplies_bfloat16(device))

    def _nats(self, v: Tensor, context: Tensor, labels: Tensor | None) -> Tensor:
        """Nats (batch, size) of the levels v (batch, channels, height, width)."""
        with self._arithmetic(v.device.type):
            parameters = self._distributions(_seen(v), context, self._biases(labels))
        parameters = parameters.float().movedim(-1, 1)
        return self.levels.log_prob(parameters, self.centre[None, None], v.unsqueeze(1)).flatten(1)

    def _distributions(self, seen: Tensor, context: Tensor, biases: list[Tensor]) -> Tensor:
        """Of the levels' distributions, (batch, channels, height, width, count)."""
        rows = F.pad(seen, (0, 0, self.above, 0))[:, :, :-1]
        before = self._from_rows(rows, context, slice(None)) + self.from_left(self._lefts(seen))
        h = self._perceptron(before, [bias[:, None, None] for bias in biases])
        if self.channels is None:
            return self.out(h).unsqueeze(1)
        return self.out(self.channels(h, seen.movedim(1, -1))).movedim(3, 1)

    def _lefts(self, seen: Tensor) -> Tensor:
        """The pixels to the left of each, (batch, height, width, channels x left)."""
        windows = F.pad(seen, (self.left, 0))[..., :-1].unfold(3, self.left, 1)
        return windows.permute(0, 2, 3, 1, 4).flatten(3)

    # -- what sampling shares --------------------------------------------------------------------------------
    def _context(
        self, previous: Tensor, rows: slice, labels: Tensor | None, state: Any = None
    ) -> tuple[Tensor, Any]:
        """What is above each pixel of `rows`, (batch, rows, width, CONTEXT), and the state there.

        previous: the rows before each of them, (batch, channels, rows, width).
        """
        place = self.row[rows].expand(-1, len(previous), -1)
        if labels is not None:
            place = place + self.row_label(labels)
        states, state = self.state(torch.cat([previous.permute(2, 0, 1, 3).flatten(2), place], 2), state)
        context = self.context(self.drop(states)).unflatten(2, (-1, CONTEXT))
        return context.transpose(0, 1).contiguous(), state

    def _from_rows(self, above: Tensor, context: Tensor, rows: slice) -> Tensor:
        """What the rows above contribute, (batch, rows, width, hidden).

        above: from `self.above` rows before the first of `rows` to the one before the last of them.
        """
        windows = (
            F.pad(above, (self.aside, self.aside)).unfold(2, self.above, 1).unfold(3, 2 * self.aside + 1, 1)
        )
        h = self.from_above(windows.permute(0, 2, 3, 1, 4, 5).flatten(3)) + self.from_context(context)
        return h + self.place[rows].to(h.dtype)

    def _biases(self, labels: Tensor | None) -> list[Tensor]:
        """A label's bias of each block, (batch, hidden); none without labels."""
        return [] if labels is None else list(self.block_label(labels).chunk(len(self.blocks) + 1, 1))

    def _perceptron(self, h: Tensor, biases: list[Tensor]) -> Tensor:
        for i, block in enumerate(self.blocks):
            h = h + biases[i].to(h.dtype) if biases else h
            h = h + block(F.relu(h))
        return F.relu(h + biases[-1].to(h.dtype) if biases else h)

    # -- pixel by pixel --------------------------------------------------------------------------------------
    @torch.no_grad()
    def sample(
        self,
        rows: int,
        generator: torch.Generator,
        conditions: Sequence[Condition] = (),
        temperature: float = 1.0,
        top_p: float = 1.0,
    ) -> Tensor:
        """A row's share of the work is done once a row: a pixel costs its left neighbours and the perceptron."""
        labels = self.labels.draw(rows, generator, conditions)

        def choose(logits: Tensor) -> Tensor:
            uniform = torch.rand(rows, generator=generator).to(logits.device)
            return draw(sharpened(logits, temperature, top_p), uniform)

        return self.labels.join(labels, self.walk(rows, labels, choose))

    @torch.no_grad()
    def walk(self, rows: int, labels: Tensor | None, choose: Callable[[Tensor], Tensor]) -> Tensor:
        """Levels (rows, size), each what `choose` makes of its logits (rows, levels), in causal order."""
        channels, height, width = self.space.shape
        seen = self.centre.new_zeros(rows, channels, self.above + height, self.left + width)
        every = torch.linspace(-1, 1, self.space.levels, device=seen.device).view(1, 1, -1)
        found = torch.zeros(rows, *self.space.shape, dtype=torch.long, device=seen.device)
        biases, state = self._biases(labels), None
        for i in range(height):
            over = seen[:, :, i : i + self.above, self.left :]
            context, state = self._context(over[:, :, -1:], slice(i, i + 1), labels, state)
            before = self._from_rows(over, context, slice(i, i + 1))[:, 0]
            here = seen[:, :, self.above + i]
            for j in range(width):
                lefts = here[:, :, j : j + self.left].flatten(1)
                h = self._perceptron(before[:, j] + self.from_left(lefts), biases)
                for k in range(channels):
                    told = h if self.channels is None else self.channels(h, here[:, :, self.left + j])[:, k]
                    centre = self.centre[k, i, j].view(1, 1, 1)
                    level = choose(self.levels.log_prob(self.out(told).unsqueeze(2), centre, every)[:, 0])
                    found[:, k, i, j] = level
                    here[:, k, self.left + j] = level / (self.space.levels - 1)
        return found.flatten(1)


def _seen(v: Tensor) -> Tensor:
    """Levels as the network reads them, 0 .. 1: what lies beyond the border is black."""
    return (v + 1) / 2


@cache
def multiplies_bfloat16(device: str) -> bool:
    """Whether a device multiplies bfloat16 natively: a step then takes 0.6 of the time; elsewhere it would crawl."""
    if device != "cpu":
        return True
    has = torch.cpu.get_capabilities()
    return bool(has.get("avx512_bf16") or has.get("amx_bf16"))


class _EarlierChannels(nn.Module):
    """Splits a pixel's vector into one a channel, each told the channels before it."""

    mask: Tensor

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels, channels, hidden) * channels**-0.5)
        self.bias = nn.Parameter(torch.randn(channels, hidden) * 0.1)
        before = torch.ones(channels, channels).triu(1).unsqueeze(2)  # [earlier, later]
        self.register_buffer("mask", before, persistent=False)

    def forward(self, h: Tensor, values: Tensor) -> Tensor:
        """h (..., hidden), values (..., channels) -> (..., channels, hidden)."""
        told = values.to(h.dtype) @ (self.weight * self.mask).flatten(1).to(h.dtype)
        return F.relu(h.unsqueeze(-2) + told.unflatten(-1, self.bias.shape) + self.bias.to(h.dtype))
