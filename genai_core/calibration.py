"""From scores to p-values: split-conformal calibration on held-out rows (Vovk et al. 2005; Bates et al. 2023).

p = (1 + number of held-out scores at least as high) / (1 + number held out). If a row comes from the same
distribution as the held-out rows, P(p <= a) <= a, whatever the model is worth. The smallest p is 1 / (n + 1).
"""

from __future__ import annotations

import numpy as np

MAX_ROWS = 20_000  # held-out scores kept; a sample above that


class Calibration:
    """Sorted held-out scores of one score, float64."""

    def __init__(self, held_out: np.ndarray) -> None:
        self.scores = np.sort(np.asarray(held_out, np.float64))

    @classmethod
    def fit(cls, held_out: np.ndarray) -> Calibration:
        """Keep at most MAX_ROWS evenly spaced in the order given (not by value: that would bias the tail)."""
        if len(held_out) > MAX_ROWS:
            held_out = held_out[np.linspace(0, len(held_out) - 1, MAX_ROWS).astype(int)]
        return cls(held_out)

    def __len__(self) -> int:
        return len(self.scores)

    def exceeding(self, scores: np.ndarray) -> np.ndarray:
        """How many held-out scores are at least as high, int64 in 0..n; a p-value is one more than this over n + 1."""
        return len(self.scores) - np.searchsorted(self.scores, scores, side="left")

    def p_values(self, scores: np.ndarray) -> np.ndarray:
        """float64 in [1 / (n + 1), 1]; NaN scores get the smallest."""
        below = np.where(np.isnan(scores), np.inf, scores)
        return (1 + self.exceeding(below)) / (1 + len(self.scores))


def benjamini_hochberg(p_counts: np.ndarray, level: float) -> float:
    """The largest p-value that is a discovery at false-discovery rate `level`; 0 when there is none.

    p_counts: how many rows have p = (k + 1) / len(p_counts), for k = 0 .. n. Exact for any number of rows, since
    conformal p-values have only n + 1 values (Benjamini & Hochberg 1995).
    """
    total = p_counts.sum()
    p = np.arange(1, len(p_counts) + 1) / len(p_counts)
    passing = p * total <= level * np.cumsum(p_counts) * (1 + 1e-12)  # equality passes, however it is rounded
    found = np.flatnonzero(passing & (p_counts > 0))
    return float(p[found[-1]]) if len(found) else 0.0
