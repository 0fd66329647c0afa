"""CycleGAN's two networks for pictures: a residual generator that starts near the identity, a patch discriminator."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai_core.networks.levels import scaled, whole
from genai_core.spaces import Grid

MULTIPLE = 4  # pictures are padded to this inside: two halvings
FEW_PIXELS = 64  # smaller pictures are halved once: what a halving loses, the cycle cannot bring back
REACH = 0.95  # of tanh: the levels at the ends keep a gradient
START = 0.1  # size of a generator's change before training, in units of atanh


class ResidualBlock(nn.Module):
    """Two convolutions with instance norm around a shortcut (Johnson et al. 2016)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_normed(channels, channels), nn.ReLU(inplace=True), *_normed(channels, channels)
        )

    def forward(self, h: Tensor) -> Tensor:
        return h + self.body(h)


class TranslationGenerator(nn.Module):
    """A picture of one domain -> the same picture in the other, (batch, channels, height, width) in -1 .. 1.

    The published shape (7 x 7, halvings, residual blocks, doublings, 7 x 7: Zhu et al. 2017) says how a picture
    changes, not how it looks: it starts near the identity, so what a picture shows is less likely to be swapped.
    Made pictures lie on the levels of the space; gradients pass the rounding as if it were not there.
    """

    def __init__(self, space: Grid, settings: Any) -> None:
        super().__init__()
        self.space = space
        width = settings.channels
        halvings = 1 if min(space.height, space.width) < FEW_PIXELS else 2
        layers: list[nn.Module] = [*_normed(space.channels, width, 7), nn.ReLU(inplace=True)]
        for _ in range(halvings):
            layers += [*_normed(width, 2 * width, 3, 2), nn.ReLU(inplace=True)]
            width *= 2
        layers += [ResidualBlock(width) for _ in range(settings.blocks)]
        for _ in range(halvings):
            layers += [*_doubled(width), nn.ReLU(inplace=True)]
            width //= 2
        last = nn.Conv2d(width, space.channels, 7, padding=3)
        nn.init.normal_(last.weight, std=START * last.weight[0].numel() ** -0.5)
        self.body = nn.Sequential(*layers, last)

    def forward(self, pictures: Tensor) -> Tensor:
        change = self.body(_padded(pictures))[..., : self.space.height, : self.space.width]
        made = torch.tanh(torch.atanh(pictures * REACH) + change) / REACH
        return made + (self._rounded(made) - made).detach()

    def _rounded(self, made: Tensor) -> Tensor:
        return scaled(whole(made.clamp(-1, 1), self.space), self.space)


class PatchDiscriminator(nn.Module):
    """Pictures -> one value a patch, (batch, patches): 1 looks real, 0 looks made (least squares: Mao et al. 2017)."""

    def __init__(self, space: Grid, settings: Any) -> None:
        super().__init__()
        side, width = min(space.height, space.width), settings.channels
        layers: list[nn.Module] = [nn.Conv2d(space.channels, width, 4, 2, 1), nn.LeakyReLU(0.2, inplace=True)]
        for _ in range(2):
            side //= 2
            kernel, stride = (4, 2) if side >= 8 else (3, 1)
            layers += [*_normed(width, 2 * width, kernel, stride), nn.LeakyReLU(0.2, inplace=True)]
            width *= 2
        self.body = nn.Sequential(*layers, nn.Conv2d(width, 1, 3, padding=1))

    def forward(self, pictures: Tensor) -> Tensor:
        return self.body(pictures).flatten(1)


def _normed(given: int, made: int, kernel: int = 3, stride: int = 1) -> list[nn.Module]:
    """A convolution (zero padding: it shows where the border is) and instance norm (Ulyanov et al. 2016)."""
    convolution = nn.Conv2d(given, made, kernel, stride, (kernel - 1) // 2, bias=False)
    return [convolution, nn.InstanceNorm2d(made, affine=True)]


def _doubled(width: int) -> list[nn.Module]:
    convolution = nn.ConvTranspose2d(width, width // 2, 3, 2, 1, output_padding=1, bias=False)
    return [convolution, nn.InstanceNorm2d(width // 2, affine=True)]


def _padded(pictures: Tensor) -> Tensor:
    height, width = pictures.shape[-2:]
    below, right = -height % MULTIPLE, -width % MULTIPLE
    return F.pad(pictures, (0, right, 0, below), mode="replicate") if below or right else pictures
