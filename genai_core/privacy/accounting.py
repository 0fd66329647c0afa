"""How much of a privacy budget is spent, and how much noise a budget asks for.

Everything that reads the data is a Gaussian mechanism, of a random sample or of all rows; their Renyi divergences add
up (Mironov 2017; sampled: Mironov, Talwar & Zhang 2019) and become (epsilon, delta). The sums are opacus' (Yousefpour
et al. 2021).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import NamedTuple

from genai_core.errors import InvalidInput

LEAST, MOST = 0.05, 1e4  # noise multipliers
# orders of divergences; small budgets need high ones
ORDERS = [*(1 + n / 10 for n in range(1, 100)), *map(float, range(11, 64)), 80.0, 128.0, 256.0, 512.0, 1024.0]


class Mechanism(NamedTuple):
    """`steps` times Gaussian noise of `noise` times the sensitivity, on each row with probability `sample`."""

    noise: float
    sample: float
    steps: int


def epsilon(mechanisms: Sequence[Mechanism], delta: float) -> float:
    """Of all of them together, for neighbours that differ in one row which is there or not."""
    from opacus.accountants import RDPAccountant

    accountant = RDPAccountant()
    accountant.history = [(m.noise, m.sample, m.steps) for m in mechanisms if m.steps]
    if not accountant.history:
        return 0.0
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", UserWarning
        )  # an order at the end of its list: a larger epsilon, never a smaller
        return float(accountant.get_epsilon(delta, alphas=ORDERS))


def noise_for(
    budget: float, delta: float, sample: float, steps: int, before: Sequence[Mechanism] = ()
) -> float:
    """The least noise multiplier with which `steps` and what was done before stay within the budget, to .1 %.

    Raises InvalidInput when no noise is enough.
    """

    def spent(noise: float) -> float:
        return epsilon([*before, Mechanism(noise, sample, steps)], delta)

    if spent(MOST) > budget:
        raise InvalidInput(
            f"fit.privacy: epsilon {budget:g} with delta {delta:g} is spent before training; raise epsilon or delta"
        )
    low, high = math.log(LEAST), math.log(MOST)
    while high - low > 1e-3:
        middle = (low + high) / 2
        low, high = (low, middle) if spent(math.exp(middle)) <= budget else (middle, high)
    return math.exp(high)
