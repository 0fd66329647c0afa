"""Negative log-likelihood in nats: exact for autoregressive models, an upper bound for VAEs."""

from __future__ import annotations

import weakref

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from genai_core.model import LogProb, Model
from genai_core.networks.tokens import sum_by_field
from genai_core.scores import State

NEEDS = LogProb
UNIT = "nats"
# batch -> (model, nats), while the batch lives: the scores built on this one would each compute them again
_found: WeakIdKeyDictionary = WeakIdKeyDictionary()


def score(model: Model, x: Tensor, log_measure: Tensor, state: State) -> Tensor:
    """(rows, fields): each field's share; the sum is the record's score."""
    return from_entries(model, x, entries(model, x, state), log_measure)


def entries(model: Model, x: Tensor, state: State) -> Tensor:
    """(rows, entries): nats of each entry."""
    if not torch.is_inference_mode_enabled():  # weights may change between calls
        return -model.log_prob(x)  # type: ignore[operator]
    known, nats = _found.get(x, (None, None))
    if known is None or known() is not model:
        nats = -model.log_prob(x)  # type: ignore[operator]
        _found[x] = (weakref.ref(model), nats)
    return nats.clone()


def from_entries(model: Model, x: Tensor, entries: Tensor, log_measure: Tensor) -> Tensor:
    """(rows, fields), of the nats of each entry."""
    return sum_by_field(model.space, entries) - log_measure
