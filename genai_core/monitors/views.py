"""Records of any space as features in which distances mean something: what diversity is measured in."""

from __future__ import annotations

from collections.abc import Callable
from functools import singledispatch

import torch
import torch.nn.functional as F
from torch import Tensor

from genai_core.networks.picture_features import PictureFeatures
from genai_core.spaces import Grid, Position, Sequence, Tokens

View = Callable[[Tensor], Tensor]
WIDTH = 128  # features of pictures and texts
KINDS = 24  # of a category that are told apart
FARTHEST = 3.0  # standard deviations
FACTOR = 2654435761  # Knuth's multiplier


@singledispatch
def view(space: object) -> View:
    """x (rows, entries) -> features (rows, d), float32 on the CPU; labels are left out."""
    raise TypeError(f"no view is registered for the space {type(space).__name__}")


@view.register
def _of_tables(space: Tokens) -> View:
    """Columns on a common scale: values in standard deviations, categories one-hot."""
    used = _used(space)

    def features(x: Tensor) -> Tensor:
        x = x.cpu()
        parts = []
        for i in used:
            position = space.positions[i]
            if position.values is None:
                kinds = min(position.vocabulary, KINDS)
                parts.append(F.one_hot(x[:, i] % kinds, kinds).float() * 0.5**0.5)
            else:
                parts.append(_places(position, x, i))
        return torch.cat(parts, 1)

    return features


def _used(space: Tokens) -> list[int]:
    """The positions that say where a record lies: the finest of each value."""
    refined = {p.parent for p in space.positions if p.parent is not None and p.values is not None}
    return [
        i
        for i, p in enumerate(space.positions)
        if i not in refined and (p.parent is None or p.values is not None)
    ]


def columns(space: object) -> Tensor | None:
    """(d,): the column that each feature of a table is of; None for records without columns."""
    if not isinstance(space, Tokens):
        return None
    found = [space.positions[i] for i in _used(space)]
    widths = [min(p.vocabulary, KINDS) if p.values is None else 2 for p in found]
    return torch.repeat_interleave(torch.tensor([p.field for p in found]), torch.tensor(widths))


def _places(position: Position, x: Tensor, i: int) -> Tensor:
    """(rows, 2): the place of a value, and whether it has none."""
    values = torch.from_numpy(position.values).float()
    found = values[x[:, i]] if values.dim() == 1 else values[x[:, position.parent], x[:, i]]
    none = found.isnan()
    return torch.stack([found.nan_to_num().clamp(-FARTHEST, FARTHEST), none.float()], 1)


@view.register
def _of_pictures(space: Grid) -> View:
    """Random convolutions, as checkpoints are chosen by, projected to fewer numbers; distances stay (Johnson 1984)."""
    network = PictureFeatures(space.channels)
    generator = torch.Generator().manual_seed(0)
    width = network(torch.zeros(1, *space.shape)).shape[1]
    projection = torch.randn(width, WIDTH, generator=generator) / WIDTH**0.5

    def features(x: Tensor) -> Tensor:
        levels = x[:, space.labelled :].cpu().float().view(-1, *space.shape)
        return network(levels * (2 / (space.levels - 1)) - 1) @ projection

    return features


@view.register
def _of_sequences(space: Sequence) -> View:
    """How often pairs of neighbouring tokens occur, hashed, and the length."""

    def features(x: Tensor) -> Tensor:
        tokens = x[:, space.labelled :].cpu()
        inside = torch.ones_like(tokens, dtype=torch.bool)
        if space.end is not None:
            inside = (tokens == space.end).cumsum(1) == 0
        pairs = (tokens[:, :-1] * space.vocabulary + tokens[:, 1:]) * FACTOR % 2**31 % WIDTH
        found = torch.zeros(len(x), WIDTH).scatter_add_(1, pairs, inside[:, :-1].float())
        lengths = inside.sum(1, keepdim=True).float()
        return torch.cat([(found / lengths.clamp(min=1)).sqrt(), lengths / space.length], 1)

    return features
