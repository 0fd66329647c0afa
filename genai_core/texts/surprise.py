"""How surprising each token of a sequence is to a model with a likelihood: what the scores of texts are made of"""

from __future__ import annotations

import torch
from torch import Tensor

from genai_core.spaces import Sequence


def surprise(space: Sequence, x: Tensor, entries: Tensor) -> tuple[Tensor, Tensor]:
    """Of records x and the nats of their entries (rows, entries): (rows, length), 0 after the end; tokens (rows,).

    The end counts as a token; the label, if there is one, does not.
    """
    nats = entries[:, space.labelled :]
    there = counted(space, x[:, space.labelled :])
    return nats * there, there.sum(1)


def counted(space: Sequence, tokens: Tensor) -> Tensor:
    """False after the end, bool; tokens (rows, length) without the label."""
    if space.end is None:
        return torch.ones_like(tokens, dtype=torch.bool)
    ends = tokens == space.end
    return ends.cumsum(1) - ends.long() == 0
