"""Scores of small tables, fitted by folds: every row is calibrated with what was fitted without it.

A state of several parts holds each part's tensors under its number (`0/view/...`); a score is the mean over the parts.
With few rows each of FOLDS parts is fitted without its fold, and the fold's own scores, by that part alone, calibrate
(cross-conformal prediction: Vovk 2015; the mean over parts is after the CV+ of Barber et al. 2021). So all
rows are learnt *and* all calibrate: p-values go down to 1 / (rows + 1) instead of 1 / (a quarter of them + 1). The
exchangeability is approximate: rows are scored by the mean of the parts, which varies a little less than one part.
With many rows one part is fitted, and other rows are held out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from genai_core.tables.vectors import below

FOLDS = 4
FEW = 4000  # rows up to which folds are worth their time
State = Mapping[str, Tensor]


def parts(state: State) -> list[dict[str, Tensor]]:
    """The parts of a state, in order."""
    numbers = sorted({int(name.split("/")[0]) for name in state if name[0].isdigit()})
    return [below(state, f"{number}/") for number in numbers]


def as_part(number: int, state: State) -> dict[str, Tensor]:
    """The tensors of a part as they stand in the whole state."""
    return {f"{number}/{name}": value for name, value in state.items()}


def mean(state: State, value: Callable[[State], Tensor]) -> Tensor:
    """The mean over the parts."""
    found = [value(part) for part in parts(state)]
    return found[0] if len(found) == 1 else torch.stack(found).mean(0)


def folds_of(rows: int, generator: torch.Generator) -> Tensor | None:
    """(rows,) the fold of each row; None when there are so many that one part is enough, or too few to be cut."""
    if not FOLDS <= rows <= FEW:
        return None
    return torch.randperm(rows, generator=generator) % FOLDS


def out_of_fold(state: State, folds: Tensor, value: Callable[[State, Tensor], Tensor]) -> Tensor:
    """(rows, ...): value(state with the one part that was fitted without the rows, numbers of the rows)."""
    whole = {name: tensor for name, tensor in state.items() if not name[0].isdigit()}
    found, order = [], []
    for number, part in enumerate(parts(state)):
        rows = (folds == number).nonzero().flatten()
        found.append(value(whole | as_part(number, part), rows))
        order.append(rows)
    return torch.cat(found)[torch.cat(order).argsort()]
