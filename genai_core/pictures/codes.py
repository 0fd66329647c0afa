"""Pictures as codes: an autoencoder whose bottleneck is a few numbers of a few levels (Mentzer et al. 2023)

Vector quantisation (VQ-VAE: van den Oord et al. 2017) with a codebook that is a grid: every place of the encoder's
output is a few numbers, each rounded to one of LEVELS levels; together they are the place's code. Unlike a codebook
that is learnt, this one has no state beside the weights, so that averaged weights, a resumed fit and several workers
need no care, and no code can die.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai_core.hyperparameters import FitSettings
from genai_core.loop import Fit
from genai_core.model import Model
from genai_core.networks.picture_autoencoder import ResidualBlock, rectified
from genai_core.spaces import Grid
from genai_core.threads import threads

LEVELS = (
    8  # of each number; five or more lose next to nothing against a learnt codebook (Mentzer et al. 2023)
)
WIDEST = 4  # times the channels that the encoder begins with
STEM = 4  # pixels along each side that its first convolution takes together
EVEN = 0.02  # of `_uneven`; without it a fifth as many codes were in use, and reconstructions 0.9 dB worse
BATCH = 32
EVALUATIONS = 20
HELD_OUT = 10  # one picture in so many
LOGISTIC = 1.702  # the logistic function of so many standard deviations is about the normal distribution's
PIXELS_TOGETHER = 2**17


class CodeAutoencoder(Model):
    """Pictures (batch, channels, height, width) in -1 .. 1 <-> codes (batch, down, across).

    A code stands for `factor` x `factor` pixels. Convolutions alone: what is learnt on parts of pictures serves whole
    ones. The loss is the mean squared error.
    """

    learning_rate = 2e-3
    weight_decay = 0.0

    def __init__(self, space: Any, codes: int, factor: int, channels: int) -> None:
        super().__init__(space)
        self.factor, self.stem = factor, min(factor, STEM)
        self.numbers = round(math.log(codes, LEVELS))
        halvings = round(math.log2(factor // self.stem))
        widths = [channels * min(2**i, WIDEST) for i in range(halvings + 1)]
        pixels = space.channels * self.stem**2
        down: list[nn.Module] = [nn.Conv2d(pixels, widths[0], 3, padding=1), ResidualBlock(widths[0])]
        up: list[nn.Module] = [nn.Conv2d(self.numbers, widths[-1], 3, padding=1), ResidualBlock(widths[-1])]
        for narrow, wide in pairwise(widths):
            down += [nn.Conv2d(narrow, wide, 4, stride=2, padding=1), ResidualBlock(wide)]
        for wide, narrow in pairwise(widths[::-1]):
            up += [nn.Conv2d(wide, 4 * narrow, 3, padding=1), nn.PixelShuffle(2), ResidualBlock(narrow)]
        self.down, self.to_numbers = nn.Sequential(*down), nn.Conv2d(widths[-1], self.numbers, 1)
        self.up, self.to_pixels = nn.Sequential(*up), nn.Conv2d(widths[0], pixels, 3, padding=1)

    # -- training --------------------------------------------------------------------------------------------
    def initialise(self, x: Tensor) -> None:
        """All levels are used from the beginning: the numbers get the spread for which they are about as frequent."""
        with torch.no_grad():
            found = self._numbers(self._pictures(x[:BATCH]))
            spread = found.std((0, 2, 3), correction=0).clamp(min=1e-3) / LOGISTIC
            weight, bias = self.to_numbers.parameters()
            weight.div_(spread[:, None, None, None])
            bias.copy_((bias - found.mean((0, 2, 3))) / spread)

    def forward(self, x: Tensor, phase: str) -> Tensor:
        pictures = self._pictures(x)
        share = torch.sigmoid(self._numbers(pictures))
        exact = (_levels(share) + 0.5) / LEVELS
        # the gradient passes the rounding as if it were not there (Bengio et al. 2013)
        made = self._decoded(share + (exact - share).detach())
        error = (made[..., : pictures.shape[2], : pictures.shape[3]] - pictures).square().mean()
        return error + EVEN * _uneven(share) if self.training else error

    def validation_loss(self, x: Tensor) -> float:
        return sum(float(self(part, "fit")) * len(part) for part in x.split(BATCH)) / len(x)

    def _pictures(self, x: Tensor) -> Tensor:
        return x.view(-1, *self.space.shape).float() / 127.5 - 1

    # -- codes -----------------------------------------------------------------------------------------------
    def codes(self, pictures: Tensor) -> Tensor:
        """int64 (batch, down, across)."""
        levels = _levels(torch.sigmoid(self._numbers(pictures))).long()
        return (levels * self._places(levels)).sum(1)

    def pictures(self, codes: Tensor) -> Tensor:
        """The inverse, as near as it can be; sides are multiples of the factor."""
        levels = codes.unsqueeze(1) // self._places(codes) % LEVELS
        return self._decoded((levels + 0.5) / LEVELS)

    def _places(self, like: Tensor) -> Tensor:
        """What a level of each number counts in a code."""
        return LEVELS ** torch.arange(self.numbers, device=like.device).view(-1, 1, 1)

    def _numbers(self, pictures: Tensor) -> Tensor:
        """(batch, numbers, down, across), before they are rounded."""
        right, below = (-side % self.factor for side in (pictures.shape[3], pictures.shape[2]))
        padded = F.pad(pictures, (0, right, 0, below), mode="replicate")
        return self.to_numbers(rectified(self.down(F.pixel_unshuffle(padded, self.stem))))

    def _decoded(self, share: Tensor) -> Tensor:
        """Pictures of numbers in 0 .. 1."""
        return F.pixel_shuffle(self.to_pixels(rectified(self.up(2 * share - 1))), self.stem)


def _uneven(share: Tensor) -> Tensor:
    """0 when the numbers have the mean and variance of even ones over 0 .. 1, and no correlation.

    After the covariance terms of Bardes et al. (2022): what tells codes apart is spread over all of them.
    """
    numbers = share.transpose(0, 1).flatten(1)
    covariance = 12 * torch.cov(numbers, correction=0)
    off_centre = 12 * (numbers.mean(1) - 0.5).square()
    return off_centre.mean() + (covariance - torch.eye(len(numbers), device=share.device)).square().mean()


def _levels(share: Tensor) -> Tensor:
    """0 .. LEVELS - 1, all equally wide in 0 .. 1; float32."""
    return (share * LEVELS).floor().clamp(0, LEVELS - 1)


# -- fitting and using it on arrays --------------------------------------------------------------------------
def fit(pixels: np.ndarray, codes: int, factor: int, channels: int, steps: int, seed: int) -> CodeAutoencoder:
    """Learn uint8 pictures (rows, channels, height, width); every HELD_OUT-th only decides when to stop."""
    rows = pixels.reshape(len(pixels), -1)
    out = np.arange(len(rows)) % HELD_OUT == HELD_OUT - 1
    train, validation = (rows[~out], rows[out]) if out.any() else (rows, rows)
    per_epoch = max(len(train) // BATCH, 1)
    settings = FitSettings(
        seed=seed,
        max_epochs=-(-steps // per_epoch),
        batch_size=BATCH,
        evaluations=EVALUATIONS,
        patience=EVALUATIONS,
    )
    with threads(1):  # the same weights on any machine
        torch.manual_seed(seed)
        model = CodeAutoencoder(Grid(*pixels.shape[1:]), codes, factor, channels)
        Fit(model, train, validation, settings).run()
    return model.eval().requires_grad_(False)


def restored(
    weights: Mapping[str, np.ndarray], picture_channels: int, codes: int, factor: int, channels: int
) -> CodeAutoencoder:
    """Of such weights. Raises RuntimeError or ValueError when they are another one's, or no numbers."""
    if not all(array.dtype == np.float32 and np.isfinite(array).all() for array in weights.values()):
        raise ValueError("its weights are no finite numbers")
    model = CodeAutoencoder(Grid(picture_channels, factor, factor), codes, factor, channels)
    model.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in weights.items()})
    return model.eval().requires_grad_(False)


def fidelity(model: CodeAutoencoder, pixels: np.ndarray) -> dict[str, float]:
    """Peak signal-to-noise ratio, and the codes' perplexity, of the pictures that `fit` holds out."""
    held_out = pixels[HELD_OUT - 1 :: HELD_OUT] if len(pixels) >= HELD_OUT else pixels
    found = encode(model, held_out)
    made = decode(model, found, *pixels.shape[2:])
    error = np.square(made.astype(np.float64) - held_out).mean()
    share = np.bincount(found.ravel()) / found.size
    entropy = -(share[share > 0] * np.log(share[share > 0])).sum()
    return {"psnr": float(10 * np.log10(255**2 / max(error, 1e-9))), "perplexity": float(np.exp(entropy))}


def encode(model: CodeAutoencoder, pixels: np.ndarray) -> np.ndarray:
    """int32 (rows, down x across) of uint8 pictures (rows, channels, height, width), each by itself."""
    down, across = (-(-side // model.factor) for side in pixels.shape[2:])
    found = np.zeros((len(pixels), down * across), np.int32)
    for part in _parts(len(pixels), pixels[0].size if len(pixels) else 1):
        x, rows = _whole_batch(pixels[part.start : part.stop], part.step)
        found[part.start : part.start + rows] = _codes(model, x)[:rows]
    return found


def decode(model: CodeAutoencoder, codes: np.ndarray, height: int, width: int) -> np.ndarray:
    """uint8 (rows, channels, height, width) of codes (rows, down x across)."""
    shape = -(-height // model.factor), -(-width // model.factor)
    made = np.zeros((len(codes), model.space.channels, height, width), np.uint8)
    for part in _parts(len(codes), model.space.channels * height * width):
        x, rows = _whole_batch(codes[part.start : part.stop].reshape(-1, *shape), part.step)
        made[part.start : part.start + rows] = _pixels(model, x)[:rows, :, :height, :width]
    return made


def _parts(rows: int, size: int) -> list[range]:
    """Which rows are computed together: always as many of one size, or the last digits would depend on neighbours."""
    together = int(np.clip(PIXELS_TOGETHER // size, 1, BATCH))
    return [range(start, start + together, together) for start in range(0, rows, together)]


def _whole_batch(values: np.ndarray, together: int) -> tuple[Tensor, int]:
    padding = [(0, together - len(values))] + [(0, 0)] * (values.ndim - 1)
    return torch.from_numpy(np.pad(values, padding)), len(values)


def _codes(model: CodeAutoencoder, x: Tensor) -> np.ndarray:
    with torch.inference_mode(), threads(1):
        return model.codes(x.float() / 127.5 - 1).flatten(1).numpy()


def _pixels(model: CodeAutoencoder, x: Tensor) -> np.ndarray:
    with torch.inference_mode(), threads(1):
        made = (model.pictures(x.long()) + 1) * 127.5
        return made.round().clamp(0, 255).to(torch.uint8).numpy()
