"""A small classifier of pictures: its features measure distances, its guesses whether samples show their class."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai_core.hyperparameters import FitSettings
from genai_core.loop import Fit
from genai_core.model import Model
from genai_core.networks.picture_players import convolution, on_canvas, pyramid
from genai_core.spaces import Grid
from genai_core.splits import seed_of

BATCH = 500


class Classifier(Model):
    """Label of a `Grid` with classes, from its picture; `features` are the penultimate layer, 128 numbers."""

    learning_rate = 2e-3
    weight_decay = 0.02

    def __init__(self, space: Any, channels: int = 32, hidden: int = 128, dropout: float = 0.3) -> None:
        super().__init__(space)
        self.dropout = dropout
        canvas, lowest, halvings = pyramid(space.height, space.width)
        self.canvas = canvas
        widths = [channels * min(2**level, 2) for level in range(max(halvings, 1))]
        self.halve = nn.PixelUnshuffle(2 if halvings else 1)
        inputs = [space.channels * self.halve.downscale_factor**2, *widths]
        self.layers = nn.ModuleList(
            nn.Sequential(convolution(before, after), nn.ReLU(), convolution(after, after), nn.ReLU())
            for before, after in zip(inputs, widths, strict=False)
        )
        self.dense = nn.Linear(widths[-1] * math.prod(lowest), hidden)
        self.head = nn.Linear(hidden, space.classes)

    def features(self, x: Tensor) -> Tensor:
        """(batch, 128) of records x (batch, entries)."""
        pictures = x[:, 1:].float().view(-1, *self.space.shape) * (2 / (self.space.levels - 1)) - 1
        h = self.halve(on_canvas(pictures, self.canvas)).contiguous(memory_format=torch.channels_last)
        for level, layer in enumerate(self.layers):
            h = layer(F.max_pool2d(h, 2) if level else h)
        return F.relu(self.dense(F.dropout(h.flatten(1), self.dropout, self.training)))

    def logits(self, x: Tensor) -> Tensor:
        """(batch, classes)."""
        return self.head(F.dropout(self.features(x), self.dropout, self.training))

    def forward(self, x: Tensor, phase: str) -> Tensor:
        return F.cross_entropy(self.logits(x), x[:, 0])

    @torch.no_grad()
    def validation_loss(self, x: Tensor) -> float:
        return float(
            np.mean([float(F.cross_entropy(self.logits(part), part[:, 0])) for part in x.split(BATCH)])
        )


def fitted(space: Grid, train: np.ndarray, seed: int, epochs: int = 8, **settings: float) -> Classifier:
    """A classifier of records (rows, entries); a tenth of them chooses the checkpoint."""
    torch.manual_seed(seed_of(seed, "classifier"))
    model = Classifier(space)
    out = np.random.default_rng(seed).permutation(len(train)) < max(len(train) // 10, 1)
    how = FitSettings(seed=seed, max_epochs=epochs, patience=1000, **settings)
    Fit(model, train[~out], train[out], how).run()
    return model


@torch.inference_mode()
def features(model: Classifier, x: np.ndarray) -> np.ndarray:
    """(rows, 128), float64."""
    parts = [model.features(part) for part in torch.from_numpy(x.astype(np.int64)).split(BATCH)]
    return torch.cat(parts).double().numpy()


@torch.inference_mode()
def accuracy(model: Classifier, x: np.ndarray) -> float:
    """Share of the records whose label is the classifier's guess."""
    parts = [
        model.logits(part).argmax(1) == part[:, 0]
        for part in torch.from_numpy(x.astype(np.int64)).split(BATCH)
    ]
    return float(torch.cat(parts).double().mean())
