"""Autoregressive model: the chain rule over tokens, exact likelihood, any order of the fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from genai_core import networks
from genai_core.hyperparameters import Autoregressive as Settings
from genai_core.model import EXACT, Condition, LogProb, Model, Samples
from genai_core.networks.any_order import Sampler, base_order, position_order
from genai_core.networks.tokens import sum_by_field
from genai_core.spaces import Tokens

FREE_DECAY = 2.0  # of the free part of ordered tables: the smooth part must carry what it can


class Autoregressive(Model, Samples, LogProb):
    """Samples, exact log-likelihood, exact conditionals of any columns given any others."""

    bound = EXACT
    learning_rate = 3e-3
    weight_decay = 0.05

    def __init__(self, space: Tokens, settings: Settings | None = None) -> None:
        super().__init__(space)
        self.settings = s = settings or Settings()
        self.network: Any = networks.causal(space, s.context, s.hidden, s.embedding, s.dropout)
        self.base = base_order(space)
        self._sampler: Sampler | None = None

    def forward(self, x: Tensor, phase: str) -> Tensor:
        return -self.network(x, self._training_order()).sum() / len(x)

    def _training_order(self) -> Tensor:
        if torch.rand(()) >= self.settings.random_orders:
            return position_order(self.space, self.base)
        return position_order(self.space, torch.randperm(len(self.base)).tolist())

    def parameters_of(self, phase: str) -> list[dict]:
        free = [self.network.embedding.table.free, self.network.heads.table.free]
        rest = [p for p in self.parameters() if all(p is not f for f in free)]
        return [{"params": rest}, {"params": free, "weight_decay": FREE_DECAY}]

    def initialise(self, x: Tensor) -> None:
        self.network.heads.set_frequencies(x)

    def train(self, mode: bool = True) -> Autoregressive:
        self._sampler = None  # laid out from the weights, which may change now
        return super().train(mode)

    @torch.no_grad()
    def validation_loss(self, x: Tensor) -> float:
        return -float(self.log_prob(x).sum()) / len(x)

    def log_prob(self, x: Tensor) -> Tensor:
        return sum_by_field(self.space, self.network(x, position_order(self.space, self.base)))

    def sample(
        self,
        rows: int,
        generator: torch.Generator,
        conditions: Sequence[Condition] = (),
        temperature: float = 1.0,
    ) -> Tensor:
        """Conditioned fields are drawn first and the rest given them: exact, without rejection."""
        self._sampler = self._sampler or self.network.sampler()
        first = [c.field for c in conditions]
        order = position_order(self.space, first + [f for f in self.base if f not in first])
        masks = {
            i: table
            for c in conditions
            for i, table in zip(self.space.positions_of(c.field), c.allowed, strict=True)
        }
        return self._sampler(rows, order, generator, masks, temperature)


MODEL = Autoregressive
