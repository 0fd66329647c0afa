"""Minus the discriminator's logit. A discriminator separates real from *made*, not normal from odd: as an anomaly
score it is weak, often chance; it is here because users ask for it, and said so."""

from __future__ import annotations

from torch import Tensor

from genai_core.model import Discriminates, Model
from genai_core.scores import State

NEEDS = Discriminates
UNIT = "logit"


def score(model: Model, x: Tensor, log_measure: Tensor, state: State) -> Tensor:
    """(rows,): no field has a share of its own."""
    return -model.discriminate(x)  # type: ignore[operator]
