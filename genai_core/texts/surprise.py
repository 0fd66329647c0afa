"""How surprising each token of a sequence is to a model with a likelihood: what the scores of texts are made of"""

from __future__ import annotations

import torch
from torch import Tensor

from genai_core.model import Model


def surprise(model: Model, x: Tensor) -> tuple[Tensor, Tensor]:
    """Of records x (rows, entries) of a `Sequence`: nats (rows, length), 0 after the end; number of tokens (rows,).

    The end counts as a token; the label, if there is one, does not.
    """
    space = model.space
    nats = -model.log_prob(x)[:, space.labelled :]  # type: ignore[operator]
    if space.end is None:
        return nats, torch.full_like(x[:, 0], space.length)
    ends = x[:, space.labelled :] == space.end
    counted = ends.cumsum(1) - ends.long() == 0
    return nats * counted, counted.sum(1)
