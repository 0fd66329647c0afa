"""What adversarial families ask of a generator and a critic, whatever the space."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class Generator(nn.Module, ABC):
    """Noise (and labels) -> made records, in the dense form that critics read: one-hot tables, pictures in -1 .. 1."""

    learning_rate: float = 1e-3
    ema: float | None = None  # decay of the averaged weights; None: as FitSettings says
    own_phase: str | None = None  # trained at every step before the game, with `own_loss`
    epochs: tuple[int, int] | None = None  # of the game, or as many as give so many steps; None: any model's
    compared: int = 2048  # records that `distance` is given in a validation, at most

    @abstractmethod
    def forward(self, z: Tensor, labels: Tensor | None) -> Tensor:
        """Dense made records with gradients, from z (batch, latent) and labels (batch,) or None."""

    @abstractmethod
    def draw(self, z: Tensor, labels: Tensor | None, generator: torch.Generator) -> Tensor:
        """Records x (batch, entries)."""

    @abstractmethod
    def dense(self, x: Tensor) -> Tensor:
        """Records x (batch, entries) as critics read them, without the label."""

    @abstractmethod
    def distance(self, real: Tensor, made: Tensor) -> float:
        """How far made records are from as many real ones, x (batch, entries) each; what checkpoints are chosen by."""

    def initialise(self, x: Tensor) -> None:
        """Set what a sample of the training data says before the first step."""

    def own_loss(self, x: Tensor) -> Tensor:
        """What `own_phase` minimises on records x (batch, entries)."""
        raise NotImplementedError

    def parameters_of(self, phase: str) -> list[nn.Parameter]:
        """What `own_phase`, or the phase of the generator, trains."""
        return list(self.parameters())


class Critic(nn.Module, ABC):
    """Dense records -> logits, higher for what looks real."""

    pac: int = 1  # records that are judged together (Lin et al. 2018)
    penalised: float = 1.0  # share of a batch whose gradients the penalties of a relativistic game look at
    final_gamma: float = 1.0  # what is left of the penalties' weight at the end of the fit

    @abstractmethod
    def forward(self, dense: Tensor, labels: Tensor | None) -> Tensor:
        """Logits (batch / pac,)."""

    def hold_back(self) -> None:
        """From now on see records augmented, where the space has augmentations."""
