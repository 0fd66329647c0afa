"""Half precision in training: of the layers alone, in every family; sums, validation and scores stay in float32."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from genai_core import catalog
from genai_core.errors import TrainingFailed
from genai_core.hyperparameters import FitSettings
from genai_core.loop import Fit
from genai_core.models import vae
from genai_core.networks.latent_prior import Mixture
from genai_core.networks.levels import Bernoulli, LogisticMixture
from genai_core.precision import HALF, Precision, at_least_float32, in_float32
from tests.contract import test_grids_and_sequences as others
from tests.contract import test_models as tables
from tests.contract.spaces import every_record, tiny_space
from tests.genai_core.test_loop import ROWS, Constant

CASES = [*((kind, "tabular") for kind in tables.OF_TABLES), *others.PAIRS]
SUMS = {
    *(F.cross_entropy, F.log_softmax, F.logsigmoid, F.softplus),
    *(torch.log_softmax, torch.logsumexp, torch.mean, torch.norm, torch.sum),
    *(torch.Tensor.mean, torch.Tensor.norm, torch.Tensor.sum),
}


class SumsInHalf(TorchFunctionMode):
    """Notes the sums, means and log-likelihoods that are computed of half-precision numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in SUMS and any(isinstance(a, torch.Tensor) and a.dtype in HALF.values() for a in args):
            self.found.add(function.__name__)
        return function(*args, **(kwargs or {}))


def model_and_records(kind: str, modality: str) -> tuple[Any, torch.Tensor]:
    if modality == "tabular":
        model, x = tables.new(kind), torch.from_numpy(tables.data(64))
    else:
        space = others.SPACES[modality]
        model, x = others.new(kind, space), torch.from_numpy(others.records(space))
    model.train().initialise(x)
    return model, x


def loss_and_gradient(model: Any, x: torch.Tensor, phase: str, precision: str) -> tuple[float, torch.Tensor]:
    torch.manual_seed(3)
    parameters = [p for group in model.parameters_of(phase) for p in group["params"]]
    with Precision(precision, x.device).layers(), SumsInHalf() as sums:
        loss = model(x, phase)
    assert not sums.found
    assert loss.dtype == torch.float32
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    return loss.item(), torch.cat([g.flatten() for g in gradients if g is not None])


@pytest.mark.parametrize("precision", HALF)
@pytest.mark.parametrize(("kind", "modality"), CASES)
def test_losses_are_summed_in_float32(kind: str, modality: str, precision: str) -> None:
    model, x = model_and_records(kind, modality)
    rounded = False
    for phase in dict.fromkeys(model.phases):
        loss, gradient = loss_and_gradient(model, x, phase, "float32")
        loss_of_half, gradient_of_half = loss_and_gradient(model, x, phase, precision)
        assert loss_of_half == pytest.approx(loss, rel=0.01)
        assert torch.cosine_similarity(gradient, gradient_of_half, 0) > 0.99
        rounded |= not torch.equal(gradient, gradient_of_half)
    # pixels and the transformer choose their own arithmetic
    assert rounded or (kind, modality) in (("autoregressive", "image"), ("autoregressive", "text"))


@pytest.mark.parametrize("precision", HALF)
def test_what_is_learnt_in_half_precision_is_scored_exactly(precision: str) -> None:
    model = tables.new("autoregressive")
    rows = tables.data()
    progress = Fit(model, rows[100:], rows[:100], FitSettings(max_epochs=3, precision=precision)).run()
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    total = model.log_prob(every_record(tiny_space())).sum(1).double().exp().sum()
    assert total.item() == pytest.approx(1, abs=1e-5)
    of_float32 = tables.fitted("autoregressive", 3).validation_loss(torch.from_numpy(rows[:100]))
    assert progress.best == pytest.approx(of_float32, rel=0.05)


class Steep(Constant):
    """A gradient of 2 goes through float16, which holds 65,504: less than 2 times the scale that a fit starts with."""

    def forward(self, x: torch.Tensor, phase: str) -> torch.Tensor:
        return self.weight.half().float().square().sum()


def test_float16_leaves_out_the_steps_that_overflow() -> None:
    fit = Fit(Steep(), ROWS, ROWS[:50], FitSettings(precision="float16", max_epochs=2))
    fit.run()
    assert fit.progress.scales["fit"]["scale"] < 65_536
    assert fit.model.weight.abs().max() < 1, "after a few steps the weights do move"
    again = Fit(Steep(), ROWS, ROWS[:50], FitSettings(precision="float16", max_epochs=2))
    kept = fit._tensors(), vars(fit.progress)
    again.replicas.restore = lambda: kept  # type: ignore[method-assign]
    again._prepare()
    again._resume()
    assert again.scalers["fit"].get_scale() == fit.scalers["fit"].get_scale()


def test_float16_gives_up_on_a_gradient_that_no_scale_makes_finite() -> None:
    with pytest.raises(TrainingFailed, match="not finite at step"):
        Fit(Constant(blow_up_at=5), ROWS, ROWS[:50], FitSettings(precision="float16", max_epochs=9)).run()


def test_in_float32_changes_nothing_outside_of_a_block() -> None:
    @in_float32
    def kind(x: torch.Tensor) -> torch.dtype:
        return (x @ x).dtype

    x = torch.eye(2, dtype=torch.bfloat16)
    assert kind(x) == torch.bfloat16
    with Precision("bfloat16", x.device).layers():
        assert kind(x) == torch.float32
        assert (torch.eye(2) @ torch.eye(2)).dtype == torch.bfloat16
    assert at_least_float32(x.double()).dtype == torch.float64
    assert at_least_float32("linear") == "linear"


def test_float32_is_the_default() -> None:
    assert FitSettings().precision == "float32"
    assert catalog.build_model("gan", tiny_space(), {}).settings.precision == "float32"
    assert np.isfinite(Fit(Constant(), ROWS, ROWS[:50], FitSettings(max_epochs=1)).run().best)


def test_likelihoods_are_the_same_within_a_block_of_layers() -> None:
    torch.manual_seed(0)
    prior, x = Mixture(4, 3), torch.randn(16, 4)
    mixture, bernoulli = LogisticMixture(1, 16), Bernoulli(1)
    parameters, zero = torch.randn(16, mixture.count, 2, 2), torch.zeros(16, 1, 2, 2)
    level = torch.full((16, 1, 2, 2), -1.0)
    for likelihood in (
        lambda: prior.log_prob(x),
        lambda: mixture.log_prob(parameters, zero, level),
        lambda: bernoulli.log_prob(parameters[:, :1].bfloat16().float(), zero, level),
        lambda: vae._gaussian(x, x * 0.5, x),
    ):
        outside = likelihood()
        with Precision("bfloat16", x.device).layers():
            assert torch.equal(likelihood(), outside)
