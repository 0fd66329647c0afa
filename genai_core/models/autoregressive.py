"""Autoregressive model: the chain rule over the entries of a record, exact likelihood."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from genai_core import networks
from genai_core.hyperparameters import Autoregressive as Settings
from genai_core.model import EXACT, Condition, LogProb, Model, Samples
from genai_core.networks.causal import CausalNetwork
from genai_core.spaces import Space

VALIDATION_BATCH = 512  # records computed at once


class Autoregressive(Model, Samples, LogProb):
    """Samples, exact log-likelihood; of tables exact conditionals of any columns given any others."""

    bound = EXACT
    noise_of_records = "same"

    def __init__(self, space: Space, settings: Settings | None = None) -> None:
        super().__init__(space)
        self.settings: Any = settings or Settings()
        self.network: CausalNetwork = networks.causal(space, self.settings)
        self.learning_rate, self.weight_decay = self.network.learning_rate, self.network.weight_decay

    def forward(self, x: Tensor, phase: str) -> Tensor:
        return -self.network(x).sum() / len(x)

    def epochs(self, steps: int) -> int:
        return self.network.epochs(steps)

    def parameters_of(self, phase: str) -> list[dict]:
        return self.network.groups()

    def initialise(self, x: Tensor) -> None:
        self.network.initialise(x)

    @torch.no_grad()
    def validation_loss(self, x: Tensor) -> float:
        return -sum(float(self.log_prob(part).sum()) for part in x.split(VALIDATION_BATCH)) / len(x)

    def log_prob(self, x: Tensor) -> Tensor:
        return self.network(x)

    def sample(
        self,
        rows: int,
        generator: torch.Generator,
        conditions: Sequence[Condition] = (),
        temperature: float = 1.0,
        top_p: float = 1.0,
        **more: Any,
    ) -> Tensor:
        """temperature below 1: more typical records; top_p below 1: without the unlikely tail of every entry.

        more  what networks of tables can do besides: `given`, see `AnyOrderNetwork.sample`
        """
        return self.network.sample(rows, generator, conditions, temperature, top_p, **more)


MODEL = Autoregressive
