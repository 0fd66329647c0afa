"""The training loop: limits, schedule, failure."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from genai_core.errors import TrainingFailed
from genai_core.hyperparameters import FitSettings
from genai_core.loop import Fit, held_out, schedule
from genai_core.model import Model
from tests.contract.spaces import tiny_space

ROWS = np.random.default_rng(0).integers(0, 3, (400, 3))


class Constant(Model):
    """One weight that the loss pulls to zero; the validation loss is given."""

    learning_rate = 0.1

    def __init__(self, losses: list[float] | None = None, blow_up_at: int = 10**9) -> None:
        super().__init__(tiny_space())
        self.weight = torch.nn.Parameter(torch.ones(2))
        self.losses, self.blow_up_at = losses, blow_up_at
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def forward(self, x: torch.Tensor, phase: str) -> torch.Tensor:
        self.calls += 1
        factor = float("nan") if int(self.calls) > self.blow_up_at else 1.0
        return factor * self.weight.square().sum()

    def validation_loss(self, x: torch.Tensor) -> float:
        return self.losses.pop(0) if self.losses else float(self.weight.square().sum())

    def __deepcopy__(self, memo: dict) -> Constant:
        twin = Constant(self.losses, self.blow_up_at)
        twin.load_state_dict(self.state_dict())
        return twin


def test_the_best_weights_are_kept_and_not_the_last() -> None:
    model = Constant([3.0, 1.0, 2.0, 2.5])
    progress = Fit(model, ROWS, ROWS[:50], FitSettings(max_epochs=4, evaluations=4)).run()
    assert (progress.best, len(progress.history)) == (1.0, 4)
    assert progress.best_step == progress.history[1]["step"]


def test_early_stopping() -> None:
    model = Constant([1.0] + [2.0] * 50)
    progress = Fit(model, ROWS, ROWS[:50], FitSettings(max_epochs=50, evaluations=50, patience=3)).run()
    assert len(progress.history) == 4


def test_max_seconds_ends_the_fit_and_the_schedule_with_it() -> None:
    started = time.monotonic()
    progress = Fit(
        Constant(), ROWS, ROWS[:50], FitSettings(max_epochs=100_000, max_seconds=1, patience=1000)
    ).run()
    assert time.monotonic() - started < 10
    assert progress.done == 1
    assert progress.history


def test_a_loss_that_is_not_finite_fails_with_the_step() -> None:
    with pytest.raises(TrainingFailed, match="not finite at step 5"):
        Fit(Constant(blow_up_at=5), ROWS, ROWS[:50], FitSettings()).run()


def test_gradients_are_clipped() -> None:
    model = Constant()
    fit = Fit(model, ROWS, ROWS[:50], FitSettings(clip=0.001))
    fit.run()
    norm = torch.cat([p.grad.flatten() for p in model.parameters()]).norm()
    assert norm <= 0.001 + 1e-6


def test_schedule_warms_up_and_falls_to_nothing() -> None:
    rates = [schedule(x) for x in np.linspace(0, 1, 101)]
    assert rates[0] < 0.1
    assert max(rates) == pytest.approx(1, abs=0.01)
    assert rates[-1] < 0.001
    assert np.argmax(rates) == 10


def test_rows_are_held_out_by_number_and_seed_alone() -> None:
    numbers = np.arange(100_000)
    out = held_out(numbers, 0.1, 7)
    assert out.mean() == pytest.approx(0.1, abs=0.005)
    order = np.random.default_rng(0).permutation(len(numbers))
    assert np.array_equal(held_out(numbers[order], 0.1, 7), out[order])
    assert not np.array_equal(held_out(numbers, 0.1, 8), out)
    assert held_out(numbers + 2**40, 0.1, 7).mean() == pytest.approx(0.1, abs=0.005)
