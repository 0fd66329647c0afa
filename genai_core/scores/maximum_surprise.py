"""Surprise of the most surprising stretch of a sequence, in nats per token: one odd word is enough to stand out.

A stretch is some WINDOW tokens. The maximum of single tokens says less: a rare letter in an ordinary place surprises,
and so does the beginning of every rare word (benchmarks/text_anomalies.py compares them).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from genai_core.model import LogProb, Model
from genai_core.scores import State
from genai_core.scores.negative_log_likelihood import entries as entries
from genai_core.texts.surprise import surprise

NEEDS = LogProb
UNIT = "nats per token"
BYTES = 256  # more tokens: they are parts of words
WINDOW, WINDOW_OF_PARTS = 8, 4  # about as much text


def score(model: Model, x: Tensor, log_measure: Tensor, state: State) -> Tensor:
    """(rows,); of a sequence that is shorter than the stretch, as if nothing surprising followed."""
    return from_entries(model, x, entries(model, x, state), log_measure)


def from_entries(model: Model, x: Tensor, entries: Tensor, log_measure: Tensor) -> Tensor:
    """(rows,), of the nats of each entry."""
    window = WINDOW if model.space.vocabulary <= BYTES else WINDOW_OF_PARTS
    return highest(surprise(model.space, x, entries)[0], window)


def highest(nats: Tensor, window: int) -> Tensor:
    """The largest mean (rows,) of `window` neighbours in nats (rows, length), zeros after the end."""
    padded = F.pad(nats, (0, max(window - nats.shape[1], 0)))
    return padded.unfold(1, window, 1).mean(2).amax(1)
