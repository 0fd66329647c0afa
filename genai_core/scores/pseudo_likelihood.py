"""Minus the pseudo-log-likelihood (Besag 1975): how little each column follows from all others, in nats

By a network of its own (`genai_core.networks.conditionals`), so any model has it. Up to a constant, and smoothed by
noise of a tenth of a standard deviation: not the model's exact likelihood, which is `negative_log_likelihood`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from genai_core.folds import mean
from genai_core.hyperparameters import FitSettings
from genai_core.loop import Fit
from genai_core.model import Model
from genai_core.networks.conditionals import TOGETHER, Conditionals, judged
from genai_core.scores import State
from genai_core.tables.vectors import Vectors, below, by_field, vectors

NEEDS = Model
UNIT = "nats"
STATE_OF = "ensemble"
STEPS, BATCH = 600, 128
LOOP_LEAST = 20 * BATCH  # records; the loop makes batches of at most a twentieth


def learn(space: Any, view: State, x: Tensor, seed: int, effort: float) -> dict[str, Tensor]:
    """Weights of the conditionals of training records x (rows, positions); effort: share of STEPS."""
    torch.manual_seed(seed)
    rows = x.numpy()
    rows = np.tile(rows, (max(-(-LOOP_LEAST // len(rows)), 1), 1))
    epochs = max(round(effort * STEPS / (len(rows) // BATCH)), 1)
    # noise and few steps keep it from learning rows by heart, so no rows are held out to stop it
    how = FitSettings(seed=seed, batch_size=BATCH, max_epochs=epochs, evaluations=1, patience=1)
    network = Conditionals(space, view)
    with torch.enable_grad():
        Fit(network, rows, rows[: 4 * BATCH], how).run()
    return {name: value.detach() for name, value in network.named_parameters()}


def score(model: Model, x: Tensor, log_measure: Tensor, state: State) -> Tensor:
    """(rows, fields)."""

    def of_part(part: State) -> Tensor:
        view = below(part, "view/")
        return surprise(view, below(part, "conditionals/"), vectors(view, x, log_measure))

    return mean(state, of_part)


def surprise(view: State, weights: State, found: Vectors) -> Tensor:
    """(rows, fields), nats."""
    return by_field(view, torch.cat([judged(weights, view, part) for part in found.split(TOGETHER)]))
