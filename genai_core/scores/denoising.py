"""Squared error of restoring each column from all others: a denoiser that hides instead of adding noise

The network is the pseudo-likelihood's, which is trained on noisy records with columns hidden (after Vincent et al.
2008); here its guess is asked for and not its certainty, so a column that nothing predicts counts as much as any.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genai_core.folds import mean
from genai_core.model import Model
from genai_core.networks.conditionals import TOGETHER, restored
from genai_core.scores import State
from genai_core.tables.vectors import below, by_field, vectors

NEEDS = Model
UNIT = "squared standard deviations"
STATE_OF = "ensemble"


def score(model: Model, x: Tensor, log_measure: Tensor, state: State) -> Tensor:
    """(rows, fields)."""

    def wrong(part: State) -> Tensor:
        view, weights = below(part, "view/"), below(part, "conditionals/")
        found = vectors(view, x, log_measure).split(TOGETHER)
        return by_field(view, torch.cat([restored(weights, view, rows) for rows in found]))

    return mean(state, wrong)
