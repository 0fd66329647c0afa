"""What would be normal here: the value that a network of any order expects of a field, given all the others"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from genai_core.networks.any_order import AnyOrderNetwork, Sampler
from genai_core.spaces import Position
from genai_core.tables.orders import position_order


@torch.no_grad()
def expected(network: AnyOrderNetwork, sampler: Sampler, x: Tensor, fields: Sequence[int]) -> Tensor:
    """x (rows, positions) with the tokens of `fields` replaced, each given the others as they are in x.

    The middle of p(field | all others) where its values are ordered, the most probable value elsewhere.
    """
    added = network.added(x)
    total, out = added.sum(0), x.clone()
    implied = {one.position: one for one in network.space.implied}
    for field in fields:
        positions = position_order(network.space, [field]).tolist()
        others, guess = total - added[positions].sum(0), x.clone()
        for number, i in enumerate(positions):
            before = positions[:number]
            context = others + network.added(guess)[before].sum(0) if before else others
            logits = sampler.logits(i, context, guess)
            guess[:, i] = _middle(network.space.positions[i], logits, guess)
        if positions[0] in implied:  # what follows from the others is known exactly
            one = implied[positions[0]]
            tokens, own = torch.from_numpy(one.tokens(guess.numpy())), list(one.own)
            guess[:, own] = torch.where(tokens >= 0, tokens, guess[:, own])
        out[:, positions] = guess[:, positions]
    return out


def _middle(position: Position, logits: Tensor, x: Tensor) -> Tensor:
    """(rows,) the median token where the tokens are ordered and more likely than not on the axis, else the mode."""
    if position.values is None:
        return logits.argmax(1)
    values = torch.from_numpy(position.values)
    if values.dim() == 2 and position.parent is not None:
        values = values[x[:, position.parent]]
    values = values.expand(len(logits), -1)
    probability = logits.softmax(1)
    off = values.isnan()
    inside = probability.masked_fill(off, 0.0)
    order = values.nan_to_num(float("inf")).argsort(dim=1, stable=True)
    sums = inside.gather(1, order).cumsum(1)
    at = (sums >= sums[:, -1:] / 2).int().argmax(1, keepdim=True)
    median = order.gather(1, at).squeeze(1)
    outside = logits.masked_fill(~off, float("-inf")).argmax(1)
    return torch.where(2 * sums[:, -1] >= 1, median, outside)
