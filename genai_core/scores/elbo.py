"""Minus the evidence lower bound in nats, by one draw of the code: looser than the importance-weighted bound"""

from __future__ import annotations

from torch import Tensor

from genai_core.model import LogProb, Model
from genai_core.networks.tokens import sum_by_field
from genai_core.scores import State

NEEDS = LogProb
UNIT = "nats"


def score(model: Model, x: Tensor, log_measure: Tensor, state: State) -> Tensor:
    """(rows, fields): each field's share; the sum is the record's score."""
    return -(sum_by_field(model.space, model.bounded(x, 1)) + log_measure)  # type: ignore[operator]
