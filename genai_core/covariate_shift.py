"""Held-out rows weighted until they look like a part of the data that has moved, for p-values that hold there.

Under a shift of covariates a conformal p-value holds when every held-out row counts as much as rows like it are more
frequent where the p-value is asked for (weighted conformal prediction: Tibshirani et al. 2019; of outliers with
Benjamini-Hochberg: Jin & Candes 2023). The weights here make every column's histogram that of the part and otherwise
stay as near to one as they can: raking (Deming & Stephan 1940; Deville & Sarndal 1992). So a part is known by its
histograms alone, and the weights depend on no order of its rows, batches or shards.

What it rests on: that columns moved, and what is normal given the columns did not; that moved columns are told by their
histograms; and that anomalies are rare in the part. Where they are not, they are taken for what is normal there; so no
weight is above MAX_WEIGHT, and where so few held-out rows carry the weight that they count less than LEAST_EFFECTIVE,
there are no weights at all.
"""

from __future__ import annotations

import numpy as np

MAX_WEIGHT = 20.0  # of a held-out row: how many times as frequent rows like it may be taken to be
LEAST_EFFECTIVE = 100.0  # rows
ROUNDS = 50
ENOUGH = 1e-3  # largest change of a weight in a round at which the rounds end


def raked(rows: np.ndarray, counts: list[np.ndarray]) -> np.ndarray:
    """How many times as frequent rows like each held-out row are in a part, float64 (rows,).

    rows    bucket of each column, (rows, columns)
    counts  how many rows of the part lie in each bucket, one array a column
    """
    weights = np.ones(len(rows))
    targets = [_shares(rows[:, i], wanted) for i, wanted in enumerate(counts)]
    for _ in range(ROUNDS):
        before = weights
        for i, target in enumerate(targets):
            bucket = rows[:, i]
            have = np.bincount(bucket, weights=weights, minlength=len(target)) / len(rows)
            weights = weights * np.divide(target, have, out=np.ones_like(have), where=have > 0)[bucket]
            weights = np.minimum(weights, MAX_WEIGHT)
        if np.abs(weights - before).max() < ENOUGH:
            break
    return weights


def effective_rows(weights: np.ndarray) -> float:
    """How many rows of equal weight tell as much (Kish 1965)."""
    return float(weights.sum() ** 2 / np.square(weights).sum())


def _shares(bucket: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Of the buckets in the part. Few rows say little: as many as there are buckets are added, spread as held out."""
    held_out = np.bincount(bucket, minlength=len(counts)) / len(bucket)
    return (counts + len(counts) * held_out) / (counts.sum() + len(counts))
