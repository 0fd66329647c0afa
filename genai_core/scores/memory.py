"""Distance to the nearest of the training rows that are remembered: any model's, it asks the network nothing

Rows are compared as vectors (`genai_core.tables.vectors`). The memory is cut into BLOCKS; the score is the mean over
the blocks of the squared distance to the nearest row of each: steadier than one nearest row, and as quick. Categories
are standardised like numbers, up to a limit; what no training row had is UNKNOWN farther.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genai_core.model import Model
from genai_core.scores import State
from genai_core.tables.vectors import Vectors, below, by_field, points, unknown, vectors

NEEDS = Model
UNIT = "squared standard deviations"
STATE_OF = "ensemble"
MEMORY, BLOCKS = 4096, 3
TOGETHER = 256  # rows compared at once: the distances stay in the cache
UNKNOWN = 9.0


def remember(view: State, x: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    """The vectors of at most MEMORY of the training records x (rows, positions), (blocks, rows, numbers)."""
    blocks = min(BLOCKS, len(x))
    kept = torch.randperm(len(x), generator=generator)[: min(MEMORY, len(x)) // blocks * blocks]
    rows = points(view, vectors(view, x[kept], None)).unflatten(0, (blocks, -1)).contiguous()
    return {"rows": rows, "squares": rows.square().sum(2)}


def score(model: Model, x: Tensor, log_measure: Tensor, state: State) -> Tensor:
    """(rows, fields): the columns' shares of the squared distance."""
    view = below(state, "view/")
    return distances(view, below(state, "memory/"), vectors(view, x, log_measure))


def distances(view: State, memory: State, found: Vectors) -> Tensor:
    """(rows, fields)."""
    return torch.cat([_distances(view, memory, part) for part in found.split(TOGETHER)])


def _distances(view: State, memory: State, found: Vectors) -> Tensor:
    own, rows = points(view, found), memory["rows"]
    # |a - b|^2 without |a|^2, which is the same for all b
    apart = torch.addmm(memory["squares"].flatten(), own, rows.flatten(0, 1).T, alpha=-2)
    nearest = apart.unflatten(1, rows.shape[:2]).argmin(2)  # (rows, blocks)
    squares = (own[:, None] - rows[torch.arange(len(rows)), nearest]).square().mean(1)
    return by_field(view, _by_unit(view, squares) + UNKNOWN * unknown(view, found))


def _by_unit(view: State, squares: Tensor) -> Tensor:
    """Sums (rows, units) of what `points` lays out."""
    numeric, coded = view["numeric"], view["coded"]
    codes = coded.nonzero().flatten().repeat_interleave(view["kinds"][coded])
    owner = torch.cat([numeric.nonzero().flatten(), codes])
    return squares.new_zeros(len(squares), len(numeric)).index_add(1, owner, squares)
