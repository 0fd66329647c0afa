"""From scores to p-values: split-conformal calibration on held-out rows (Vovk et al. 2005; Bates et al. 2023).

p = (1 + number of held-out scores at least as high) / (1 + number held out). If a row comes from the same
distribution as the held-out rows, P(p <= a) <= a, whatever the model is worth. The smallest p is 1 / (n + 1).
"""

from __future__ import annotations

import numpy as np

MAX_ROWS = 20_000  # held-out scores kept; a sample above that


def kept(held_out: np.ndarray) -> np.ndarray:
    """At most MAX_ROWS along axis 0, evenly spaced in the order given (not by value: that would bias the tail)."""
    if len(held_out) <= MAX_ROWS:
        return held_out
    return held_out[np.linspace(0, len(held_out) - 1, MAX_ROWS).astype(int)]


class Calibration:
    """Held-out scores of one score, float64.

    scores  ascending
    given   in the order of the rows
    """

    def __init__(self, held_out: np.ndarray) -> None:
        self.given = np.asarray(held_out, np.float64)
        self.order = np.argsort(self.given, kind="stable")
        self.scores = self.given[self.order]

    @classmethod
    def fit(cls, held_out: np.ndarray) -> Calibration:
        """Of all scores or, when they are too many, of those that are kept."""
        return cls(kept(held_out))

    def __len__(self) -> int:
        return len(self.scores)

    def exceeding(self, scores: np.ndarray) -> np.ndarray:
        """How many held-out scores are at least as high, int64 in 0..n; a p-value is one more than this over n + 1."""
        return len(self.scores) - np.searchsorted(self.scores, scores, side="left")

    def p_values(self, scores: np.ndarray) -> np.ndarray:
        """float64 in [1 / (n + 1), 1]; NaN scores get the smallest."""
        below = np.where(np.isnan(scores), np.inf, scores)
        return (1 + self.exceeding(below)) / (1 + len(self.scores))

    def weighted(self, weights: np.ndarray) -> np.ndarray:
        """p-values of rows that 0, 1, ... n held-out scores reach, float64 (n + 1,), when held-out rows have weights.

        weights: in the order of the rows. A new row has its own weight, too, which is that to be expected of a row of
        the weighted distribution; so the smallest p-value is 1 / (1 + effective rows).
        """
        own = np.square(weights).sum() / weights.sum()
        reached = np.concatenate([[0.0], np.cumsum(weights[self.order][::-1])])
        return np.minimum((own + reached) / (own + weights.sum()), 1.0)


def reaching(p_values: np.ndarray, held_out: int) -> np.ndarray:
    """How many of so many held-out scores are at least as high, int64, from p-values that say so."""
    return np.rint(p_values * (held_out + 1)).astype(np.int64) - 1


def benjamini_hochberg(p_counts: np.ndarray, level: float, p: np.ndarray | None = None) -> float:
    """The largest p-value that is a discovery at false-discovery rate `level`; 0 when there is none.

    p_counts: how many rows have each value of `p`, ascending; by default p = (k + 1) / len(p_counts), for k = 0 .. n.
    Exact for any number of rows, since conformal p-values have only n + 1 values (Benjamini & Hochberg 1995).
    """
    total = p_counts.sum()
    p = np.arange(1, len(p_counts) + 1) / len(p_counts) if p is None else p
    passing = p * total <= level * np.cumsum(p_counts) * (1 + 1e-12)  # equality passes, however it is rounded
    found = np.flatnonzero(passing & (p_counts > 0))
    return float(p[found[-1]]) if len(found) else 0.0
