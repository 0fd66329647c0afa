"""Which field of a table each other one is drawn after: the dependence tree of Chow & Liu (1968)."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from genai_core.spaces import Tokens

ROWS = 20_000  # that dependence is measured on
PAIRS = 20_000  # of fields on which so many rows are looked at; of more pairs, fewer rows
LEAST_ROWS = 2000
CELLS = 2**20  # of the largest table of two fields that is counted


def dependence_tree(space: Tokens, x: np.ndarray) -> tuple[list[int], list[int]]:
    """Parent of every position (-1: none), and an order in which parents come first; x (rows, positions).

    The first positions of the fields form a tree, or several, with the largest sum of mutual information; a position
    inside a field hangs on the one that the space says.
    """
    first = [i for i, p in enumerate(space.positions) if p.parent is None]
    says = {one.position for one in space.implied}
    parents = [-1 if p.parent is None else p.parent for p in space.positions]
    order: list[int] = []
    for here, above in _spanning(_information(space, x, first)):
        parents[first[here]] = -1 if above < 0 else first[above]
        i = first[here]
        order += [i] if i in says else space.values_of(space.positions[i].field)
    return parents, order


def _information(space: Tokens, x: np.ndarray, first: list[int]) -> np.ndarray:
    """Nats that each pair of fields says of each other, (fields, fields); 0 where it would be chance alone."""
    pairs = list(combinations(range(len(first)), 2))
    rows = x[: max(LEAST_ROWS, ROWS * min(PAIRS, len(pairs)) // max(len(pairs), 1))]
    found = np.zeros((len(first), len(first)))
    sizes = [space.positions[i].vocabulary for i in first]
    columns = [np.ascontiguousarray(rows[:, i], dtype=np.int64) for i in first]
    for a, b in pairs:
        if sizes[a] * sizes[b] <= CELLS:
            joint = np.bincount(columns[a] * sizes[b] + columns[b], minlength=sizes[a] * sizes[b])
            found[a, b] = found[b, a] = mutual_information(joint.reshape(sizes[a], sizes[b]))
    return found


def mutual_information(counts: np.ndarray) -> float:
    """Nats, of a table of counts; less what independent fields would show by chance (Miller 1955), at least 0.

    Chance is counted with all cells and not with those seen: two fields of thousands of values agree on every row.
    """
    total, left, right = counts.sum(), counts.sum(1), counts.sum(0)
    i, j = np.nonzero(counts)
    seen = counts[i, j].astype(float)
    nats = (seen * np.log(seen * total / (left[i].astype(float) * right[j]))).sum() / total
    chance = ((left > 0).sum() - 1) * ((right > 0).sum() - 1) / (2 * total)
    return max(float(nats - chance), 0.0)


def _spanning(weight: np.ndarray) -> list[tuple[int, int]]:
    """(node, parent or -1) along the heaviest spanning tree (Prim 1957), from the node that says most of all."""
    start = int(weight.sum(1).argmax())
    best, above = np.full(len(weight), -1.0), np.full(len(weight), -1)
    best[start], found = np.inf, []
    for _ in range(len(weight)):
        here = int(best.argmax())
        found.append((here, int(above[here])))
        closer = (weight[here] > np.maximum(best, 0)) & (best > -np.inf)
        best[closer], above[closer] = weight[here][closer], here
        best[here] = -np.inf
    return found
