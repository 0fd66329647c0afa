"""In which order the fields and positions of a table are decided."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from genai_core.spaces import Implied, Tokens


def position_order(space: Tokens, fields: list[int]) -> Tensor:
    """Positions in the order of `fields`; those of one field stay together, what says that it follows comes first."""
    first = {one.field: one.position for one in space.implied}
    places = {f: sorted(space.positions_of(f), key=lambda i: (i != first.get(f), i)) for f in fields}
    return torch.tensor([i for field in fields for i in places[field]])


def base_order(space: Tokens) -> list[int]:
    """Fields by the size of their first vocabulary, small ones first: their distributions are learnt best.

    Fields that may follow from others come right after those, so that what depends on them sees them.
    """
    sizes = [space.vocabularies[space.positions_of(f)[0]] for f in range(len(space.fields))]
    by_size = np.argsort(sizes, kind="stable").tolist()
    needs = {one.field: one.operands for one in space.implied}
    placed: list[int] = []

    def place(field: int) -> None:
        for operand in sorted(needs.get(field, ()), key=by_size.index):
            place(operand)
        if field not in placed:
            placed.append(field)

    related = {i for one in space.implied for i in (one.field, *one.operands)}
    for field in [f for f in by_size if f not in related] + [one.field for one in space.implied]:
        place(field)
    return placed


def implied_in(space: Tokens, order: Tensor) -> list[Implied]:
    """The fields that follow from others when positions are decided in this order: those whose operands come before."""
    if not space.implied:
        return []
    rank = {position: number for number, position in enumerate(order.tolist())}
    return [
        one
        for one in space.implied
        if max(rank[i] for f in one.operands for i in space.positions_of(f)) < rank[one.position]
    ]
