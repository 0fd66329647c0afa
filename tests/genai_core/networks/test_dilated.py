"""Dilated convolutions: a distribution, causal, and the queues of sampling agree with the whole."""

from __future__ import annotations

import itertools

import pytest
import torch

from genai_core import networks
from genai_core.hyperparameters import Autoregressive
from genai_core.model import Condition
from genai_core.networks.dilated import DilatedNetwork
from genai_core.spaces import Sequence

SETTINGS = Autoregressive(hidden=8, layers=4)


def network(space: Sequence) -> DilatedNetwork:
    torch.manual_seed(0)
    made = networks.causal(space, SETTINGS).eval()
    with torch.no_grad():
        for parameter in made.parameters():  # far from where it starts: everything matters
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made


def test_ordered_sequences_get_this_network_and_texts_another() -> None:
    assert isinstance(networks.causal(Sequence(4, 8, ordered=True), SETTINGS), DilatedNetwork)
    assert not isinstance(networks.causal(Sequence(4, 8, end=0), SETTINGS), DilatedNetwork)


@pytest.mark.parametrize("classes", [0, 2])
@torch.no_grad()
def test_probabilities_of_all_records_sum_to_one(classes: int) -> None:
    made = network(Sequence(3, 4, ordered=True, classes=classes))
    labels = [range(classes)] if classes else []
    records = torch.tensor(list(itertools.product(*labels, *[range(3)] * 4)))
    assert float(made(records).sum(1).exp().sum()) == pytest.approx(1, abs=1e-5)


@torch.no_grad()
def test_what_comes_later_changes_nothing_before() -> None:
    made = network(Sequence(5, 30, ordered=True))
    x = torch.randint(0, 5, (2, 30))
    changed = x.clone()
    changed[:, 17] = (x[:, 17] + 1) % 5
    difference = (made(x) - made(changed)).abs()
    assert float(difference[:, :17].max()) < 1e-6
    assert float(difference[:, 18:].max()) > 1e-3, "and what came before does"


@torch.no_grad()
def test_queues_give_the_logits_of_the_whole() -> None:
    made = network(Sequence(5, 40, ordered=True, classes=2))
    x = torch.cat([torch.tensor([[0], [1], [1]]), torch.randint(0, 5, (3, 40))], 1)
    whole = made(x)[:, 1:]
    biases = made._label_biases(x[:, 0])
    queues = [torch.zeros(d, 3, 8) for d in made.dilations]
    token = torch.full((3,), made.start)
    for place in range(40):
        nats = torch.log_softmax(made._next(token, place, queues, biases), 1)
        token = x[:, 1 + place]
        assert torch.allclose(nats.gather(1, token[:, None])[:, 0], whole[:, place], atol=1e-5)


def test_samples_follow_conditions_and_generator() -> None:
    made = network(Sequence(5, 12, ordered=True, classes=3))
    conditions = [
        Condition(0, [torch.tensor([False, True, False])]),
        Condition(1, prefix=torch.tensor([4, 0])),
    ]
    first, second = (made.sample(6, torch.Generator().manual_seed(1), conditions) for _ in range(2))
    assert torch.equal(first, second)
    assert first.shape == (6, 13)
    assert (first[:, :3] == torch.tensor([1, 4, 0])).all()


@torch.no_grad()
def test_samples_have_the_network_s_distribution() -> None:
    made = network(Sequence(3, 2, ordered=True))
    records = torch.tensor(list(itertools.product(range(3), repeat=2)))
    expected = made(records).sum(1).exp()
    drawn = made.sample(4000, torch.Generator().manual_seed(0))
    found = torch.bincount(drawn[:, 0] * 3 + drawn[:, 1], minlength=9) / 4000
    assert float((found - expected).abs().max()) < 0.04
