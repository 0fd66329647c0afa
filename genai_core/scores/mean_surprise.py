"""Mean surprise of the tokens of a sequence, in nats per token: minus its log-likelihood, whatever its length."""

from __future__ import annotations

from torch import Tensor

from genai_core.model import LogProb, Model
from genai_core.scores import State
from genai_core.scores.negative_log_likelihood import entries as entries
from genai_core.texts.surprise import surprise

NEEDS = LogProb
UNIT = "nats per token"


def score(model: Model, x: Tensor, log_measure: Tensor, state: State) -> Tensor:
    """(rows,)."""
    return from_entries(model, x, entries(model, x, state), log_measure)


def from_entries(model: Model, x: Tensor, entries: Tensor, log_measure: Tensor) -> Tensor:
    """(rows,), of the nats of each entry."""
    nats, tokens = surprise(model.space, x, entries)
    return nats.sum(1) / tokens
