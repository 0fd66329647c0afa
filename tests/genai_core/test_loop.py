"""The training loop: limits, schedule, failure, steps in parts, replicas."""

from __future__ import annotations

import copy
import time
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from genai_core import catalog
from genai_core.errors import InvalidInput, TrainingFailed
from genai_core.hyperparameters import FitSettings
from genai_core.loop import Fit, schedule
from genai_core.model import Model
from genai_core.networks import pixels, transformer
from genai_core.replicas import Replicas
from genai_core.splits import held_out
from tests.contract import test_grids_and_sequences as others
from tests.contract import test_models as tables
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
    with pytest.raises(TrainingFailed, match=r"not finite at step 5; lower fit\.learning_rate"):
        Fit(Constant(blow_up_at=5), ROWS, ROWS[:50], FitSettings(health="off")).run()
    with pytest.raises(
        TrainingFailed, match=r"going back to the last good weights at steps 5, 11, 17 did not"
    ):
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


# -- parts of a step, and several replicas -------------------------------------------------------------------


def without_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random draws give the same for every record and layers compute in float32: a loss is a mean over records."""

    def filled(value: float) -> Any:
        return lambda *size, **_: torch.full(size if size and isinstance(size[0], int) else size[0], value)

    monkeypatch.setattr(torch, "randn", filled(0.3))
    monkeypatch.setattr(torch, "rand", filled(0.5))
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
    monkeypatch.setattr(torch, "randint", lambda low, high, size, **_: torch.full(size, low))
    monkeypatch.setattr(torch, "randperm", lambda n, **_: torch.arange(n))
    monkeypatch.setattr(F, "gumbel_softmax", lambda x, temperature, hard: (x / temperature).softmax(-1))
    monkeypatch.setattr(pixels, "multiplies_bfloat16", lambda device: False)
    monkeypatch.setattr(transformer, "precision", lambda device: torch.float32)


# without batch normalisation, which looks at the records of a part together
FAMILIES = [(kind, "tabular") for kind in tables.OF_TABLES] + [p for p in others.PAIRS if p[0] != "dcgan"]


@pytest.mark.parametrize(("kind", "modality"), FAMILIES)
def test_a_step_in_parts_is_the_step_of_the_whole_batch(
    kind: str, modality: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(1)
    if modality == "tabular":
        space, x, settings = tiny_space(), tables.data(64), tables.SMALL[kind]
    else:
        space = others.SPACES[modality]
        x, settings = others.records(space), others.SMALL[kind]
    whole = {
        "vae": {"free_bits": 0.0},
        "autoregressive": {"dropout": 0.0},
    }  # free bits look at the batch's mean
    model = catalog.build_model(kind, space, settings | whole.get(kind, {}))
    if hasattr(model, "critic"):
        model.critic.penalised = 1.0  # else the first of every part are
    without_noise(monkeypatch)
    gradients = {}
    for parts in (1, 4):
        fit = Fit(copy.deepcopy(model), x, x, FitSettings(accumulate=parts, batch_size=32))
        fit._prepare()
        fit.model.train()
        batch = torch.from_numpy(balanced(x)[: fit.share])
        gradients[parts] = {phase: fit._gradient(batch, phase) for phase in fit.optimisers}
    for phase, (loss, gradient) in gradients[1].items():
        loss_in_parts, gradient_in_parts = gradients[4][phase]
        assert loss_in_parts.item() == pytest.approx(loss.item(), rel=1e-4)
        assert gradient.norm() > 0
        assert (gradient - gradient_in_parts).norm() < 1e-4 * gradient.norm()


def balanced(x: np.ndarray) -> np.ndarray:
    """Both values of the first entry in turn: a family of two domains means over the records of each."""
    zeros, ones = x[x[:, 0] == 0], x[x[:, 0] == 1]
    n = min(len(zeros), len(ones))
    return np.stack([zeros[:n], ones[:n]], 1).reshape(2 * n, -1)


def test_parts_too_small_for_the_model_are_refused() -> None:
    gan = catalog.build_model("gan", tiny_space(), tables.SMALL["gan"] | {"pac": 4})
    Fit(gan, ROWS, ROWS[:50], FitSettings(batch_size=32, accumulate=8))
    with pytest.raises(InvalidInput, match=r"leave 3 at a time; this model needs 4: raise fit\.batch_size"):
        Fit(gan, ROWS, ROWS[:50], FitSettings(batch_size=32, accumulate=9))


class OneOf(Replicas):
    """Says how many there are; counts rows as if every replica had as many."""

    def __init__(self, world: int, rank: int = 0) -> None:
        self.world, self.rank = world, rank

    def gather(self, value: Any) -> list[Any]:
        return [value] * self.world


@pytest.mark.parametrize(
    ("rule", "batch", "rate"), [("none", 100, 1.0), ("sqrt", 300, 3**0.5), ("linear", 300, 3.0)]
)
def test_batch_and_rate_follow_the_number_of_workers(rule: str, batch: int, rate: float) -> None:
    settings = FitSettings(batch_size=100, scale_with_workers=rule)
    rows = np.zeros((4000, 3), np.int64)
    fits = [Fit(Constant(), rows, rows, settings, OneOf(3, rank)) for rank in range(3)]
    assert [fit.batch for fit in fits] == [batch] * 3
    assert sum(fit.share for fit in fits) == batch
    fits[0]._prepare()
    assert fits[0].peak == pytest.approx(Constant.learning_rate * rate)
    assert fits[0].steps_per_epoch == 12_000 // batch


@pytest.mark.parametrize("rule", ["none", "linear"])
def test_a_fit_goes_on_where_it_was_in_its_epochs_when_workers_go(rule: str) -> None:
    settings = FitSettings(batch_size=100, scale_with_workers=rule, max_epochs=10)
    few, many = np.zeros((4000, 3), np.int64), np.zeros((12_000, 3), np.int64)
    before = Fit(Constant(), few, few, settings, OneOf(3))
    before._prepare()
    before._resume()
    before.progress.step = 5 * before.steps_per_epoch
    before.progress.history = [{"step": before.steps_per_epoch, "validation_loss": 1.0}]
    kept = before._tensors(), vars(before.progress)
    after = Fit(Constant(), many, many, settings)
    after.replicas.restore = lambda: kept  # type: ignore[method-assign]
    after._prepare()
    after._resume()
    assert after.progress.step == 5 * after.steps_per_epoch == 5 * 120
    assert after.progress.history[0]["step"] == 120
    assert after.progress.worlds == [[0, 3], [600, 1]]


def test_validations_of_a_fit_that_is_limited_in_seconds_leave_time_for_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]

    class Slow(Constant):
        """A second a step, ten a validation."""

        def forward(self, x: torch.Tensor, phase: str) -> torch.Tensor:
            now[0] += 1
            return super().forward(x, phase)

        def validation_loss(self, x: torch.Tensor) -> float:
            now[0] += 10
            return super().validation_loss(x)

        def __deepcopy__(self, memo: dict) -> Slow:
            return Slow()

    monkeypatch.setattr("genai_core.loop.time.monotonic", lambda: now[0])
    settings = {"max_epochs": 100_000, "evaluations": 50, "patience": 1000, "health": "off"}
    limited = Fit(Slow(), ROWS, ROWS[:50], FitSettings(max_seconds=100, **settings)).run()
    assert 2 <= len(limited.history) <= 4 and limited.step >= 60
    assert limited.history[-1]["step"] == limited.step, "the last weights are looked at"
    free = Fit(Slow(), ROWS, ROWS[:50], FitSettings(**settings | {"max_epochs": 10})).run()
    assert len(free.history) == 50
