"""The default of tables: how far out a row is by several scores at once, each turned into the nats of its tail

A member's value becomes -log of the share of held-out rows that are as high, and goes on linearly beyond the highest
tenth (an exponential tail), so that rows farther out than any are still told apart. The mean over the members is the
score. Members: the distance to the nearest remembered row, the pseudo-likelihood, and its worst columns alone. Which
members, and what was tried: docs/decisions/0017-an-ensemble-scores-tables.md.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genai_core.model import Model
from genai_core.scores import State
from genai_core.scores.memory import distances, remember
from genai_core.scores.pseudo_likelihood import learn, surprise
from genai_core.tables.vectors import below, fit_vectors, vectors

NEEDS = Model
UNIT = "nats"
WORST = 3  # columns
TAIL = 0.1  # of the held-out rows
LEAST = 5  # held-out rows in a tail
KNOTS = 257


def fit(model: Model, x: Tensor, generator: torch.Generator, effort: float = 1.0) -> dict[str, Tensor]:
    """View, memory and conditionals, from training records x (rows, positions)."""
    view = fit_vectors(model.space, x)
    seed = int(torch.randint(2**31, (), generator=generator))
    parts = {
        "view": view,
        "memory": remember(view, x, generator),
        "conditionals": learn(model.space, view, x, seed, effort),
    }
    return {f"{part}/{name}": value for part, own in parts.items() for name, value in own.items()}


def calibrate(model: Model, x: Tensor, log_measure: Tensor, state: State) -> dict[str, Tensor]:
    """The members' tails, and what every column's nats usually are, from held-out records."""
    if len(x) == 1:
        x, log_measure = x.expand(2, -1), log_measure.expand(2, -1)
    values, shares = _members(x, log_measure, state)
    ranked = values.sort(0).values
    rows = len(ranked)
    nats = -torch.log((rows - torch.arange(rows) - 0.5) / rows)
    knots = torch.linspace(0, rows - 1, min(KNOTS, rows)).round().long()
    top = ranked[-max(int(TAIL * rows), min(LEAST, rows)) :]
    excess = (top - top[0]).mean(0).clamp(min=1e-6)
    return {
        "tails/at": ranked[knots].T.contiguous(),
        "tails/nats": nats[knots],
        "tails/from": top[0].clone(),
        "tails/excess": excess,
        "tails/usual": shares[1].median(0).values,
    }


def score(model: Model, x: Tensor, log_measure: Tensor, state: State) -> Tensor:
    """(rows, fields): a member's nats are shared out as its value is."""
    values, shares = _members(x, log_measure, state)
    nats = tail_nats(values, below(state, "tails/"))
    shares[1] = (shares[1] - state["tails/usual"]).clamp(min=0)
    shares[2] = shares[1] * (shares[1] >= _worst(shares[1])[:, -1:])
    parts = [nats[:, i : i + 1] * _proportions(share) for i, share in enumerate(shares)]
    return torch.stack(parts).mean(0)


def tail_nats(values: Tensor, tails: State) -> Tensor:
    """-log of the share of held-out rows that are as high, (rows, members) of values (rows, members)."""
    at, nats = tails["at"], tails["nats"]
    right = torch.searchsorted(at, values.T.contiguous()).clamp(1, at.shape[1] - 1)
    a, b = at.gather(1, right - 1), at.gather(1, right)
    share = ((values.T - a) / (b - a).clamp(min=1e-12)).clamp(0, 1)
    inside = torch.lerp(nats[right - 1], nats[right], share).T
    start = nats[torch.searchsorted(at, tails["from"][:, None]).clamp(max=at.shape[1] - 1)].T
    beyond = start + (values - tails["from"]) / tails["excess"]
    return torch.where(values > tails["from"], beyond, inside)


def _members(x: Tensor, log_measure: Tensor, state: State) -> tuple[Tensor, list[Tensor]]:
    """Values (rows, members), and what they are made of (rows, fields), member by member."""
    view = below(state, "view/")
    found = vectors(view, x, log_measure)
    apart = distances(view, below(state, "memory/"), found)
    nats = surprise(view, below(state, "conditionals/"), found)
    values = torch.stack([apart.sum(1).sqrt(), nats.sum(1), _worst(nats).sum(1)], 1)
    return values, [apart, nats, nats]


def _worst(nats: Tensor) -> Tensor:
    return nats.topk(min(WORST, nats.shape[1]), 1).values


def _proportions(share: Tensor) -> Tensor:
    """Adds up to 1 in every row."""
    total = share.sum(1, keepdim=True)
    return torch.where(total > 0, share / total.clamp(min=1e-30), 1 / share.shape[1])
