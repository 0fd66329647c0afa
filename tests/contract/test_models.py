"""Every property of the model protocol, over every family of the catalogue."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from genai_core import catalog
from genai_core.hyperparameters import FitSettings
from genai_core.loop import Fit
from genai_core.model import Condition, capabilities
from genai_core.splits import seed_of
from tests.contract.spaces import every_record, tiny_space

SMALL = {
    "autoregressive": {"context": 16, "hidden": 16, "embedding": 4, "dropout": 0.0},
    "gan": {"latent": 4, "hidden": 16, "embedding": 4, "pac": 2},
    "vae": {"latent": 2, "hidden": 16, "embedding": 4, "importance_samples": 64},
}
SEED = 6651842619394026741
OF_TABLES = [kind for kind in catalog.MODELS if "tabular" in catalog.FAMILIES[kind].scores]
WITH_LIKELIHOOD = [kind for kind in catalog.MODELS if "log_prob" in catalog.FAMILIES[kind].capabilities]


def data(rows: int = 600) -> np.ndarray:
    """Records in which the second field follows the first."""
    random = np.random.default_rng(0)
    first = random.integers(0, 3, rows)
    nested = np.where(first == 1, random.integers(0, 4, rows), 0)
    return np.stack([first, first, nested], 1)


def new(kind: str) -> torch.nn.Module:
    torch.manual_seed(1)
    return catalog.build_model(kind, tiny_space(), SMALL[kind])


def fitted(kind: str, epochs: int = 12) -> torch.nn.Module:
    model = new(kind)
    rows = data()
    Fit(model, rows[100:], rows[:100], FitSettings(max_epochs=epochs, seed=3, patience=100)).run()
    return model


@pytest.mark.parametrize("kind", catalog.MODELS)
def test_class_header_says_what_the_catalogue_says(kind: str) -> None:
    family, model = catalog.FAMILIES[kind], catalog.model_class(kind)
    assert capabilities(model) == family.capabilities
    assert getattr(model, "bound", None) == family.bound
    for names in family.scores.values():
        for name in names:
            assert issubclass(model, catalog.score(name).NEEDS)


@pytest.mark.parametrize("kind", OF_TABLES)
def test_loss_is_finite_and_reaches_every_parameter(kind: str) -> None:
    model = new(kind).train()
    x = torch.from_numpy(data())
    reached: set[int] = set()
    # adversarial families need a second step: at the start a zero-weight layer passes no gradient
    for phase in model.phases:
        loss = model(x, phase)
        assert torch.isfinite(loss)
        parameters = [p for group in model.parameters_of(phase) for p in group["params"]]
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        reached |= {id(p) for p, g in zip(parameters, gradients, strict=True) if g is not None}
    missed = [name for name, p in model.named_parameters() if id(p) not in reached and p.numel()]
    assert not missed


@pytest.mark.parametrize("kind", OF_TABLES)
def test_same_generator_state_same_sample(kind: str) -> None:
    model = new(kind).eval()
    first, again = (model.sample(64, torch.Generator().manual_seed(5)) for _ in range(2))
    other = model.sample(64, torch.Generator().manual_seed(6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("kind", OF_TABLES)
def test_samples_are_possible_records(kind: str) -> None:
    model = new(kind).eval()
    possible = {tuple(r) for r in every_record(model.space).tolist()}
    assert {tuple(r) for r in model.sample(500, torch.Generator().manual_seed(0)).tolist()} <= possible


@pytest.mark.parametrize("kind", OF_TABLES)
def test_same_seed_same_weights(kind: str) -> None:
    one, two = fitted(kind, 2).state_dict(), fitted(kind, 2).state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("kind", OF_TABLES)
def test_learns_the_dependence(kind: str) -> None:
    """In the data the second position equals the first; independent columns would agree in a third of the rows."""
    x = fitted(kind, 25 if kind == "autoregressive" else 60).sample(2000, torch.Generator().manual_seed(0))
    # a VAE with two latents leaves holes between its three codes
    assert (x[:, 0] == x[:, 1]).float().mean() > (0.7 if kind == "vae" else 0.8)


@pytest.mark.parametrize("kind", WITH_LIKELIHOOD)
def test_probabilities_of_all_records_sum_to_one(kind: str) -> None:
    model = fitted(kind, 5 if kind == "autoregressive" else 25)
    with torch.no_grad():
        total = model.log_prob(every_record(model.space)).sum(1).exp().sum().item()
    if model.bound == "exact":
        assert total == pytest.approx(1, abs=1e-4)
    else:
        assert 0.5 < total < 1.2  # a lower bound in the mean over its noise, and not an idle one


@pytest.mark.parametrize("kind", WITH_LIKELIHOOD)
def test_likelihood_prefers_what_was_seen(kind: str) -> None:
    model = fitted(kind)
    with torch.no_grad():
        usual, odd = model.log_prob(torch.tensor([[0, 0, 0], [0, 1, 3]])).sum(1)
    assert usual > odd + 1


def test_autoregressive_gives_the_same_total_mass_in_every_order() -> None:
    from genai_core.tables.orders import position_order

    model = fitted("autoregressive", 3)
    x = every_record(model.space)
    for order in ([0, 1], [1, 0]):
        with torch.no_grad():
            total = model.network(x, position_order(model.space, order)).sum(1).exp().sum().item()
        assert total == pytest.approx(1, abs=1e-4)


def test_sampler_draws_from_the_distribution_that_log_prob_states() -> None:
    model = fitted("autoregressive", 3)
    x = every_record(model.space)
    drawn = model.sample(40_000, torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model.log_prob(x).sum(1).exp()
    found = torch.stack([(drawn == record).all(1).float().mean() for record in x])
    assert torch.allclose(found, expected, atol=4 * (0.25 / 40_000) ** 0.5 + 1e-3)


def test_conditions_hold_in_every_record() -> None:
    model = fitted("autoregressive", 3)
    wanted = Condition(
        1,
        [
            torch.tensor([False, True, False]),
            torch.tensor([[False] * 4, [False, False, True, True], [False] * 4]),
        ],
    )
    x = model.sample(500, torch.Generator().manual_seed(0), [wanted])
    assert (x[:, 1] == 1).all()
    assert (x[:, 2] >= 2).all()


@pytest.mark.parametrize("kind", OF_TABLES)
def test_a_resumed_fit_ends_where_an_uninterrupted_one_does(kind: str) -> None:
    from genai_core.errors import TrainingFailed
    from genai_core.loop import Replicas

    class Kept(Replicas):
        checkpoint = None
        stop_after = 10**9

        def save(self, tensors, facts):
            import copy

            self.checkpoint = copy.deepcopy((tensors, facts))
            self.stop_after -= 1
            if self.stop_after == 0:
                raise TrainingFailed("interrupted on purpose")

        def restore(self):
            return self.checkpoint

    rows = data()
    settings = FitSettings(max_epochs=3, evaluations=6, patience=100)
    whole, kept = new(kind), Kept()
    Fit(whole, rows[100:], rows[:100], settings, Kept()).run()
    interrupted, resumed = new(kind), new(kind)
    kept.stop_after = 3
    with pytest.raises(TrainingFailed):
        Fit(interrupted, rows[100:], rows[:100], settings, kept).run()
    progress = Fit(resumed, rows[100:], rows[:100], settings, kept).run()
    assert progress.step == 45
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_seeds_are_stable() -> None:
    """Seeds are part of the promise that the same job gives the same bytes: they may never change."""
    assert seed_of(7, "draw", 0) == SEED
