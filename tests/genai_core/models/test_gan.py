"""What is peculiar to the adversarial family on tables: its start, and that it keeps what it starts with."""

from __future__ import annotations

import numpy as np
import torch

from genai_core import catalog
from genai_core.hyperparameters import FitSettings
from genai_core.loop import Fit
from genai_core.spaces import Position, Tokens


def two_patterns(rows: int = 800) -> tuple[Tokens, np.ndarray]:
    """Six fields that all say the same of two things, one of them rarer."""
    space = Tokens(tuple(Position(3, i, np.ones(3, bool)) for i in range(6)), tuple("abcdef"))
    which = np.random.default_rng(0).random(rows) < 0.3
    return space, np.repeat(np.where(which, 2, 0)[:, None], 6, 1)


def shares(x: torch.Tensor) -> tuple[float, float]:
    """Of the two patterns among records."""
    return float((x == 0).all(1).float().mean()), float((x == 2).all(1).float().mean())


def test_the_game_starts_with_both_patterns_and_with_the_defaults_keeps_them() -> None:
    space, rows = two_patterns()
    torch.manual_seed(0)
    model = catalog.build_model("gan", space, {})
    fit = Fit(model, rows[100:], rows[:100], FitSettings(max_epochs=4, evaluations=4))
    model.initialise(torch.from_numpy(rows[100:]))
    at_start = shares(model.eval().sample(2000, torch.Generator().manual_seed(0)))
    fit.run()
    at_end = shares(model.sample(2000, torch.Generator().manual_seed(0)))
    for usual, rare in (at_start, at_end):
        assert 0.55 < usual < 0.8
        assert 0.2 < rare < 0.45
