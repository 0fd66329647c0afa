"""The row of a table that is most like another: Gower's distance (1971) on the scale of ranks"""

from __future__ import annotations

import numpy as np

from genai_core.drift import Profile
from genai_core.spaces import Tokens


def distances(space: Tokens, profile: Profile, one: np.ndarray, others: np.ndarray) -> np.ndarray:
    """float64 (rows, columns), 0 the same, 1 as far as can be: between a record and others, tokens (rows, positions).

    Ordered values differ by the share of held-out rows between them, all others by 0 or 1.
    """
    ends = np.cumsum([space.positions[i].vocabulary for i in profile.first])
    counts = np.split(profile.tokens, ends[:-1])
    columns = [
        _between(space.positions[i].values, counts[column], int(one[i]), others[:, i])
        for column, i in enumerate(profile.first)
    ]
    same = np.stack([_same(space.positions_of(c), one, others) for c in range(len(profile.first))], 1)
    return np.where(same, 0.0, np.stack(columns, 1))


def _same(positions: list[int], one: np.ndarray, others: np.ndarray) -> np.ndarray:
    return (others[:, positions] == one[positions]).all(1)


def _between(values: np.ndarray | None, counts: np.ndarray, one: int, others: np.ndarray) -> np.ndarray:
    """Of first tokens; values: their places on an axis, NaN off it."""
    if values is None or values.ndim > 1 or np.isnan(values[one]):
        return (others != one).astype(float)
    order = np.argsort(values, kind="stable")  # NaN last
    rank = np.empty(len(values))
    rank[order] = (np.cumsum(counts[order]) - counts[order] / 2) / max(counts.sum(), 1)
    apart = np.abs(rank[others] - rank[one])
    return np.where(np.isnan(values[others]), 1.0, apart)
