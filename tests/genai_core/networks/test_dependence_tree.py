"""Which field is drawn after which: pairs that agree are next to each other, whatever else the table holds."""

from __future__ import annotations

import numpy as np
import torch

from genai_core.hyperparameters import Vae
from genai_core.networks.dependence_tree import dependence_tree, mutual_information
from genai_core.observations import TokenObservation
from genai_core.spaces import Position, Tokens
from tests.contract.spaces import every_record, tiny_space


def flat(*vocabularies: int) -> Tokens:
    """A space of independent fields."""
    positions = [Position(v, i, np.ones(v, bool)) for i, v in enumerate(vocabularies)]
    return Tokens(tuple(positions), tuple(f"f{i}" for i in range(len(vocabularies))))


def chain(rows: int = 5000) -> np.ndarray:
    """Field 2 follows 0 and field 1 follows 2, with some noise; field 3 is alone."""
    random = np.random.default_rng(0)

    def noisy(column: np.ndarray) -> np.ndarray:
        return np.where(random.random(rows) < 0.1, random.integers(0, 4, rows), column)

    zero = random.integers(0, 4, rows)
    two = noisy(zero)
    return np.stack([zero, noisy(two), two, random.integers(0, 4, rows)], 1)


def test_neighbours_in_the_tree_are_the_pairs_that_agree() -> None:
    parents, order = dependence_tree(flat(4, 4, 4, 4), chain())
    edges = {frozenset((i, p)) for i, p in enumerate(parents) if p >= 0}
    assert {frozenset((0, 2)), frozenset((1, 2))} <= edges
    assert frozenset((0, 1)) not in edges
    assert all(order.index(p) < order.index(i) for i, p in enumerate(parents) if p >= 0)


def test_chance_is_no_dependence() -> None:
    random = np.random.default_rng(0)
    counts = np.bincount(random.integers(0, 2500, 2000), minlength=2500).reshape(50, 50)
    assert mutual_information(counts) < 0.2  # uncorrected: about half a nat
    assert mutual_information(np.eye(4) * 100) > 1.37  # log 4


def test_a_position_inside_a_field_keeps_its_parent_and_follows_it() -> None:
    x = np.random.default_rng(0).integers(0, 3, (500, 3))
    parents, order = dependence_tree(tiny_space(), x)
    assert parents[2] == 1
    assert order.index(1) < order.index(2)


def test_draws_follow_the_probability_that_is_stated() -> None:
    torch.manual_seed(0)
    observation, x = TokenObservation(tiny_space(), Vae(hidden=16)), every_record(tiny_space())
    observation.initialise(x[torch.randint(len(x), (500,)) // 2])
    with torch.no_grad():
        for parameter in observation.parameters():
            parameter += 0.5 * torch.randn_like(parameter)
    observation.eval()
    h, rows = torch.randn(1, 16), 40_000
    with torch.no_grad():
        expected = observation.log_prob(h.expand(len(x), -1), x).sum(1).exp()
        drawn = observation.draw(h.expand(rows, -1), torch.Generator().manual_seed(0))
        soft = observation.relaxed(h.expand(rows, -1), 0.5)
    assert torch.isclose(expected.sum(), torch.tensor(1.0), atol=1e-4)
    for found in (observation.dense(drawn), soft):
        shares = torch.stack([(found == one).all(1).float().mean() for one in observation.dense(x)])
        assert torch.allclose(shares, expected, atol=4 * (0.25 / rows) ** 0.5 + 1e-3)
