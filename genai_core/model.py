"""The model protocol. READ THIS FIRST: a family's class header is the honest statement of what it can do.

    class Autoregressive(Model, Samples, LogProb)                       bound EXACT
    class Vae(Model, Samples, Reconstructs, LogProb)                    bound LOWER
    class Gan(Model, Samples, Discriminates)                            no likelihood: an implicit model

A model sees a `Tokens` space and integer tensors x of shape (batch, positions); never a table, a picture or a file.
Randomness comes from torch's global generator during training (the loop seeds it at every step) and from the
generator that is passed in everywhere else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from genai_core.spaces import Tokens

EXACT, LOWER = "exact", "lower"


class Model(nn.Module, ABC):
    """What the training loop needs."""

    phases: ClassVar[tuple[str, ...]] = (
        "fit",
    )  # run in this order at every step, each with its own optimiser
    learning_rate: ClassVar[float]
    weight_decay: ClassVar[float] = 0.01
    betas: ClassVar[tuple[float, float]] = (0.9, 0.99)

    def __init__(self, space: Tokens) -> None:
        super().__init__()
        self.space = space

    @abstractmethod
    def forward(self, x: Tensor, phase: str) -> Tensor:
        """The loss of a batch, a scalar (nats per record where the family has a likelihood)."""

    def parameters_of(self, phase: str) -> list[dict]:
        """Optimiser groups that `phase` trains; a group may set its own weight_decay."""
        return [{"params": list(self.parameters())}]

    def initialise(self, x: Tensor) -> None:
        """Set what can be set from a sample of the training data before the first step."""

    @abstractmethod
    def validation_loss(self, x: Tensor) -> float:
        """What early stopping minimises, per record; deterministic, computed without gradients."""


class Samples(ABC):
    """Draws records."""

    @abstractmethod
    def sample(self, rows: int, generator: torch.Generator, conditions: Sequence[Condition] = ()) -> Tensor:
        """x of shape (rows, positions); the same generator state gives the same x."""


class LogProb(ABC):
    """Has a likelihood, or a lower bound of one."""

    bound: ClassVar[str]

    @abstractmethod
    def log_prob(self, x: Tensor) -> Tensor:
        """Nats, shape (batch, fields): log-probability of the tokens; summed over fields that of the record."""


class Reconstructs(ABC):
    """Maps a record to the nearest one that it knows."""

    @abstractmethod
    def reconstruct(self, x: Tensor) -> Tensor:
        """log p(x | the code of x), nats, shape (batch, fields)."""


class Discriminates(ABC):
    """Tells training records from its own."""

    @abstractmethod
    def discriminate(self, x: Tensor) -> Tensor:
        """A logit, shape (batch,): higher for records like the training data. Not a density."""


class Condition:
    """Restricts one field while sampling: `allowed` holds one boolean table a position of the field.

    For a position without parent shape (vocabulary,), with parent (parent's vocabulary, vocabulary).
    """

    def __init__(self, field: int, allowed: list[Tensor]) -> None:
        self.field = field
        self.allowed = allowed


CAPABILITIES = {
    "discriminates": Discriminates,
    "log_prob": LogProb,
    "reconstructs": Reconstructs,
    "samples": Samples,
}


def capabilities(model: type | Model) -> tuple[str, ...]:
    """Sorted names of what a class, or a model, can do."""
    kind = model if isinstance(model, type) else type(model)
    return tuple(sorted(name for name, mark in CAPABILITIES.items() if issubclass(kind, mark)))
