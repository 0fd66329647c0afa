"""The model protocol. READ THIS FIRST: a family's class header is the honest statement of what it can do.

    class Autoregressive(Model, Samples, LogProb)                       bound EXACT
    class Vae(Model, Samples, Reconstructs, LogProb)                    bound LOWER
    class Gan(Model, Samples, Discriminates)                            no likelihood: an implicit model

    class Dcgan(Model, Samples, Discriminates)                          the same, as first published for pictures
    class CycleGan(Model, Translates, Reconstructs, Discriminates)      from one domain to another and back

A model sees a space and integer tensors x of shape (batch, entries) (`genai_core.spaces`); never a table, a picture or
a file. What depends on the space (convolutions for a Grid, attention for a Sequence) comes from `genai_core.networks`.
Randomness comes from torch's global generator during training (the loop seeds it at every step) and from the
generator that is passed in everywhere else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from genai_core.spaces import Space

EXACT, LOWER = "exact", "lower"


class Model(nn.Module, ABC):
    """What the training loop needs."""

    phases: tuple[str, ...] = ("fit",)  # run in this order at every step; equal names share an optimiser
    learning_rate: float
    constant_rate: ClassVar[bool] = False  # True: no warm-up, no decay of the learning rate
    weight_decay: float = 0.01
    betas: ClassVar[tuple[float, float]] = (0.9, 0.99)
    ema: float | None = None  # decay of the averaged weights; None: as FitSettings says
    patience: int = 6  # validations without improvement before a fit stops, unless the job says
    smallest_batch: int = 1  # records that a loss can be computed of
    done: float = 0.0  # share of the schedule that is over; the loop sets it before every step
    restraint: int = (
        0  # set likewise; the more, the stronger is what guards against collapse, if the family has it
    )

    noise_of_records: ClassVar[str] = (
        "different"  # what is drawn in `forward` of single records: or "same" for all of a part, as orders are
    )

    def __init__(self, space: Space) -> None:
        super().__init__()
        self.space: Any = space

    @abstractmethod
    def forward(self, x: Tensor, phase: str) -> Tensor:
        """The loss of a batch, a scalar (nats per record where the family has a likelihood)."""

    def epochs(self, steps: int) -> int:
        """How often the training data are gone through, unless the job says: of so many steps each."""
        return 24

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
        """x of shape (rows, entries); the same generator state gives the same x."""


class LogProb(ABC):
    """Has a likelihood, or a lower bound of one."""

    bound: ClassVar[str]

    @abstractmethod
    def log_prob(self, x: Tensor) -> Tensor:
        """Nats, the shape of x: log-probability of the entries; summed over a row that of the record."""


class Reconstructs(ABC):
    """Maps a record to the nearest one that it knows."""

    @abstractmethod
    def reconstruct(self, x: Tensor) -> Tensor:
        """log p(x | the code of x), nats, the shape of x."""


class Discriminates(ABC):
    """Tells training records from its own."""

    @abstractmethod
    def discriminate(self, x: Tensor) -> Tensor:
        """A logit, shape (batch,): higher for records like the training data. Not a density."""


class Translates(ABC):
    """Maps records of one domain to another; the label of a record says which domain it is from."""

    @abstractmethod
    def translate(self, x: Tensor, to: int) -> Tensor:
        """x as it would look in the domain `to`, shape of x; records that are there already stay as they are."""


class Condition:
    """Restricts, or re-weights, one field while sampling.

    allowed  Tokens: one table a position of the field, without parent of shape (vocabulary,), with parent
             (parent's vocabulary, vocabulary): booleans, or log-weights that are added to the logits (-inf: never).
             A label: one boolean table, of shape (classes,)
    prefix   tokens (n,) that a sequence starts with; a field with a prefix needs no table
    shares   probabilities (n,), adding up to 1, of n alternatives: each table then has n at the front, and a row keeps
             to one of them
    first    the field is drawn before those without condition, which are then drawn given it
    """

    def __init__(
        self,
        field: int,
        allowed: Sequence[Tensor] = (),
        prefix: Tensor | None = None,
        shares: Tensor | None = None,
        first: bool = True,
    ) -> None:
        self.field = field
        self.allowed = list(allowed)
        self.prefix = prefix
        self.shares = shares
        self.first = first


CAPABILITIES = {
    "discriminates": Discriminates,
    "log_prob": LogProb,
    "reconstructs": Reconstructs,
    "samples": Samples,
    "translates": Translates,
}


def capabilities(model: type | Model) -> tuple[str, ...]:
    """Sorted names of what a class, or a model, can do."""
    kind = model if isinstance(model, type) else type(model)
    return tuple(sorted(name for name, mark in CAPABILITIES.items() if issubclass(kind, mark)))
