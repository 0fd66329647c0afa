"""The networks of DCGAN (Radford, Metz & Chintala 2016) for pictures of any size; labels as further inputs."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai_core.networks.keras_adapter import KerasCritic, KerasGenerator
from genai_core.networks.picture_players import PictureCritic, PictureGenerator, Pyramid, on_canvas, pyramid
from genai_core.spaces import Grid

SLOPE = 0.2
SPREAD = 0.02  # standard deviation of the first weights


def dcgan_players(space: Grid, settings: Any) -> tuple[PictureGenerator, PictureCritic]:
    """Generator and discriminator; what the settings define in Keras instead of ours."""
    s, sizes = settings, pyramid(space.height, space.width)
    made: nn.Module
    judged: nn.Module
    if s.generator:
        made = KerasGenerator(s.generator, space, s.latent)
    else:
        network = dcgan_generator(s.latent + space.classes, space.channels, s.channels, sizes)
        made = LabelledNoise(network, space.classes, space.shape[1:])
    if s.discriminator:
        judged = KerasCritic(s.discriminator, space)
    else:
        network = dcgan_discriminator(space.channels + space.classes, s.channels, sizes)
        judged = LabelledPictures(network, space.classes)
    return PictureGenerator(space, made), PictureCritic(space, judged)


def dcgan_generator(latent: int, channels: int, width: int, sizes: Pyramid) -> nn.Module:
    """z (batch, latent) -> pictures (batch, channels, *canvas) in -1 .. 1.

    Published for 64 x 64: 4 x 4 with 8 `width` channels, then strided transposed convolutions, each halving the
    channels; batch normalisation and ReLU everywhere but at the output, which is a tanh.
    """
    widths = [width * 2**level for level in range(max(sizes.halvings, 1))][::-1]
    layers: list[nn.Module] = [
        nn.Unflatten(1, (latent, 1, 1)),
        nn.ConvTranspose2d(latent, widths[0], sizes.lowest, bias=False),
    ]
    for before, after in pairwise(widths):
        layers += [nn.BatchNorm2d(before), nn.ReLU(), _larger(before, after)]
    last = _larger(width, channels) if sizes.halvings else nn.Conv2d(width, channels, 3, padding=1)
    return _initialised(nn.Sequential(*layers, nn.BatchNorm2d(width), nn.ReLU(), last, nn.Tanh()))


def dcgan_discriminator(channels: int, width: int, sizes: Pyramid) -> nn.Module:
    """Pictures (batch, channels, *canvas or smaller) -> logits (batch, 1).

    Strided convolutions, each doubling the channels; leaky rectifiers; batch normalisation but not at the input.
    """
    widths = [width * 2**level for level in range(max(sizes.halvings, 1))]
    first = _smaller(channels, width) if sizes.halvings else nn.Conv2d(channels, width, 3, padding=1)
    layers: list[nn.Module] = [Canvas(sizes.canvas), first, nn.LeakyReLU(SLOPE)]
    for before, after in pairwise(widths):
        layers += [_smaller(before, after, bias=False), nn.BatchNorm2d(after), nn.LeakyReLU(SLOPE)]
    return _initialised(nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, sizes.lowest), nn.Flatten()))


def _larger(before: int, after: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=False)


def _smaller(before: int, after: int, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(before, after, 4, stride=2, padding=1, bias=bias)


def _initialised(network: nn.Module) -> nn.Module:
    """Weights from N(0, .02); gains of the normalisation from N(1, .02)."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.BatchNorm2d):
            nn.init.normal_(layer.weight, float(isinstance(layer, nn.BatchNorm2d)), SPREAD)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return network


class Canvas(nn.Module):
    """Pictures of any size -> the size that a network can halve; channels last, which oneDNN convolves faster."""

    def __init__(self, canvas: tuple[int, int]) -> None:
        super().__init__()
        self.canvas = canvas

    def forward(self, pictures: Tensor) -> Tensor:
        return on_canvas(pictures, self.canvas).contiguous(memory_format=torch.channels_last)


class LabelledNoise(nn.Module):
    """Makes a network z -> pictures conditional: a one-hot label is appended to z (Mirza & Osindero 2014).

    Pictures that come out larger than `size` are cut.
    """

    def __init__(self, network: nn.Module, classes: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.network, self.classes, self.size = network, classes, size

    def forward(self, z: Tensor, labels: Tensor | None) -> Tensor:
        if labels is not None and self.classes:
            z = torch.cat([z, F.one_hot(labels, self.classes).to(z)], 1)
        return self.network(z)[:, :, : self.size[0], : self.size[1]]


class LabelledPictures(nn.Module):
    """Makes a network pictures -> logit conditional: every label of a pack becomes constant one-hot channels.

    In: pictures (packs, pac * channels, height, width), labels (packs, pac) or None. Out: logits (packs,).
    """

    def __init__(self, network: nn.Module, classes: int) -> None:
        super().__init__()
        self.network, self.classes = network, classes

    def forward(self, pictures: Tensor, labels: Tensor | None) -> Tensor:
        if labels is not None and self.classes:
            planes = F.one_hot(labels, self.classes).flatten(1).to(pictures)
            planes = planes.view(*planes.shape, 1, 1).expand(-1, -1, *pictures.shape[2:])
            pictures = torch.cat([pictures, planes], 1)
        return self.network(pictures).flatten()
