"""Records of a table as vectors: every column one number on a common scale and one code, for scores that need distances

A *unit* is a numeric axis or a category (one or two positions of the record). It has two numbers: the value
standardised, and the normal score of its rank among a sample of training records. Ranks see the middle of skewed
columns, standard deviations how far out a value is; beyond the range seen both go on as standard deviations. Its code
says what is off the axis, or which category.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.special import ndtri
from torch import Tensor

from genai_core.spaces import OffAxis, Position, Tokens

HEAVIEST = 3.0  # standard deviations that a rare code is away from the others
CLASSES = 32  # codes of a category: its most frequent values, and the last for all others
FARTHEST = 50.0  # standard deviations
NUMBER, OFF_AXIS = 0, 1  # codes of a numeric unit
BELOW, ABOVE, UNSEEN = 1, 2, 3
KNOTS = 257
RANKS = 0.25  # weight of the rank in a number
NOWHERE = OffAxis(0, 0, 0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0)
PARTS = ("standard", "rank", "code", "side", "rarity", "odd", "new")  # tables by token
State = Mapping[str, Tensor]


class Unit(NamedTuple):
    """Where a unit stands in a record, and in the tables of what its tokens mean."""

    field: int
    first: int
    second: int | None
    base: int
    ranks: int  # tokens of the second position; 1 without it
    size: int
    position: Position


class Vectors(NamedTuple):
    """Of some records, (rows, units): standard values and normal scores, 0 off the axis; codes; places in tables."""

    standard: Tensor
    rank: Tensor
    codes: Tensor
    places: Tensor

    @property
    def numbers(self) -> Tensor:
        """A mean of both, for networks."""
        return RANKS * self.rank + (1 - RANKS) * self.standard

    def split(self, rows: int) -> Iterator[Vectors]:
        """Parts of so many rows."""
        parts = (part.split(rows) for part in self)
        return (Vectors(*part) for part in zip(*parts, strict=True))


def units_of(space: Tokens) -> list[Unit]:
    """The numeric axes and categories of a table."""
    found: list[Unit] = []
    for i, position in enumerate(space.positions):
        if found and _refines(position, found[-1].first, found[-1].position):
            last = found.pop()
            found.append(
                last._replace(second=i, ranks=position.vocabulary, size=last.size * position.vocabulary)
            )
            continue
        base = found[-1].base + found[-1].size if found else 0
        found.append(Unit(position.field, i, None, base, 1, position.vocabulary, position))
    return found


def many_valued(space: Tokens) -> bool:
    """Whether a category has more values than the codes of CLASSES tell apart."""
    specials = 2  # unseen, missing
    return any(unit.position.values is None and unit.size - specials > CLASSES for unit in units_of(space))


def _refines(position: Position, first: int, of: Position) -> bool:
    """The rank inside a bin, or the member of a group; a time of day has an axis of its own."""
    if position.parent != first:
        return False
    return position.values.ndim == 2 if position.values is not None else of.values is None


def fit_vectors(space: Tokens, x: Tensor) -> dict[str, Tensor]:
    """What `vectors` needs, from a sample of training records x (rows, positions)."""
    units = units_of(space)
    parts: dict[str, list[np.ndarray]] = {n: [] for n in PARTS}
    knots: dict[str, list[np.ndarray]] = {n: [] for n in ("at", "score", "mean", "spread")}
    coded, weights = [], [np.zeros(0)]
    for unit in units:
        index = x[:, unit.first].numpy() * unit.ranks
        index = index if unit.second is None else index + x[:, unit.second].numpy()
        found = (_category if unit.position.values is None else _number)(space, unit, index)
        for kept, own in zip((parts, knots), found, strict=True):
            for name, table in own.items():
                kept[name].append(table)
        codes = found[0]["code"]
        coded.append(bool((codes[index] != NUMBER).any()))
        if coded[-1]:
            share = np.bincount(codes[index], minlength=int(codes.max()) + 1) / len(x)
            weights.append(np.minimum((share * (1 - share)).clip(1e-12) ** -0.5, HEAVIEST) * 0.5**0.5)
    tensors = {name: torch.from_numpy(np.concatenate(tables)) for name, tables in parts.items()}
    tensors |= {name: torch.from_numpy(np.stack(rows)) for name, rows in knots.items()}
    outside = [unit.position.off_axis or NOWHERE for unit in units]
    for name in ("low", "high", "end", "reach", "between", "tilt"):
        tensors[name] = torch.tensor([getattr(o, name) for o in outside], dtype=torch.float32)
    return tensors | {
        "first": torch.tensor([u.first for u in units]),
        "second": torch.tensor([u.first if u.second is None else u.second for u in units]),
        "paired": torch.tensor([0 if u.second is None else 1 for u in units]),
        "stride": torch.tensor([u.ranks for u in units]),
        "base": torch.tensor([u.base for u in units]),
        "field": torch.tensor([u.field for u in units]),
        "kinds": torch.tensor([int(table.max()) + 1 for table in parts["code"]]),
        "numeric": torch.tensor([u.position.values is not None for u in units]),
        "coded": torch.tensor(coded),
        "weight": torch.from_numpy(np.concatenate(weights).astype(np.float32)),
        "never": torch.tensor(2.0 * (len(x) + 1)).log(),  # nats of what was never seen
    }


def unknown(state: State, found: Vectors) -> Tensor:
    """(rows, units): 1 for a category, or something off a numeric axis, that no training record of the sample had.

    Less where new ones are to be expected, 0 for what was seen.
    """
    off_axis = (found.codes == OFF_AXIS) & state["numeric"] & ~state["coded"]
    return torch.maximum((state["new"][found.places] / state["never"]).clamp(max=1), off_axis.float())


def points(view: State, found: Vectors, numbers: Tensor) -> Tensor:
    """(rows, numbers): the numeric units' `numbers`, then the codes of units that had several in training."""
    numeric, coded = view["numeric"], view["coded"]
    numbers = numbers[:, numeric]
    if not bool(coded.any()):
        return numbers
    kinds = view["kinds"][coded]
    ones = numbers.new_zeros(len(numbers), int(kinds.sum()))
    ones.scatter_(1, found.codes[:, coded] + kinds.cumsum(0) - kinds, 1.0)
    return torch.cat([numbers, ones * view["weight"]], 1)


def by_field(state: State, by_unit: Tensor) -> Tensor:
    """(rows, units) -> (rows, fields)."""
    out = by_unit.new_zeros(len(by_unit), int(state["field"][-1]) + 1)
    return out.index_add(1, state["field"], by_unit)


def below(state: State, prefix: str) -> dict[str, Tensor]:
    """The part of a state whose names begin so."""
    return {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}


def vectors(state: State, x: Tensor, log_measure: Tensor | None) -> Vectors:
    """Of records x (rows, positions) with their log measures (rows, fields); None: all have a place on their axes."""
    index = state["base"] + x[:, state["first"]] * state["stride"] + x[:, state["second"]] * state["paired"]
    standard, rank, codes = state["standard"][index], state["rank"][index], state["code"][index].long()
    side = state["side"][index]
    if log_measure is not None and bool(side.any()):
        at = side.nonzero(as_tuple=True)
        placed = _placed(state, side[at], log_measure[at[0], state["field"][at[1]]], at[1])
        standard[at], rank[at], off_grid = placed
        codes[at] = torch.where(off_grid, OFF_AXIS, codes[at])
    return Vectors(standard.clamp(-FARTHEST, FARTHEST), rank.clamp(-FARTHEST, FARTHEST), codes, index)


def _placed(state: State, side: Tensor, m: Tensor, units: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Both numbers (values,) of values without a place, by their log measures m (`OffAxis`); which are off the grid."""
    low, high = state["low"][units], state["high"][units]
    beyond = torch.expm1((state["end"][units] - m) / 2).clamp(0, 1e6) * state["reach"][units]
    share = (state["between"][units] - m) / state["tilt"][units]
    off_grid = (side == UNSEEN) & (share > 1.5)
    share = (share - 2.0 * off_grid).clamp(0, 1)
    inside = torch.where(side == BELOW, low, torch.where(side == ABOVE, high, low + share * (high - low)))
    inside = (inside - state["mean"][units]) / state["spread"][units]
    away = beyond / state["spread"][units]
    inside = inside + torch.where(side == BELOW, -away, torch.where(side == ABOVE, away, 0.0))
    return inside, _interpolated(inside, state["at"][units], state["score"][units]), off_grid


def _interpolated(z: Tensor, at: Tensor, score: Tensor) -> Tensor:
    """Piecewise linear through the knots (values, knots), with slope 1 beyond them."""
    right = torch.searchsorted(at, z[:, None]).clamp(1, at.shape[1] - 1)
    left = right - 1
    a, b = at.gather(1, left), at.gather(1, right)
    share = ((z[:, None] - a) / (b - a).clamp(min=1e-12)).clamp(0, 1)
    inside = torch.lerp(score.gather(1, left), score.gather(1, right), share).squeeze(1)
    return inside + z - torch.minimum(torch.maximum(z, at[:, 0]), at[:, -1])


Tables = dict[str, Any]


def _number(space: Tokens, unit: Unit, index: np.ndarray) -> tuple[Tables, Tables]:
    """Tables (tokens of the unit,) of a numeric unit, and the knots of its scale."""
    place = unit.position.values if unit.second is None else space.positions[unit.second].values
    place = np.asarray(place, float).reshape(-1)
    found = place[index]
    found = found[~np.isnan(found)]
    found = found if len(found) else np.zeros(1)
    mean, spread = found.mean(), max(found.std(), 1e-2)
    values, counts = np.unique((found - mean) / spread, return_counts=True)
    rank = (np.cumsum(counts) - counts / 2) / counts.sum()
    score = ndtri(np.clip(rank, 1e-4, 1 - 1e-4))
    side = np.zeros(unit.size, np.int8)
    if unit.position.off_axis:
        for mark, token in zip((BELOW, ABOVE, UNSEEN), unit.position.off_axis[:3], strict=True):
            side[token * unit.ranks : (token + 1) * unit.ranks] = mark
    off = np.isnan(place) & (side == 0)
    standard = np.where(np.isnan(place), 0, (place - mean) / spread)
    rank = np.interp(standard, values, score) + standard - np.clip(standard, values[0], values[-1])
    code = np.where(off, OFF_AXIS, NUMBER).astype(np.uint8)
    tables: Tables = {
        "standard": standard.astype(np.float32),
        "rank": np.where(np.isnan(place), 0, rank).astype(np.float32),
        "code": code,
        "side": side,
    }
    chosen = np.rint(np.linspace(0, len(values) - 1, KNOTS)).astype(int)
    knots = {"at": values[chosen], "score": score[chosen], "mean": np.array(mean), "spread": np.array(spread)}
    return tables | _rarity(code, off, index), {name: v.astype(np.float32) for name, v in knots.items()}


def _category(space: Tokens, unit: Unit, index: np.ndarray) -> tuple[Tables, Tables]:
    """The same of a category; it has no numbers."""
    counts = np.bincount(index, minlength=unit.size)
    ranked = np.argsort(-counts, kind="stable")[: CLASSES - 1]
    ranked = ranked[counts[ranked] > 0]
    code = np.full(unit.size, len(ranked) + 1, np.uint8)
    code[ranked] = 1 + np.arange(len(ranked))
    zero, none = np.zeros(unit.size, np.float32), np.zeros(KNOTS, np.float32)
    tables: Tables = {"standard": zero, "rank": zero, "code": code, "side": np.zeros(unit.size, np.int8)}
    knots: Tables = {
        "at": none,
        "score": none,
        "mean": np.zeros((), np.float32),
        "spread": np.ones((), np.float32),
    }
    return tables | _rarity(code, np.ones(unit.size, bool), index), knots


def _rarity(code: np.ndarray, counted: np.ndarray, index: np.ndarray) -> Tables:
    """Nats of a token among those of its code; whether no training record had it, and the nats of that among all.

    What none had is as probable as all together that one record had (Good 1953): a new tail number is no wonder.
    """
    counts = np.bincount(index, minlength=len(code)) * counted
    totals = np.bincount(code, weights=counts)[code]
    once = np.bincount(code, weights=counts == 1)[code]
    with np.errstate(divide="ignore", invalid="ignore"):
        nats = np.where(counts > 0, -np.log(counts / totals), np.log((totals + 1) / np.maximum(once, 0.5)))
    odd = counted & (counts == 0)
    new = np.where(odd, np.log((counts.sum() + 1) / np.maximum(once, 0.5)), 0)
    rarity = np.where(counted, nats, 0)
    return {"rarity": rarity.astype(np.float32), "odd": odd, "new": new.astype(np.float32)}
