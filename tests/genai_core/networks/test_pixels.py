"""The causal network of pictures: exact, causal, and drawn from without recomputing."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from genai_core.hyperparameters import Autoregressive as Settings
from genai_core.hyperparameters import FitSettings
from genai_core.loop import Fit
from genai_core.model import Condition
from genai_core.models.autoregressive import Autoregressive
from genai_core.networks import pixels
from genai_core.networks.pixels import PixelNetwork
from genai_core.spaces import Grid

SPACES = {
    "binary": Grid(1, 7, 9, levels=2),
    "colour": Grid(3, 4, 5, levels=6, classes=3),
    "one row": Grid(1, 1, 12, levels=256),
    "one column": Grid(2, 6, 1, levels=3),
    "one pixel": Grid(1, 1, 1, levels=4, classes=2),
}


def network(space: Grid) -> PixelNetwork:
    """With weights far from where they start, so that everything depends on everything it may depend on."""
    torch.manual_seed(0)
    made = PixelNetwork(space, Settings(hidden=16, layers=2)).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return made.requires_grad_(False)


def records(space: Grid, rows: int = 6) -> Tensor:
    random = np.random.default_rng(1)
    levels = random.integers(0, space.levels, (rows, space.size))
    labels = random.integers(0, max(space.classes, 1), (rows, space.labelled))
    return torch.from_numpy(np.concatenate([labels, levels], 1))


def causal_order(space: Grid) -> list[int]:
    """Entries in the order in which they are drawn: label, then pixel by pixel, the channels of a pixel in a row."""
    by_channel = np.arange(space.size).reshape(space.channels, -1).T.ravel() + space.labelled
    return [*range(space.labelled), *by_channel.tolist()]


@pytest.fixture(params=SPACES)
def space(request: pytest.FixtureRequest) -> Grid:
    return SPACES[request.param]


def test_probabilities_of_all_records_sum_to_one() -> None:
    space = Grid(1, 2, 2, levels=3, classes=2)
    every = torch.tensor(list(itertools.product(range(2), *[range(3)] * 4)))
    assert float(network(space)(every).double().sum(1).exp().sum()) == pytest.approx(1, abs=1e-5)


def test_probabilities_of_coloured_records_sum_to_one() -> None:
    space = Grid(3, 1, 2, levels=3)
    every = torch.tensor(list(itertools.product(*[range(3)] * 6)))
    assert float(network(space)(every).double().sum(1).exp().sum()) == pytest.approx(1, abs=1e-5)


def test_an_entry_depends_on_those_before_it_only(space: Grid) -> None:
    net, x, order = network(space), records(space, 1), causal_order(space)
    before = net(x)[0]
    for place, entry in enumerate(order):
        changed = x.clone()
        size = space.classes if entry < space.labelled else space.levels
        changed[0, entry] = (changed[0, entry] + size // 2) % size
        after = net(changed)[0]
        earlier = order[:place]
        assert torch.equal(after[earlier], before[earlier])
        if place + 1 < len(order):  # and its neighbour does depend on it
            assert after[order[place + 1]] != before[order[place + 1]]


def test_step_by_step_gives_the_distributions_of_all_at_once(space: Grid) -> None:
    net, x = network(space), records(space)
    labels, levels = net.labels.split(x)
    order = iter(causal_order(space)[space.labelled :])
    found = torch.zeros(len(x), space.entries)

    def replay(logits: Tensor) -> Tensor:
        entry = next(order)
        found[:, entry] = torch.log_softmax(logits, 1).gather(1, x[:, entry, None])[:, 0]
        return x[:, entry]

    assert torch.equal(net.walk(len(x), labels, replay), levels)
    assert torch.allclose(found[:, space.labelled :], net(x)[:, space.labelled :], atol=1e-4)


def test_samples_follow_the_probabilities() -> None:
    space = Grid(1, 2, 2, levels=2)
    net, every = network(space), torch.tensor(list(itertools.product(*[range(2)] * 4)))
    drawn = net.sample(20_000, torch.Generator().manual_seed(0)) @ torch.tensor([8, 4, 2, 1])
    shares = torch.bincount(drawn, minlength=16) / len(drawn)
    assert torch.allclose(shares, net(every).sum(1).exp(), atol=0.015)


def test_a_large_batch_in_pieces_is_the_same_as_record_by_record(monkeypatch: pytest.MonkeyPatch) -> None:
    space = SPACES["colour"]
    net, x = network(space).requires_grad_(), records(space, 7)
    alone = torch.cat([net(row) for row in x.split(1)])
    monkeypatch.setattr(pixels, "PIECE", 50)
    monkeypatch.setattr(pixels, "KEPT", 10)  # activations are computed again for the gradient
    pieces = net(x)
    assert torch.allclose(pieces, alone, atol=1e-5)
    pieces.sum().backward()
    kept = [p.grad.clone() for p in net.parameters() if p.grad is not None]
    net.zero_grad()
    alone.sum().backward()
    again = [p.grad for p in net.parameters() if p.grad is not None]
    assert all(torch.allclose(a, b, atol=1e-3, rtol=1e-3) for a, b in zip(kept, again, strict=True))


@pytest.mark.parametrize("name", ["binary", "colour"])
def test_every_parameter_gets_a_gradient_in_training(name: str) -> None:
    torch.manual_seed(0)
    net = PixelNetwork(SPACES[name], Settings(hidden=16)).train()
    loss = -net(records(SPACES[name])).sum()
    loss.backward()
    without = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert torch.isfinite(loss)
    assert not without


def test_conditions_temperature_and_top_p() -> None:
    space = SPACES["colour"]
    net = network(space)
    only = Condition(0, [torch.tensor([False, True, False])])

    def draw(*options: object) -> Tensor:
        return net.sample(40, torch.Generator().manual_seed(3), *options)  # type: ignore[arg-type]

    assert set(draw([only])[:, 0].tolist()) == {1}
    assert torch.equal(draw(), draw())
    assert not torch.equal(draw(), draw([], 0.5))
    surest = draw([only], 1.0, 1e-6)  # the likeliest level everywhere: one picture a label
    assert len(surest.unique(dim=0)) == 1
    mean = [float(net(draw([only], t)).sum(1).mean()) for t in (0.3, 1.0)]
    assert mean[0] > mean[1]


def test_the_first_weights_know_the_mean_picture() -> None:
    space = Grid(1, 6, 6, levels=2)
    picture = np.zeros((6, 6), np.int64)
    picture[2:4, 1:5] = 1
    x = torch.from_numpy(np.tile(picture.ravel(), (50, 1)))
    net = PixelNetwork(space, Settings(hidden=16)).eval()
    net.initialise(x)
    assert float(-net(x).sum(1).mean()) < 0.5 * 36 * np.log(2)


def test_learns_what_rows_far_apart_share() -> None:
    """The first and the last row are equal, ten rows of noise between them: the window does not reach that far."""
    space = Grid(1, 12, 4, levels=2)
    x = np.random.default_rng(0).integers(0, 2, (1500, 12, 4))
    x[:, -1] = x[:, 0]
    torch.manual_seed(0)
    model = Autoregressive(space, Settings(hidden=24, dropout=0.0))
    settings = FitSettings(max_epochs=24, batch_size=64, evaluations=3)
    records = x.reshape(len(x), -1)
    Fit(model, records[:1300], records[1300:], settings).run()
    last = model.log_prob(torch.from_numpy(records[1300:]))[:, -4:].sum(1).mean()
    assert float(-last) < 0.5 * 4 * np.log(2)
