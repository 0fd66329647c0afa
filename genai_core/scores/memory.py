"""Distance to the nearest of the training rows that are remembered: any model's, it asks the network nothing

Rows are compared as vectors (`genai_core.tables.vectors`), in standard deviations and, apart from that, on the scale of
ranks: the score is the mean of both squared distances. Categories are standardised like numbers, up to a limit; what
no training row had is UNKNOWN farther.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genai_core.folds import mean
from genai_core.model import Model
from genai_core.scores import State
from genai_core.tables.vectors import Vectors, below, by_field, points, unknown, vectors

NEEDS = Model
UNIT = "squared standard deviations"
STATE_OF = "ensemble"
MEMORY = 4096
TOGETHER = 256  # rows compared at once: the distances stay in the cache
BLOCK = 64  # remembered rows whose distances are compared before the others'
UNKNOWN = 9.0
SCALES = ("standard", "rank")


def remember(view: State, x: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    """The vectors of at most MEMORY of the training records x (rows, positions), on both scales."""
    kept = torch.randperm(len(x), generator=generator)[:MEMORY]
    kept = torch.cat([kept, kept[:1].expand(-len(kept) % BLOCK)])
    found = vectors(view, x[kept], None)
    rows = {scale: points(view, found, getattr(found, scale)) for scale in SCALES}
    squares = {f"{scale}_squares": own.square().sum(1) for scale, own in rows.items()}
    return rows | squares


def score(model: Model, x: Tensor, log_measure: Tensor, state: State) -> Tensor:
    """(rows, fields): the columns' shares of the squared distance."""

    def apart(part: State) -> Tensor:
        view = below(part, "view/")
        return torch.stack(distances(view, below(part, "memory/"), vectors(view, x, log_measure))).mean(0)

    return mean(state, apart)


def distances(view: State, memory: State, found: Vectors) -> list[Tensor]:
    """(rows, fields), squared, for each of SCALES."""
    return [
        torch.cat(parts) for parts in zip(*map(_Nearest(view, memory), found.split(TOGETHER)), strict=True)
    ]


class _Nearest:
    """Of some rows the squared distances to the nearest remembered one."""

    def __init__(self, view: State, memory: State) -> None:
        self.view, self.memory = view, memory
        numeric, coded = view["numeric"], view["coded"]
        codes = coded.nonzero().flatten().repeat_interleave(view["kinds"][coded])
        units = torch.cat([numeric.nonzero().flatten(), codes])
        self.field = view["field"][units]  # of what `points` lays out

    def __call__(self, found: Vectors) -> list[Tensor]:
        strange = by_field(self.view, UNKNOWN * unknown(self.view, found))
        return [strange.index_add(1, self.field, self._squares(found, scale)) for scale in SCALES]

    def _squares(self, found: Vectors, scale: str) -> Tensor:
        own, rows = points(self.view, found, getattr(found, scale)), self.memory[scale]
        # |a - b|^2 without |a|^2, which is the same for all b
        apart = torch.addmm(self.memory[f"{scale}_squares"], own, rows.T, alpha=-2).unflatten(1, (-1, BLOCK))
        block = apart.amin(2).argmin(1)  # quicker than one search for the place of the least
        nearest = block * BLOCK + apart[torch.arange(len(own)), block].argmin(1)
        return (own - rows[nearest]).square()
