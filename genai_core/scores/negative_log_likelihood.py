"""Negative log-likelihood in nats: exact for autoregressive models, an upper bound for VAEs."""

from __future__ import annotations

from torch import Tensor

from genai_core.model import LogProb, Model

NEEDS = LogProb
UNIT = "nats"


def score(model: Model, x: Tensor, log_measure: Tensor) -> Tensor:
    """(rows, fields): each field's share; the sum is the record's score."""
    return -(model.log_prob(x) + log_measure)  # type: ignore[operator]
