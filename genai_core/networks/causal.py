"""What the autoregressive family asks of a network: the exact log-probability of every entry given those before it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from genai_core.model import Condition


class CausalNetwork(nn.Module, ABC):
    """x (batch, entries) -> nats (batch, entries); summed over a row: the exact log-probability of the record."""

    learning_rate: float
    weight_decay: float

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """log p(entry | the entries before it), nats, the shape of x; 0 for what follows the end of a sequence."""

    @abstractmethod
    def sample(
        self,
        rows: int,
        generator: torch.Generator,
        conditions: Sequence[Condition] = (),
        temperature: float = 1.0,
        top_p: float = 1.0,
    ) -> Tensor:
        """Draw x (rows, entries) without recomputing what does not change; every condition holds in every record."""

    def initialise(self, x: Tensor) -> None:
        """Set what a sample of the training data says before the first step."""

    def epochs(self, steps: int) -> int:
        """See `Model.epochs`."""
        return 24

    def groups(self) -> list[dict]:
        """Optimiser groups."""
        return [{"params": list(self.parameters())}]
