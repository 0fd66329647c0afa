"""Encoder and decoder of pictures: convolutions from half the resolution down to 8 x 8 and back, given the label."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai_core.model import Condition
from genai_core.networks.labels import Labels
from genai_core.networks.levels import levels_of, scaled, whole
from genai_core.observations import Observation
from genai_core.spaces import Grid

COARSEST = 8  # pixels of the longer side where the convolutions end
WIDEST = 4  # times the channels at half the resolution
PHASES = 4  # pixels of a 2 x 2 block
SLOPE = 0.1


class Scales:
    """The resolutions between half of a picture and COARSEST, and the channels at each.

    Pictures are padded so that every halving is exact.
    """

    def __init__(self, space: Grid, channels: int) -> None:
        halvings = 1
        while max(space.height, space.width) > COARSEST << halvings:
            halvings += 1
        step = 1 << halvings
        self.padding = (-space.width % step, -space.height % step)
        self.height, self.width = space.height + self.padding[1], space.width + self.padding[0]
        self.coarsest = (self.height // step, self.width // step)
        self.channels = [channels * min(2**i, WIDEST) for i in range(halvings)]
        self.flat = self.channels[-1] * self.coarsest[0] * self.coarsest[1]

    def pad(self, picture: Tensor) -> Tensor:
        """To (..., height, width)."""
        right, below = self.padding
        return F.pad(picture, (0, right, 0, below))


class ResidualBlock(nn.Module):
    """x + 1 x 1 of 3 x 3 convolution, the identity at first (after He et al. 2016)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inner = nn.Conv2d(channels, channels, 3, padding=1)
        self.outer = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.outer.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.outer(rectified(self.inner(rectified(x))))


class PictureEncoder(nn.Module):
    """x (batch, entries) -> (batch, hidden)."""

    def __init__(self, space: Grid, settings: Any) -> None:
        super().__init__()
        self.space, self.labels = space, Labels(space.classes)
        self.scales = scales = Scales(space, settings.channels)
        widths = scales.channels
        self.first = nn.Conv2d(PHASES * space.channels, widths[0], 3, padding=1)
        self.down = nn.ModuleList(nn.Conv2d(a, b, 4, stride=2, padding=1) for a, b in pairwise(widths))
        self.blocks = nn.ModuleList(ResidualBlock(width) for width in widths)
        self.last = nn.Linear(scales.flat, settings.hidden)
        self.of_label = nn.Embedding(space.classes, settings.hidden) if space.classes else None

    def forward(self, x: Tensor) -> Tensor:
        labels, levels = self.labels.split(x)
        h = F.pixel_unshuffle(self.scales.pad(scaled(levels, self.space)), 2)
        h = self.blocks[0](self.first(_by_pixel(h)))
        for halve, block in zip(self.down, self.blocks[1:], strict=True):
            h = block(halve(rectified(h)))
        h = self.last(rectified(h).flatten(1))
        return rectified(h if self.of_label is None else h + self.of_label(labels))


class PictureObservation(Observation):
    """p(label) p(picture | h, label).

    `parts` = 4: the pixels of every 2 x 2 block are drawn one after the other, in all blocks at once, each given h and
    what is drawn of its neighbourhood (after Reed et al. 2017); `parts` = 1: all are independent given h.
    """

    mask: Tensor
    inside: Tensor

    def __init__(self, space: Grid, settings: Any) -> None:
        super().__init__()
        self.space, self.labels, self.levels = space, Labels(space.classes), levels_of(space)
        self.scales = scales = Scales(space, settings.channels)
        widths, hidden = scales.channels[::-1], settings.hidden
        self.of_label = nn.Embedding(space.classes, hidden) if space.classes else None
        self.first = nn.Linear(hidden, scales.flat)
        self.blocks = nn.ModuleList(ResidualBlock(width) for width in widths)
        self.up = nn.ModuleList(nn.Conv2d(a, 4 * b, 1) for a, b in pairwise(widths))
        self.centre = nn.Parameter(torch.zeros(space.channels, scales.height, scales.width))
        width = PHASES * settings.channels
        self.from_features = nn.Conv2d(widths[-1], width, 1)
        drawn = nn.Conv2d(PHASES * space.channels, width, 5, padding=2, bias=False)
        self.from_drawn = drawn if settings.parts > 1 else None
        self.register_buffer("mask", self._mask(width), persistent=False)
        inside = scales.pad(torch.ones(1, 1, space.height, space.width))
        self.register_buffer("inside", self._blocks(inside), persistent=False)
        self.inner = nn.Conv2d(width, width, 1, groups=PHASES)
        self.head = nn.Conv2d(width, PHASES * self.levels.count, 1, groups=PHASES)

    def _mask(self, width: int) -> Tensor:
        """(width, phases x channels, 1, 1): what each hidden channel may see of the picture."""
        of_hidden = torch.arange(PHASES).repeat_interleave(width // PHASES)
        of_pixel = torch.arange(PHASES).repeat(self.space.channels)  # the order of pixel_unshuffle
        return (of_pixel < of_hidden.unsqueeze(1))[:, :, None, None].float()

    def initialise(self, x: Tensor) -> None:
        self.labels.initialise(x)
        mean = scaled(self.labels.split(x)[1], self.space).mean(0)
        with torch.no_grad():
            self.centre.copy_(self.levels.centre(self.scales.pad(mean)))

    def log_prob(self, h: Tensor, x: Tensor) -> Tensor:
        labels, levels = self.labels.split(x)
        v = self._blocks(self.scales.pad(scaled(levels, self.space)))
        parameters = self._levels_given(self._features(h, labels), v.flatten(1, 2))
        nats = self.levels.log_prob(parameters, self._blocks(self.centre.unsqueeze(0)), v)
        return torch.cat([self.labels.log_prob(x), self._picture(nats).flatten(1)], 1)

    @torch.no_grad()
    def draw(self, h: Tensor, generator: torch.Generator, conditions: Sequence[Condition] = ()) -> Tensor:
        labels = self.labels.draw(len(h), generator, conditions)
        features, centre = self._features(h, labels), self._blocks(self.centre.unsqueeze(0))
        v = features.new_zeros(len(h), self.space.channels, PHASES, *features.shape[2:])
        for phase in range(PHASES):
            parameters = self._levels_given(features, v.flatten(1, 2))[:, :, phase]
            drawn = self.levels.draw(parameters, centre[:, :, phase], generator)
            v[:, :, phase] = drawn * self.inside[:, :, phase]
        return self.labels.join(labels, whole(self._picture(v), self.space))

    def _features(self, h: Tensor, labels: Tensor | None) -> Tensor:
        """(batch, channels, height / 2, width / 2)."""
        h = h if self.of_label is None else h + self.of_label(labels)
        f = self.first(h).view(len(h), -1, *self.scales.coarsest)
        f = self.blocks[0](_by_pixel(f))
        for double, block in zip(self.up, self.blocks[1:], strict=True):
            f = block(F.pixel_shuffle(double(rectified(f)), 2))
        return rectified(f)

    def _levels_given(self, features: Tensor, drawn: Tensor) -> Tensor:
        """(batch, count, phases, height / 2, width / 2) given what is drawn, (batch, channels x phases, ...)."""
        h = self.from_features(features)
        if self.from_drawn is not None:
            kernel = self.from_drawn.weight * self.mask
            h = h + F.conv2d(_by_pixel(drawn), kernel, padding=self.from_drawn.padding)
        h = rectified(h)
        h = rectified(h + self.inner(h))
        return self.head(h).unflatten(1, (PHASES, -1)).transpose(1, 2)

    @staticmethod
    def _blocks(picture: Tensor) -> Tensor:
        """(batch, channels, height, width) -> (batch, channels, phases, height / 2, width / 2)."""
        return F.pixel_unshuffle(picture, 2).unflatten(1, (-1, PHASES))

    def _picture(self, blocks: Tensor) -> Tensor:
        """The inverse of `_blocks`, without the padding."""
        return F.pixel_shuffle(blocks.flatten(1, 2), 2)[:, :, : self.space.height, : self.space.width]


def rectified(x: Tensor) -> Tensor:
    """A sixth of what GELU costs on a CPU, forwards and backwards."""
    return F.leaky_relu(x, SLOPE)


def _by_pixel(x: Tensor) -> Tensor:
    """Laid out with the channels of a pixel together: convolutions on a CPU are up to twice as fast."""
    return x.contiguous(memory_format=torch.channels_last)
