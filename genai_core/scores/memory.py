"""Distance to the nearest of the training rows that are remembered: any model's, it asks the network nothing

Rows are compared as vectors in two scales at once, ranks and standard deviations (`genai_core.tables.vectors`): ranks
see the middle of skewed columns, standard deviations how far out a value is. A category that differs counts as two
standard deviations squared; what no training row had, more.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from genai_core.model import Model
from genai_core.scores import State
from genai_core.tables.vectors import Vectors, vectors

NEEDS = Model
UNIT = "squared standard deviations"
STATE_OF = "ensemble"
MEMORY = 4096
TOGETHER = 256  # rows compared at once: the distances stay in the cache
VIEWS = ("normal", "standard")
UNKNOWN = 9.0  # added for a category or a missing value that no training row had


def remember(view: State, x: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    """The vectors of at most MEMORY of the training records x (rows, positions)."""
    kept = torch.randperm(len(x), generator=generator)[:MEMORY].sort().values
    points = _points(view, [vectors(view, x[kept], None, scale) for scale in VIEWS])
    return {"rows": points, "squares": points.square().sum(1)}


def score(model: Model, x: Tensor, log_measure: Tensor, state: State) -> Tensor:
    """(rows, fields): squared distance to the nearest remembered row, column by column."""
    return distances(below(state, "view/"), below(state, "memory/"), x, log_measure)


def distances(
    view: State, memory: State, x: Tensor, log_measure: Tensor | None, *, others: bool = False
) -> Tensor:
    """(rows, fields); others: a remembered row is compared with the other ones."""
    parts = []
    measures = [None] * len(x) if log_measure is None else log_measure.split(TOGETHER)
    for rows, measure in zip(x.split(TOGETHER), measures, strict=False):
        found = [vectors(view, rows, measure, scale) for scale in VIEWS]
        own = _points(view, found)
        nearest = memory["rows"][_nearest(own, memory, 1 if others else 0)]
        squares = (own - nearest).square()
        by_unit = _by_unit(view, squares) + UNKNOWN * view["odd"][found[0].places]
        out = by_unit.new_zeros(len(rows), int(view["field"].max()) + 1)
        parts.append(out.index_add(1, view["field"], by_unit))
    return torch.cat(parts)


def below(state: State, prefix: str) -> dict[str, Tensor]:
    """The part of a state whose names begin so."""
    return {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}


def _nearest(own: Tensor, memory: Mapping[str, Tensor], skip: int) -> Tensor:
    """Index (rows,) of the nearest remembered row; skip: so many nearer ones are passed over."""
    # |a - b|^2 without |a|^2, which is the same for all b
    squares = torch.addmm(memory["squares"], own, memory["rows"].T, alpha=-2)
    if not skip:
        return squares.argmin(1)
    return squares.topk(min(skip + 1, squares.shape[1]), 1, largest=False).indices[:, -1]


def _points(view: State, found: list[Vectors]) -> Tensor:
    """(rows, numbers): the numeric units in both scales, then the codes of units that have several in training."""
    numeric, coded = view["numeric"], view["coded"]
    parts = [one.numbers[:, numeric] * 0.5**0.5 for one in found]
    if bool(coded.any()):
        kinds = view["kinds"][coded]
        starts = kinds.cumsum(0) - kinds
        ones = parts[0].new_zeros(len(parts[0]), int(kinds.sum()))
        parts.append(ones.scatter_(1, found[0].codes[:, coded] + starts, 1.0))
    return torch.cat(parts, 1)


def _by_unit(view: State, squares: Tensor) -> Tensor:
    """Sums (rows, units) of what `_points` lays out."""
    numeric, coded = view["numeric"], view["coded"]
    places = numeric.nonzero().flatten()
    owner = torch.cat([places, places, coded.nonzero().flatten().repeat_interleave(view["kinds"][coded])])
    return squares.new_zeros(len(squares), len(numeric)).index_add(1, owner, squares)


_ = F
