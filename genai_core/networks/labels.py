"""The label of a record in the spaces that have one: its distribution, its draws, its embedding."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from genai_core.model import Condition
from genai_core.networks.tokens import draw


class Labels(nn.Module):
    """p(label) of a `Grid` or `Sequence` with classes; of one without, a record has no such entry."""

    frequencies: Tensor

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.register_buffer("frequencies", torch.full((classes,), 1 / max(classes, 1)))

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """From a sample of training records, with one more of every class."""
        if self.classes:
            counts = torch.bincount(x[:, 0], minlength=self.classes).to(self.frequencies) + 1
            self.frequencies.copy_(counts / counts.sum())

    def split(self, x: Tensor) -> tuple[Tensor | None, Tensor]:
        """Labels (batch,) or None, and the other entries."""
        return (x[:, 0], x[:, 1:]) if self.classes else (None, x)

    def join(self, labels: Tensor | None, rest: Tensor) -> Tensor:
        """The inverse of `split`."""
        return rest if labels is None else torch.cat([labels.unsqueeze(1), rest], 1)

    def log_prob(self, x: Tensor) -> Tensor:
        """Nats (batch, 1) of the labels, or (batch, 0)."""
        if not self.classes:
            return self.frequencies.new_zeros(len(x), 0)
        return self.frequencies.log()[x[:, :1]]

    def draw(
        self, rows: int, generator: torch.Generator, conditions: Sequence[Condition] = ()
    ) -> Tensor | None:
        """Labels (rows,) that fulfil the conditions on the first field, or None."""
        if not self.classes:
            return None
        logits = self.frequencies.log()
        for condition in conditions:
            if condition.field == 0 and condition.allowed:
                logits = logits.masked_fill(~condition.allowed[0].to(logits.device), float("-inf"))
        uniform = torch.rand(rows, generator=generator).to(logits.device)
        return draw(logits.expand(rows, -1), uniform)
