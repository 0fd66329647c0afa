"""The default of tables: how far out a row is by several scores at once, each turned into the nats of its tail

A member's value becomes -log of the share of held-out rows that are as high, and goes on linearly beyond the highest
tenth (an exponential tail), so that rows farther out than any are still told apart. The mean over the members is the
score. Members: the distance to the nearest remembered row in standard deviations, the same on the scale of ranks, the
pseudo-likelihood, and its worst columns alone. Which members, and what was tried:
docs/decisions/0017-an-ensemble-scores-tables.md. Small tables are fitted by folds (`genai_core.folds`).

Where a category has more values than the members tell apart, the exact likelihood of the model is a member too, with
half of the weight: `by_likelihood` is the rule.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genai_core.folds import as_part, out_of_fold, parts
from genai_core.model import EXACT, LogProb, Model
from genai_core.networks.conditionals import TOGETHER
from genai_core.scores import State, negative_log_likelihood
from genai_core.scores.memory import SCALES, distances, remember
from genai_core.scores.pseudo_likelihood import learn, surprise
from genai_core.tables.vectors import below, fit_vectors, many_valued, vectors

NEEDS = Model
UNIT = "nats"
WORST = 3  # columns
TAIL = 0.1  # of the held-out rows
LEAST = 5  # held-out rows in a tail
KNOTS = 257
LIKELIHOOD = 0.5  # its weight, where it is a member
TRAINED = 0.5  # effort from which on a model's likelihood is worth asking


def by_likelihood(model: Model) -> bool:
    """Whether the likelihood is a member: it is exact, and a category has many values (see `many_valued`)."""
    return isinstance(model, LogProb) and model.bound == EXACT and many_valued(model.space)


def can_fold(model: Model) -> bool:
    """The likelihood is of a model that was trained once, without the held-out rows."""
    return not by_likelihood(model)


def fit(model: Model, x: Tensor, generator: torch.Generator, effort: float = 1.0) -> dict[str, Tensor]:
    """One part: view, memory and conditionals, from training records x (rows, positions)."""
    state = as_part(0, _part(model, x, generator, effort))
    if by_likelihood(model) and effort >= TRAINED:
        state["likelihood"] = torch.tensor(LIKELIHOOD)
    return state


def fit_by_folds(
    model: Model, x: Tensor, folds: Tensor, generator: torch.Generator, effort: float = 1.0
) -> dict[str, Tensor]:
    """A part for each fold, from the records outside of it."""
    state: dict[str, Tensor] = {}
    for number in range(int(folds.max()) + 1):
        state |= as_part(number, _part(model, x[folds != number], generator, effort))
    return state


def _part(model: Model, x: Tensor, generator: torch.Generator, effort: float) -> dict[str, Tensor]:
    view = fit_vectors(model.space, x)
    seed = int(torch.randint(2**31, (), generator=generator))
    of = {
        "view": view,
        "memory": remember(view, x, generator),
        "conditionals": learn(model.space, view, x, seed, effort),
    }
    return {f"{name}/{key}": value for name, own in of.items() for key, value in own.items()}


def calibrate(
    model: Model, x: Tensor, log_measure: Tensor, state: State, folds: Tensor | None = None
) -> dict[str, Tensor]:
    """The members' tails, and what every column's nats usually are, from held-out records, or all by their folds."""
    if len(x) == 1:
        x, log_measure = x.expand(2, -1), log_measure.expand(2, -1)
    if folds is None:
        shares = _members(model, x, log_measure, state)
    else:
        shares = out_of_fold(state, folds, lambda own, rows: _members(model, x[rows], log_measure[rows], own))
    ranked = _values(shares).sort(0).values
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
        "tails/usual": shares[:, len(SCALES) :].median(0).values,
    }


def score(model: Model, x: Tensor, log_measure: Tensor, state: State) -> Tensor:
    """(rows, fields): a member's nats are shared out as its value is."""
    shares = _members(model, x, log_measure, state)
    nats = tail_nats(_values(shares), below(state, "tails/"))
    surprises = (shares[:, len(SCALES) :] - state["tails/usual"]).clamp(min=0)
    worst = surprises[:, 0] * (surprises[:, 0] >= _worst(surprises[:, 0])[:, -1:])
    shares = torch.cat([shares[:, : len(SCALES)], worst.unsqueeze(1), surprises], 1)
    found = nats.unsqueeze(2) * _proportions(shares)
    if "likelihood" not in state:
        return found.mean(1)
    return torch.lerp(found[:, :-1].mean(1), found[:, -1], state["likelihood"])


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


def _members(model: Model, x: Tensor, log_measure: Tensor, state: State) -> Tensor:
    """What the members' values are made of, (rows, 3 or 4, fields), the third for two of them: means over the parts."""
    found = [_of_part(part, x, log_measure) for part in parts(state)]
    shares = torch.stack(found).mean(0) if len(found) > 1 else found[0]
    if "likelihood" not in state:
        return shares
    nats = torch.cat([
        negative_log_likelihood.score(model, rows, measure, {})
        for rows, measure in zip(x.split(TOGETHER), log_measure.split(TOGETHER), strict=True)
    ])  # fmt: skip
    return torch.cat([shares, nats.unsqueeze(1)], 1)


def _of_part(part: State, x: Tensor, log_measure: Tensor) -> Tensor:
    view = below(part, "view/")
    found = vectors(view, x, log_measure)
    apart = distances(view, below(part, "memory/"), found)
    return torch.stack([*apart, surprise(view, below(part, "conditionals/"), found)], 1)


def _values(shares: Tensor) -> Tensor:
    """(rows, members)."""
    apart = shares[:, : len(SCALES)].sum(2).sqrt()
    nats = shares[:, len(SCALES) :]
    return torch.cat([apart, _worst(nats[:, 0]).sum(1, keepdim=True), nats.sum(2)], 1)


def _worst(nats: Tensor) -> Tensor:
    return nats.topk(min(WORST, nats.shape[-1]), -1).values


def _proportions(share: Tensor) -> Tensor:
    """Adds up to 1 in every row and member."""
    total = share.sum(-1, keepdim=True)
    return torch.where(total > 0, share / total.clamp(min=1e-30), 1 / share.shape[-1])
