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
    if space.end is None:
        return nats, torch.full_like(x[:, 0], space.length)
    ends = x[:, space.labelled :] == space.end
    counted = ends.cumsum(1) - ends.long() == 0
    return nats * counted, counted.sum(1)
