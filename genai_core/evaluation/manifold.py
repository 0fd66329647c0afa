"""Precision, recall, density and coverage: does a sample lie where real records are, and everywhere they are?

Around every record lies a ball that reaches to its k-th neighbour of its own sample. Precision is the share of made
records in a ball of a real one, recall the reverse (Kynkaanniemi et al. 2019). Density counts in how many balls a made
record lies, over k; coverage is the share of real balls that hold a made record (Naeem et al. 2020), which a few
outliers do not blow up. Precision falls and recall rises when a generator is too varied, the reverse when it collapses.
"""

from __future__ import annotations

import numpy as np

from genai_core.errors import InvalidData
from genai_core.evaluation.intervals import Estimate, mean, share
from genai_core.evaluation.neighbours import blocks, radii

K = 5


def manifold(made: np.ndarray, real: np.ndarray, k: int = K) -> dict[str, Estimate]:
    """precision, recall, density, coverage of features `made` against `real`, (rows, d) each and equally many.

    Raises InvalidData: fewer than k + 1 rows, or unequal numbers of them, which move all four.
    """
    if len(made) != len(real) or len(made) <= k:
        raise InvalidData(
            f"found {len(made)} made and {len(real)} real rows; give equally many, at least {k + 1}"
        )
    of_real, of_made = radii(real, k), radii(made, k)
    inside = np.zeros(len(made), np.int64)
    reached = np.zeros(len(real), bool)
    covered = np.zeros(len(real), bool)
    for rows, distances in blocks(made, real):
        in_ball = distances <= of_real
        inside[rows] = in_ball.sum(1)
        covered |= in_ball.any(0)
        reached |= (distances <= of_made[rows, None]).any(0)
    return {
        "precision": share(int((inside > 0).sum()), len(made)),
        "recall": share(int(reached.sum()), len(real)),
        "density": mean(inside / k),
        "coverage": share(int(covered.sum()), len(real)),
    }
