"""Reconstruction error in nats: minus log p(x | the code of x)."""

from __future__ import annotations

from torch import Tensor

from genai_core.model import Model, Reconstructs

NEEDS = Reconstructs
UNIT = "nats"


def score(model: Model, x: Tensor, log_measure: Tensor) -> Tensor:
    """(rows, fields): each field's share; the sum is the record's score."""
    return -(model.reconstruct(x) + log_measure)  # type: ignore[operator]
