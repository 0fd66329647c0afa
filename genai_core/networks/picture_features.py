"""Features of pictures that need no training: random convolutions; checkpoints are chosen by them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTHS = (16, 32, 64)
PLACES = 3  # each layer is averaged over a 3 x 3 raster
SEED = 0
BATCH = 256


class PictureFeatures(nn.Module):
    """Pictures (batch, channels, height, width) in -1 .. 1 -> (batch, 9 * 112), layout and texture at three scales.

    Distances in the features of untrained networks rank generators much as trained ones do on pictures unlike
    photographs (Naeem et al. 2020). The weights are drawn from a fixed seed and are in no checkpoint.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(SEED)
        for number, width in enumerate(WIDTHS):
            fan_in = channels * 9
            weight = torch.randn(width, channels, 3, 3, generator=generator) * (2 / fan_in) ** 0.5
            self.register_buffer(f"weight{number}", weight, persistent=False)
            channels = width

    @torch.no_grad()
    def forward(self, pictures: Tensor) -> Tensor:
        return torch.cat([self._batch(part) for part in pictures.split(BATCH)])

    def _batch(self, h: Tensor) -> Tensor:
        found = []
        for number in range(len(WIDTHS)):
            h = F.leaky_relu(F.conv2d(h, self.get_buffer(f"weight{number}"), stride=2, padding=1), 0.2)
            found.append(F.adaptive_avg_pool2d(h, PLACES).flatten(1))
        return torch.cat(found, 1)
