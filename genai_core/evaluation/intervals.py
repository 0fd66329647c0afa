"""A figure with its 95 % interval: shares, means, areas under curves, and whatever rows can be resampled for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

Z = 1.959964  # of a 95 % interval
RESAMPLES = 30  # for a standard error: its own relative error is then about an eighth


@dataclass(frozen=True)
class Estimate:
    """A figure, the ends of its 95 % interval, from how many rows, and how the interval was found."""

    value: float
    low: float
    high: float
    rows: int
    by: str

    def as_dict(self) -> dict[str, Any]:
        """JSON-able, rounded to six digits."""
        return {k: round(v, 6) if isinstance(v, float) else v for k, v in asdict(self).items()}


def normal(value: float, error: float, rows: int, by: str) -> Estimate:
    """From a standard error."""
    return Estimate(float(value), float(value - Z * error), float(value + Z * error), int(rows), by)


def share(hits: int, rows: int) -> Estimate:
    """Of independent rows: the exact binomial interval (Clopper & Pearson 1934)."""
    from scipy.stats import binomtest

    if not rows:
        return Estimate(0.0, 0.0, 1.0, 0, "binomial")
    found = binomtest(int(hits), int(rows)).proportion_ci(0.95, "exact")
    return Estimate(float(hits / rows), float(found.low), float(found.high), int(rows), "binomial")


def mean(values: np.ndarray, by: str = "normal") -> Estimate:
    """Mean of independent values; the central limit theorem gives the interval."""
    error = float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0
    return normal(float(np.mean(values)), error, len(values), by)


def auc(labels: np.ndarray, scores: np.ndarray) -> Estimate:
    """Area under the ROC curve; the standard error is DeLong's (1988), by ranks (Sun & Xu 2014)."""
    from scipy.stats import rankdata

    labels = np.asarray(labels, bool)
    positive, negative = scores[labels], scores[~labels]
    m, n = len(positive), len(negative)
    ranks = rankdata(np.concatenate([positive, negative]))
    above = (ranks[:m] - rankdata(positive)) / n
    below = 1 - (ranks[m:] - rankdata(negative)) / m
    error = np.sqrt(np.var(above, ddof=1) / m + np.var(below, ddof=1) / n)
    return normal(float(above.mean()), float(error), m + n, "DeLong")


def bootstrapped(
    value: float,
    measure: Callable[[np.ndarray], float],
    rows: int,
    seed: int,
    resamples: int = RESAMPLES,
) -> Estimate:
    """Interval of `value` by the spread of `measure(row numbers)` over resamples of the rows (Efron 1979).

    Only the spread is taken from the resamples: measures of distance are larger in resamples than in the sample.
    """
    random = np.random.default_rng(seed)
    found = [measure(random.integers(0, rows, rows)) for _ in range(resamples)]
    return normal(value, float(np.std(found, ddof=1)), rows, f"bootstrap, {resamples}")
