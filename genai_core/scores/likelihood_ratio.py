"""Likelihood ratio against a background model (Ren et al. 2019): nats minus those of a model of the surroundings alone

What a record has in common with everything, flat areas or frequent letters, costs both models the same and cancels out;
what remains is how well the model knows what makes the records what they are. The background here is counted, not
trained: how often a level follows those to its left and above, or a token the one before, in training records of which
one value in ten was replaced at random, as the paper does to keep the background from learning what is particular.
A value never seen in training is as rare to the background, and cancels out too: the surprise scores show those.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from genai_core.model import LogProb, Model
from genai_core.scores import State, negative_log_likelihood
from genai_core.scores.negative_log_likelihood import from_entries as from_entries
from genai_core.spaces import Grid, Sequence
from genai_core.texts.surprise import counted

NEEDS = LogProb
UNIT = "nats"
REPLACED = 0.1  # of the values; the paper's 0.1 to 0.3
STEPS = 16  # in which a neighbouring level is told
LARGEST = 1024  # tokens; of larger vocabularies the token before is told by its number modulo this
WEIGHT = 1.0  # of the values' own frequencies, in occurrences of a context


def fit(model: Model, x: Tensor, generator: torch.Generator, effort: float = 1.0) -> dict[str, Tensor]:
    """How often a value followed a context, float32 (contexts, values), and in all, (values,)."""
    space = model.space
    values = x[:, space.labelled :]
    there = _counted(space, values)
    random = torch.randint(_values(space), values.shape, generator=generator)
    replaced = torch.rand(values.shape, generator=generator) < REPLACED
    values = torch.where(replaced & there, random, values)
    pairs = (_contexts(space, values) * _values(space) + values)[there]
    shape = (_size(space), _values(space))
    counts = torch.bincount(pairs, minlength=shape[0] * shape[1]).view(shape).float()
    return {"counts": counts, "values": counts.sum(0) + 1 / shape[1]}


def score(model: Model, x: Tensor, log_measure: Tensor, state: State) -> Tensor:
    """(rows, fields): each field's share; the label's is its nats alone."""
    return from_entries(model, x, entries(model, x, state), log_measure)


def entries(model: Model, x: Tensor, state: State) -> Tensor:
    """(rows, entries): nats of each entry beyond those of the background."""
    background = F.pad(
        _background(model.space, x[:, model.space.labelled :], state), (model.space.labelled, 0)
    )
    return negative_log_likelihood.entries(model, x, {}) + background


def _background(space: Grid | Sequence, values: Tensor, state: State) -> Tensor:
    """log q of each value (rows, values)."""
    counts, overall = state["counts"], state["values"]
    contexts = _contexts(space, values)
    usual = overall / overall.sum()
    found = counts.view(-1)[contexts * counts.shape[1] + values] + WEIGHT * usual[values]
    return (found / (counts.sum(1)[contexts] + WEIGHT)).log() * _counted(space, values)


def _contexts(space: Grid | Sequence, values: Tensor) -> Tensor:
    """What stands beside each value, as one number; nothing beside it counts as 0."""
    if isinstance(space, Grid):
        steps = (values * STEPS // space.levels).view(-1, *space.shape)
        left, above = F.pad(steps, (1, 0))[..., :-1], F.pad(steps, (0, 0, 1, 0))[..., :-1, :]
        channel = torch.arange(space.channels, device=values.device).view(-1, 1, 1)
        return ((channel * STEPS + left) * STEPS + above).flatten(1)
    if space.ordered:
        steps = values * STEPS // space.vocabulary
        return F.pad(steps, (1, 0))[:, :-1] * STEPS + F.pad(steps, (2, 0))[:, :-2]
    return F.pad(values, (1, 0))[:, :-1] % LARGEST


def _counted(space: Grid | Sequence, values: Tensor) -> Tensor:
    """False after the end of a text, bool (rows, values)."""
    return torch.ones_like(values, dtype=torch.bool) if isinstance(space, Grid) else counted(space, values)


def _values(space: Grid | Sequence) -> int:
    return space.levels if isinstance(space, Grid) else space.vocabulary


def _size(space: Grid | Sequence) -> int:
    """Number of contexts."""
    if isinstance(space, Grid):
        return space.channels * STEPS * STEPS
    return STEPS * STEPS if space.ordered else min(space.vocabulary, LARGEST)
