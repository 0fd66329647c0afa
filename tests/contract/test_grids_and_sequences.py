"""The model protocol over pictures and sequences: every family that learns one, on a tiny grid and a tiny sequence."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from genai_core import catalog
from genai_core.hyperparameters import FitSettings
from genai_core.loop import Fit
from genai_core.spaces import Grid, Sequence
from tests.contract.tables import SMALL

SPACES = {
    "image": Grid(1, 8, 8, levels=4, classes=2),
    "text": Sequence(5, 8, end=4, classes=2),
}
PAIRS = [(kind, m) for kind in catalog.MODELS for m in SPACES if m in catalog.FAMILIES[kind].scores]
# all records of these can be counted
COUNTABLE = {
    "image": Grid(1, 2, 3, levels=2, classes=2),
    "colour": Grid(2, 1, 2, levels=3),
    "text": Sequence(3, 4, end=2, classes=2),
    "waveform": Sequence(3, 4, ordered=True),
}


def new(kind: str, space: Grid | Sequence) -> torch.nn.Module:
    torch.manual_seed(1)
    return catalog.build_model(kind, space, SMALL[kind])


def records(space: Grid | Sequence, rows: int = 64) -> np.ndarray:
    """The first half of a record is like its label, the second like noise; sequences have ended then."""
    random = np.random.default_rng(0)
    x = random.integers(0, 2, (rows, space.entries))
    x[:, 1 : space.entries // 2] = x[:, :1]
    if isinstance(space, Sequence):
        x[:, -2:] = space.end
    return x


@pytest.mark.parametrize(("kind", "modality"), PAIRS)
def test_losses_reach_every_parameter(kind: str, modality: str) -> None:
    model = new(kind, SPACES[modality]).train()
    x = torch.from_numpy(records(SPACES[modality]))
    model.initialise(x)
    reached: set[int] = set()
    for phase in model.phases:
        loss = model(x, phase)
        assert torch.isfinite(loss)
        parameters = [p for group in model.parameters_of(phase) for p in group["params"]]
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        reached |= {id(p) for p, g in zip(parameters, gradients, strict=True) if g is not None}
    assert not [n for n, p in model.named_parameters() if id(p) not in reached and p.numel()]


@pytest.mark.parametrize(
    ("kind", "modality"), [p for p in PAIRS if "samples" in catalog.FAMILIES[p[0]].capabilities]
)
def test_samples_are_records_and_the_generator_s_alone(kind: str, modality: str) -> None:
    space = SPACES[modality]
    model = new(kind, space).eval()
    with torch.no_grad():
        first, again, other = (model.sample(8, torch.Generator().manual_seed(s)) for s in (5, 5, 6))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first.shape == (8, space.entries) and first.dtype == torch.int64 and first.min() >= 0
    top = space.levels if isinstance(space, Grid) else space.vocabulary
    assert first[:, 0].max() < space.classes and first[:, 1:].max() < top


@pytest.mark.parametrize(("kind", "modality"), PAIRS)
def test_same_seed_same_weights(kind: str, modality: str) -> None:
    states = []
    for _ in range(2):
        model, x = new(kind, SPACES[modality]), records(SPACES[modality])
        Fit(model, x[16:], x[:16], FitSettings(max_epochs=1, evaluations=1, batch_size=32)).run()
        states.append(model.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def every_record(space: Grid | Sequence) -> torch.Tensor:
    """All of them; of sequences those in which nothing but the end follows an end."""
    top = space.levels if isinstance(space, Grid) else space.vocabulary
    sizes = [space.classes] * space.labelled + [top] * (space.entries - space.labelled)
    found = torch.tensor(list(itertools.product(*map(range, sizes))))
    if isinstance(space, Sequence) and space.end is not None:
        ended = found[:, space.labelled :] == space.end
        found = found[(ended[:, 1:] | ~ended[:, :-1]).all(1)]
    return found


@pytest.mark.parametrize("name", COUNTABLE)
def test_exact_likelihoods_of_all_records_sum_to_one(name: str) -> None:
    model = new("autoregressive", COUNTABLE[name]).eval()
    x = every_record(model.space)
    model.initialise(x)
    with torch.no_grad():
        nats = model.log_prob(x)
    assert nats.shape == x.shape
    assert nats.sum(1).double().exp().sum().item() == pytest.approx(1, abs=1e-4)
