"""What an attacker learns of the training rows from a synthetic table: distances, membership, singling out.

Every figure stands beside that of real rows which were not trained on: they are as near to the training rows as the
population is. None of these attacks is the best possible: a table that withstands them is not proved to be private.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from genai_core.evaluation.coding import CodedColumn
from genai_core.evaluation.intervals import Estimate, auc, share
from genai_core.evaluation.neighbours import nearest

TIE = 1e-3
BARS = 40
PREDICATES = 600
COLUMNS = (3, 4, 6)  # of a predicate
ATTEMPTS = 20  # predicates tried for each one that singles out a synthetic row


@dataclass(frozen=True)
class Attacks:
    """Estimates by name, of the synthetic rows and, as `real`, of real rows in their place."""

    synthetic: dict[str, Estimate]
    real: dict[str, Estimate]
    details: dict[str, Any] = field(default_factory=dict)


def distance_attacks(made: np.ndarray, train: np.ndarray, holdout: np.ndarray, seed: int) -> Attacks:
    """Nearer to training rows than to held-out ones? And does nearness to the made rows tell who was trained on?

    made, train, holdout  house features (rows, d)

    nearer_to_train   share of made rows whose closest record is a training row rather than one of as many held-out
                      rows, ties by half; .5 is right
    close_to_train    share of made rows nearer to a training row than one in a hundred held-out rows is; .01 is right
    membership_auc    membership inference: the better of two attacks on training rows hidden among held-out ones, by
                      distance to the closest made row (Chen et al. 2020), and by that in proportion to the distance to
                      the closest of other real rows (density ratio: van Breugel et al. 2023); .5 is guessing
    """
    random = np.random.default_rng(seed)
    train, holdout = random.permutation(train), random.permutation(holdout)
    others, outsiders = np.array_split(holdout, 2)  # `others` also play the synthetic rows of the real row
    reference = train[: len(holdout)]
    to_train, to_holdout = nearest(made, reference), nearest(made, holdout)
    outside = nearest(outsiders, reference)
    synthetic = {"nearer_to_train": _nearer(to_train, to_holdout)}
    real = {"nearer_to_train": _nearer(nearest(outsiders, train[: len(others)]), nearest(outsiders, others))}
    limit = float(np.quantile(outside, 0.01))
    synthetic["close_to_train"] = share(int((to_train < limit).sum()), len(made))
    real["close_to_train"] = share(int((outside < limit).sum()), len(outside))
    hidden = np.concatenate([train[-len(outsiders) :], outsiders])
    labels = np.arange(len(hidden)) < len(outsiders)
    to_others, to_made = nearest(hidden, others), nearest(hidden, made)
    by = {
        "distance": auc(labels, -to_made),
        "density": auc(labels, np.log(to_others + TIE) - np.log(to_made + TIE)),
    }
    best = max(by, key=lambda name: by[name].value)
    synthetic["membership_auc"], real["membership_auc"] = by[best], auc(labels, -to_others)
    details = {
        "distances": _histogram(to_train, outside),
        "membership": {name: one.as_dict() for name, one in by.items()},
        "attack": best,
    }
    return Attacks(synthetic, real, details)


def _nearer(to_train: np.ndarray, to_holdout: np.ndarray) -> Estimate:
    tie = np.abs(to_train - to_holdout) <= TIE
    return share(round(float(np.where(tie, 0.5, to_train < to_holdout).sum())), len(to_train))


def _histogram(made: np.ndarray, outside: np.ndarray) -> dict[str, list[float]]:
    """Distances to the closest training row, of synthetic and of held-out rows, as shares by bar."""
    top = float(np.quantile(np.concatenate([made, outside]), 0.99)) or 1.0
    edges = np.linspace(0, top, BARS + 1)
    counts = [np.histogram(np.minimum(d, top), edges)[0] / len(d) for d in (made, outside)]
    return {
        "edges": [round(float(e), 5) for e in edges],
        "synthetic": [round(float(c), 6) for c in counts[0]],
        "holdout": [round(float(c), 6) for c in counts[1]],
    }


def likelihood_attack(train: np.ndarray, holdout: np.ndarray) -> Estimate:
    """Membership inference by somebody who has the model: log-likelihoods of training and of held-out rows."""
    both = np.concatenate([train, holdout])
    fine = np.isfinite(both)
    labels = np.arange(len(both)) < len(train)
    return auc(labels[fine], both[fine])


def singling_out(
    of_train: list[CodedColumn], of_holdout: list[CodedColumn], seed: int
) -> tuple[Estimate, Estimate, int]:
    """Singling-out risk (Giomi et al. 2023): predicates that match one synthetic row; do they match one training row?

    of_train, of_holdout  training rows, and as many held-out rows, each coded with the same synthetic rows (`second`)

    Returns the shares of successes against training rows and against held-out rows, and the number of predicates.
    What succeeds as often against rows that nobody trained on is a fact of the population, not a leak.
    """
    random = np.random.default_rng(seed)
    varying = [i for i, column in enumerate(of_train) if column.size > 2]
    if not varying:
        return share(0, 0), share(0, 0), 0
    hits, made, rows = np.zeros((2, PREDICATES), bool), 0, len(of_train[0].second)
    middles = [float(np.median(column.second)) for column in of_train]
    for _ in range(PREDICATES * ATTEMPTS):
        if made == PREDICATES:
            break
        row, width = int(random.integers(rows)), min(int(random.choice(COLUMNS)), len(varying))
        chosen = [
            (int(i), bool(of_train[i].second[row] >= middles[i]))
            for i in random.choice(varying, width, replace=False)
        ]
        if _matches(of_train, chosen, row, "second") == 1:
            hits[:, made] = [_matches(side, chosen, row, "first") == 1 for side in (of_train, of_holdout)]
            made += 1
    return share(int(hits[0].sum()), made), share(int(hits[1].sum()), made), made


def _matches(columns: list[CodedColumn], chosen: list[tuple[int, bool]], row: int, side: str) -> int:
    """How many rows of a side are, in the chosen columns, equal to a synthetic row or at least as extreme."""
    inside: np.ndarray | None = None
    for i, upper in chosen:
        column = columns[i]
        code, codes = column.second[row], getattr(column, side)
        codes = codes if inside is None else codes[inside]
        if not column.ordered or code == 0:
            found = codes == code
        else:
            found = codes >= code if upper else (codes <= code) & (codes > 0)
        inside = np.flatnonzero(found) if inside is None else inside[found]
    return 0 if inside is None else len(inside)
