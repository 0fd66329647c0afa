"""Generator and critic of pictures: residual convolutions without normalisation, packed judgement, any size."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai_core.evaluation.frechet import kernel_distance
from genai_core.networks.adversaries import Critic, Generator
from genai_core.networks.keras_adapter import KerasCritic, KerasGenerator
from genai_core.networks.picture_features import PictureFeatures
from genai_core.pictures.augmentation import COLOUR_POLICY, GREY_POLICY, augment
from genai_core.spaces import Grid

SMALLEST = 7  # the longer side at the lowest resolution, at most: 28 -> 7, 32 and 64 -> 4
WIDEST = 4  # times the channels at half resolution
SLOPE = 0.2


class Pyramid(NamedTuple):
    """The resolutions of a network: pictures are made on a canvas that can be halved, and cut to their size."""

    canvas: tuple[int, int]
    lowest: tuple[int, int]
    halvings: int


def pyramid(height: int, width: int) -> Pyramid:
    """Halve until the longer side is at most `SMALLEST`."""
    halvings = max(math.ceil(math.log2(max(height, width) / SMALLEST)), 0)
    step = 2**halvings
    lowest = math.ceil(height / step), math.ceil(width / step)
    return Pyramid((lowest[0] * step, lowest[1] * step), lowest, halvings)


def on_canvas(pictures: Tensor, canvas: tuple[int, int]) -> Tensor:
    """Pictures with mid-grey below and at the right, up to the canvas."""
    height, width = pictures.shape[2:]
    return F.pad(pictures, (0, canvas[1] - width, 0, canvas[0] - height))


class PictureGenerator(Generator):
    """A network (z, labels) -> pictures (batch, channels, height, width) in -1 .. 1, as a player of a `Grid`."""

    learning_rate = 1e-3
    ema = 0.999

    def __init__(self, space: Grid, network: nn.Module) -> None:
        super().__init__()
        self.space, self.network = space, network
        self.features = PictureFeatures(space.channels)

    def forward(self, z: Tensor, labels: Tensor | None) -> Tensor:
        return self.network(z, labels).float()

    def draw(self, z: Tensor, labels: Tensor | None, generator: torch.Generator) -> Tensor:
        together = self.space.batches.draw
        parts = [
            self(z[start : start + together], None if labels is None else labels[start : start + together])
            for start in range(0, len(z), together)
        ]
        levels = ((torch.cat(parts).clamp(-1, 1) + 1) * ((self.space.levels - 1) / 2)).round().long()
        rows = levels.flatten(1)
        return rows if labels is None else torch.cat([labels.unsqueeze(1), rows], 1)

    def dense(self, x: Tensor) -> Tensor:
        levels = x[:, self.space.labelled :].to(torch.get_default_dtype())
        return (levels * (2 / (self.space.levels - 1)) - 1).view(-1, *self.space.shape)

    def distance(self, real: Tensor, made: Tensor) -> float:
        """Kernel distance of the features together with the label: a class drawn as another one counts too."""
        a, b = (self.features(self.dense(x)) for x in (real, made))
        mean, scale = a.mean(0), a.std(0) + 1e-6
        a, b = (a - mean) / scale, (b - mean) / scale
        if self.space.classes:
            weight = a.shape[1] ** 0.5  # the same label counts as much as the same picture
            a, b = (
                torch.cat([features, weight * F.one_hot(x[:, 0], self.space.classes)], 1)
                for features, x in ((a, real), (b, made))
            )
        return kernel_distance(a.numpy(force=True), b.numpy(force=True))


class PictureCritic(Critic):
    """A network (`pac` pictures stacked by channels, labels (packs, pac)) -> logits, as a player of a `Grid`.

    In training it sees real and made pictures alike as `policy` augments them (`genai_core.pictures.augmentation`).
    """

    penalised = 0.25  # a second derivative costs as much as all the rest
    final_gamma = 0.1  # as Huang et al. 2024 anneal it

    def __init__(self, space: Grid, network: nn.Module, pac: int = 1, augmented: bool = False) -> None:
        super().__init__()
        self.network, self.pac, self.colours = network, pac, space.channels == 3
        self.policy: tuple[str, ...] = ()
        if augmented:
            self.hold_back()

    def hold_back(self) -> None:
        self.policy = COLOUR_POLICY if self.colours else GREY_POLICY

    def forward(self, dense: Tensor, labels: Tensor | None) -> Tensor:
        if self.training:
            dense = augment(dense, self.policy)
        stacked = dense.reshape(len(dense) // self.pac, -1, *dense.shape[2:])
        return self.network(stacked, None if labels is None else labels.view(-1, self.pac))


class ResidualBlock(nn.Module):
    """h + conv(act(conv(act(h)))), the last convolution begins at zero (Zhang et al. 2019): no normalisation needed."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = convolution(channels, channels)
        self.second = convolution(channels, channels)
        nn.init.zeros_(self.second.weight)

    def forward(self, h: Tensor) -> Tensor:
        return h + self.second(F.leaky_relu(self.first(F.leaky_relu(h, SLOPE)), SLOPE))


def convolution(inputs: int, outputs: int, size: int = 3) -> nn.Conv2d:
    """Same size out as in; weights by He et al. 2015 for leaky rectifiers."""
    layer = nn.Conv2d(inputs, outputs, size, padding=size // 2)
    nn.init.kaiming_normal_(layer.weight, SLOPE)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


def widths(channels: int, halvings: int) -> list[int]:
    """Channels from half (or full, when nothing is halved) to the lowest resolution."""
    return [channels * min(2**level, WIDEST) for level in range(max(halvings, 1))]


class ResidualGenerator(nn.Module):
    """(z (batch, latent), labels (batch,) or None) -> pictures (batch, channels, height, width) in -1 .. 1.

    From the lowest resolution to half of the full one there is a residual block each (two at the lowest); the full
    resolution is a rearrangement of channels (Shi et al. 2016), smoothed once: convolutions are dear up there.
    """

    def __init__(self, space: Grid, settings: Any) -> None:
        super().__init__()
        self.space, self.pyramid = space, pyramid(space.height, space.width)
        self.widths = widths(settings.channels, self.pyramid.halvings)[::-1]
        given = settings.embedding if space.classes else 0
        self.embedding = nn.Embedding(space.classes, given) if given else None
        self.first = nn.Linear(settings.latent + given, self.widths[0] * math.prod(self.pyramid.lowest))
        self.blocks = nn.ModuleList(ResidualBlock(width) for width in [self.widths[0], *self.widths])
        self.changes = nn.ModuleList(
            convolution(before, after, 1) for before, after in zip(self.widths, self.widths[1:], strict=False)
        )
        self.shuffle = nn.PixelShuffle(2 if self.pyramid.halvings else 1)
        fine = settings.channels // 4 if self.pyramid.halvings else settings.channels
        self.spread = convolution(settings.channels, fine * self.shuffle.upscale_factor**2)
        self.last = convolution(fine, space.channels)

    def forward(self, z: Tensor, labels: Tensor | None) -> Tensor:
        if self.embedding is not None:
            z = torch.cat([z, self.embedding(labels)], 1)
        h = self.first(z).view(len(z), self.widths[0], *self.pyramid.lowest)
        h = self.blocks[0](h.contiguous(memory_format=torch.channels_last))
        for level, block in enumerate(self.blocks[1:]):
            if level:
                h = F.interpolate(self.changes[level - 1](h), scale_factor=2, mode="nearest")
            h = block(h)
        h = self.shuffle(self.spread(F.leaky_relu(h, SLOPE)))
        pictures = self.last(F.leaky_relu(h, SLOPE))
        return pictures[:, :, : self.space.height, : self.space.width]


class ResidualCritic(nn.Module):
    """(pictures (packs, pac * channels, height, width), labels (packs, pac) or None) -> logits (packs,).

    The generator's mirror image. Labels enter by an inner product with the last layer (Miyato & Koyama 2018); each
    record of a pack has embeddings of its own.
    """

    def __init__(self, space: Grid, settings: Any) -> None:
        super().__init__()
        self.classes, self.pac = space.classes, settings.pac
        self.pyramid = pyramid(space.height, space.width)
        sizes = widths(settings.channels, self.pyramid.halvings)
        self.unshuffle = nn.PixelUnshuffle(2 if self.pyramid.halvings else 1)
        seen = settings.pac * space.channels * self.unshuffle.downscale_factor**2
        self.first = convolution(seen, sizes[0])
        self.blocks = nn.ModuleList(ResidualBlock(width) for width in [*sizes, sizes[-1]])
        self.changes = nn.ModuleList(convolution(before, after, 1) for before, after in pairwise(sizes))
        self.dense = nn.Linear(sizes[-1] * math.prod(self.pyramid.lowest), settings.hidden)
        self.direction = nn.Parameter(torch.randn(settings.hidden) / settings.hidden**0.5)
        self.bias = nn.Parameter(torch.zeros(()))
        self.embedding = nn.Embedding(self.classes * self.pac, settings.hidden) if self.classes else None

    def forward(self, pictures: Tensor, labels: Tensor | None) -> Tensor:
        h = self.unshuffle(on_canvas(pictures, self.pyramid.canvas))
        h = self.first(h.contiguous(memory_format=torch.channels_last))
        for level, block in enumerate(self.blocks):
            if 0 < level <= len(self.changes):
                h = self.changes[level - 1](F.avg_pool2d(h, 2))
            h = block(h)
        h = F.leaky_relu(self.dense(F.leaky_relu(h, SLOPE).flatten(1)), SLOPE)
        # products, not layers, which keep the logits in full precision whatever the convolutions have
        logits = (self.direction * h).sum(1) + self.bias
        if self.embedding is None or labels is None:
            return logits
        each = self.embedding(labels + self.classes * torch.arange(self.pac, device=labels.device))
        return logits + (each.sum(1) * h).sum(1) / h.shape[1] ** 0.5


def picture_players(space: Grid, settings: Any) -> tuple[PictureGenerator, PictureCritic]:
    """Generator and critic; what the settings define in Keras instead of ours. A Keras critic judges single records."""
    s = settings
    made = KerasGenerator(s.generator, space, s.latent) if s.generator else ResidualGenerator(space, s)
    if s.discriminator:
        judged = PictureCritic(space, KerasCritic(s.discriminator, space), augmented=s.augment)
    else:
        judged = PictureCritic(space, ResidualCritic(space, s), s.pac, s.augment)
    return PictureGenerator(space, made), judged
