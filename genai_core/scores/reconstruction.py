"""Reconstruction error in nats: minus log p(x | the code of x)."""

from __future__ import annotations

from torch import Tensor

from genai_core.model import Model, Reconstructs
from genai_core.scores import State
from genai_core.scores.negative_log_likelihood import from_entries as from_entries

NEEDS = Reconstructs
UNIT = "nats"


def score(model: Model, x: Tensor, log_measure: Tensor, state: State) -> Tensor:
    """(rows, fields): each field's share; the sum is the record's score."""
    return from_entries(model, x, entries(model, x, state), log_measure)


def entries(model: Model, x: Tensor, state: State) -> Tensor:
    """(rows, entries): nats of each entry."""
    return -model.reconstruct(x)  # type: ignore[operator]
