"""CycleGAN: both domains in one batch, a pool that resumes, a likelihood that sums to one, a translation that works."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from genai_core.errors import InvalidData, TrainingFailed
from genai_core.hyperparameters import Cyclegan as Settings
from genai_core.hyperparameters import FitSettings
from genai_core.loop import Fit, Replicas
from genai_core.model import capabilities
from genai_core.models.cyclegan import Cyclegan
from genai_core.spaces import Grid, Sequence

SPACE = Grid(1, 8, 8, levels=17, classes=2)
SMALL = Settings(channels=4, blocks=1, pool=5)


def shapes(rows: int = 240, seed: int = 0) -> np.ndarray:
    """Domain 0: bright bars and crosses on dark; domain 1: dark ones on bright, other examples."""
    random = np.random.default_rng(seed)
    pictures = random.integers(0, 3, (rows, 8, 8))
    for picture in pictures:
        at = random.integers(1, 7, 2)
        if random.random() < 0.7:
            picture[at[0], 1:7] = 16
        picture[1:7, at[1]] = 16
    domain = np.arange(rows) % 2
    pictures[domain == 1] = 16 - pictures[domain == 1]
    return np.concatenate([domain[:, None], pictures.reshape(rows, -1)], 1)


def new(settings: Settings = SMALL, space: Grid = SPACE) -> Cyclegan:
    torch.manual_seed(1)
    return Cyclegan(space, settings)


def records(rows: int = 24) -> torch.Tensor:
    return torch.from_numpy(shapes(rows))


def gradients(model: Cyclegan, x: torch.Tensor, phase: str) -> dict[str, float]:
    """Parameter -> size of its gradient; 0 for those that got none."""
    trained = {id(p) for group in model.parameters_of(phase) for p in group["params"]}
    named = [(name, p) for name, p in model.named_parameters() if id(p) in trained]
    loss = model(x, phase)
    assert torch.isfinite(loss)
    found = torch.autograd.grad(loss, [p for _, p in named], allow_unused=True)
    return {
        name: 0.0 if g is None else float(g.abs().sum()) for (name, _), g in zip(named, found, strict=True)
    }


def test_it_says_what_it_can_do() -> None:
    assert capabilities(Cyclegan) == ("discriminates", "reconstructs", "translates")


def test_every_parameter_is_trained_by_one_phase() -> None:
    model = new().train()
    sizes: dict[str, float] = {}
    for phase in model.phases:
        found = gradients(model, records(), phase)
        assert not set(found) & set(sizes)
        sizes |= found
    assert set(sizes) == {name for name, _ in model.named_parameters()}
    assert all(sizes.values()), [name for name, size in sizes.items() if not size]


@pytest.mark.parametrize("domain", [0, 1])
def test_a_batch_of_one_domain_trains_the_generators_and_leaves_the_discriminators(domain: int) -> None:
    model = new().train()
    x = records()
    x = x[x[:, 0] == domain]
    assert all(gradients(model, x, "generator").values())
    assert not any(gradients(model, x, "discriminator").values())
    assert not model.pooled.any()


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (Sequence(256, 32, classes=2), "the space Sequence.*use the modality image"),
        (Grid(1, 8, 8), "records without a label.*name a column that holds exactly two"),
        (Grid(1, 8, 8, classes=3), "a label with 3 values; the two domains.*are the two values of modality.label"),
        (Grid(1, 7, 8, classes=2), "7 x 8.*at least 8 x 8"),
    ],
)  # fmt: skip
def test_what_has_not_two_domains_of_pictures_is_refused(space: Grid, message: str) -> None:
    with pytest.raises(InvalidData, match=message):
        Cyclegan(space, SMALL)


def test_the_pool_fills_up_then_gives_earlier_pictures_back() -> None:
    model = new().train()
    made = [torch.full((4, 1, 8, 8), value) for value in (-1.0, 1.0)]
    torch.manual_seed(0)
    assert torch.equal(model._replayed(made[0], 0), made[0])
    second = model._replayed(made[1], 0)
    assert int(model.pooled[0]) == 5
    assert torch.equal(second[:1], made[1][:1])  # filled the last place
    replaced = int((second == -1).flatten(1).all(1).sum())
    assert 0 < replaced <= 3
    assert int((model.pool[0] == 16).all(1).sum()) == 1 + replaced
    assert not model.pooled[1]
    model.eval()
    assert not model.pool.any()  # what was made of training pictures is in no artifact


def test_without_a_pool_made_pictures_are_judged_as_they_are() -> None:
    made = torch.linspace(-1, 1, 17)[:16].repeat(3, 4).view(3, 1, 8, 8)
    torch.testing.assert_close(new(Settings(channels=4, blocks=1, pool=0))._replayed(made, 1), made)


def test_translation_keeps_what_is_there_and_does_not_depend_on_neighbours() -> None:
    model, x = new().eval(), records()
    with torch.no_grad():
        for to in (0, 1):
            found = model.translate(x, to)
            there = x[:, 0] == to
            assert torch.equal(found[there], x[there])
            assert (found[:, 0] == to).all()
            assert found.dtype == x.dtype
            assert ((found[:, 1:] >= 0) & (found[:, 1:] < SPACE.levels)).all()
            assert not torch.equal(found[~there, 1:], x[~there, 1:])
            swapped = x.flip(0)
            assert torch.equal(model.translate(swapped, to).flip(0), found)


def test_reconstruction_is_a_distribution_over_the_levels() -> None:
    model, x = new().eval(), records(2)
    every = x[:1].repeat(SPACE.levels, 1)
    with torch.no_grad():
        nats = model.reconstruct(x)
        assert nats.shape == x.shape
        assert not nats[:, 0].any()
        assert (nats <= 0).all()
        centre, rate = model._cycled(every, 0)[:, 1:2], 1 / model.scale[0]
        from genai_core.models.cyclegan import _laplace

        each = _laplace(torch.arange(SPACE.levels).view(-1, 1), centre, rate, SPACE.levels)
    assert each.exp().sum().item() == pytest.approx(1, abs=1e-5)


def test_each_record_is_judged_by_its_own_domain() -> None:
    model, x = new().eval(), records()
    with torch.no_grad():
        for p in model.discriminators[0].parameters():
            p.zero_()
        verdict = model.discriminate(x)
    assert (verdict[x[:, 0] == 0] == -0.5).all()
    assert (verdict[x[:, 0] == 1] != -0.5).all()


def test_validation_sees_both_the_domain_and_the_way_back() -> None:
    """Doing nothing costs 1; so does a perfect domain without memory; the right translation costs next to nothing."""
    model, x = new().eval(), torch.from_numpy(shapes(600, 3))

    class Of(torch.nn.Module):
        def __init__(self, function) -> None:
            super().__init__()
            self.function = function

        def forward(self, pictures):
            return self.function(pictures)

    def cost(function) -> float:
        model.generators = torch.nn.ModuleList([Of(function), Of(function)])
        return model.validation_loss(x)

    assert cost(lambda p: p) == pytest.approx(1, abs=0.01)
    assert cost(lambda p: -p) < 0.1
    assert cost(lambda p: (-p).roll(1, 0)) > 0.8  # the right domain, another picture
    with pytest.raises(InvalidData, match="hold 300 and 0 of the two domains"):
        model.validation_loss(x[x[:, 0] == 0])


class Kept(Replicas):
    """Keeps the last checkpoint; may stop the fit after some."""

    checkpoint = None
    stop_after = 10**9

    def save(self, tensors, facts):
        self.checkpoint = copy.deepcopy((tensors, facts))
        self.stop_after -= 1
        if self.stop_after == 0:
            raise TrainingFailed("interrupted on purpose")

    def restore(self):
        return self.checkpoint


def test_a_resumed_fit_ends_where_an_uninterrupted_one_does_pool_included() -> None:
    rows = shapes(320)
    settings = FitSettings(max_epochs=2, evaluations=4, patience=100, batch_size=32)
    whole, kept = Kept(), Kept()
    one, other = new(), new()
    Fit(one, rows[80:], rows[:80], settings, whole).run()
    kept.stop_after = 2
    with pytest.raises(TrainingFailed):
        Fit(new(), rows[80:], rows[:80], settings, kept).run()
    assert kept.checkpoint[0]["model/pooled"].tolist() == [5, 5]
    Fit(other, rows[80:], rows[:80], settings, kept).run()
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
    for name, value in whole.checkpoint[0].items():
        assert torch.equal(value, kept.checkpoint[0][name]), name


def test_bright_on_dark_becomes_dark_on_bright() -> None:
    rows = shapes(1000)
    model = new(Settings(channels=8, blocks=1, cycle=5.0, identity=0.0))
    how = FitSettings(max_epochs=3, batch_size=32, learning_rate=4e-3, evaluations=3, seed=1)
    progress = Fit(model, rows[200:], rows[:200], how).run()
    assert progress.best < 0.7  # doing nothing costs 1
    means = [torch.from_numpy(rows[rows[:, 0] == d, 1:]).float().mean(0) for d in (0, 1)]
    fresh = torch.from_numpy(shapes(200, 9))
    with torch.no_grad():
        for to in (0, 1):
            x = fresh[fresh[:, 0] != to]
            made = model.translate(x, to)[:, 1:].float()
            nearest = torch.stack([(made - mean).square().sum(1) for mean in means]).argmin(0)
            assert (nearest == to).float().mean() >= 0.9
