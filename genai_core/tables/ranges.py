"""Ranges of a numeric axis: which tokens lie in one, and where inside their cells a value may be placed.

A range is exact: a cell on its border is drawn as often as its share inside says, and its values are placed in that
share alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from genai_core.tables.axis import NumericAxis

FARTHEST = 2**63 - 1
POINT = 1e-30  # share of a cell that a single value of it has


class AxisRange:
    """From `low` to `high`, both included; None: open. In the units of `split_axes`; dtype: of decoded values."""

    def __init__(self, axis: NumericAxis, low: float | int | None, high: float | int | None, dtype: np.dtype):
        self.axis = axis
        self.low: Any
        self.high: Any
        self.start: Any
        self.stop: Any
        if axis.gridded:
            self.low = -FARTHEST if low is None else _first_index(axis, low, dtype)
            self.high = FARTHEST - 1 if high is None else _last_index(axis, high, dtype)
            self._clip()
            start, stop = (np.int64(np.clip(v, -FARTHEST, FARTHEST)) for v in (self.low, self.high + 1))
            self.start, self.stop = _rank(axis, start), _rank(axis, stop)
        else:
            self.low = self.start = -np.inf if low is None else float(low)
            self.high = self.stop = np.inf if high is None else float(high)
            self._clip()
            self.start, self.stop = self.low, self.high

    def _clip(self) -> None:
        """To what is drawn at all: see `NumericAxis.lowest`. An open end stays open, since values are clipped there."""
        lowest, highest = self.axis.lowest, self.axis.highest
        if lowest is None or highest is None:
            return
        if self.low > highest or self.high < lowest:
            self.low, self.high = (1, 0) if self.axis.gridded else (np.inf, -np.inf)

    def atoms(self) -> np.ndarray:
        """(atoms,) bool: those in the range."""
        return (self.axis.atoms >= self.low) & (self.axis.atoms <= self.high)

    def shares(self) -> np.ndarray:
        """(cells,) in [0, 1]: how much of each cell lies in the range."""
        _, inside, total = self._parts(np.arange(len(self.axis.cell_bin)))
        return inside / np.maximum(total, np.finfo(float).tiny)

    def _parts(self, cell: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of cells: how much of each lies before the range, in it, and altogether; points on a grid, else lengths."""
        low, high = self.axis.edges[cell], self.axis.edges[cell + 1]
        start, stop = np.clip(self.start, low, high), np.clip(self.stop, low, high)
        stop = np.maximum(start, stop)
        parts = [start.astype(float) - low, stop.astype(float) - start, high.astype(float) - low]
        if (
            not self.axis.gridded
        ):  # a range that only touches a cell holds its end: drawn when there is nothing else
            touched = (self.start <= high) & (self.stop >= low)
            parts[1] = np.where(touched, np.maximum(parts[1], POINT * parts[2]), 0.0)
        if len(self.axis.known):
            known = self.axis.known - np.searchsorted(self.axis.atoms, self.axis.known)
            begin, first, last, end = (np.searchsorted(known, v) for v in (low, start, stop, high))
            some = end > begin
            for number, count in enumerate((first - begin, last - first, end - begin)):
                parts[number] = np.where(some, count, parts[number])
        return parts[0], parts[1], parts[2]

    def tables(self) -> tuple[np.ndarray, np.ndarray]:
        """Log-weights of first tokens (vocabulary,) and of second ones (vocabulary, ranks); -inf outside.

        The share of a bin is the mean of its cells', which hold about as many values each.
        """
        axis = self.axis
        first, second = np.zeros(axis.vocabulary), np.zeros((axis.vocabulary, axis.ranks))
        first[axis.atom_token[self.atoms()]] = 1.0
        second[axis.atom_token[self.atoms()], 0] = 1.0
        shares = self.shares()
        second[axis.cell_bin, axis.cell_rank] = shares
        cells = np.bincount(axis.cell_bin, minlength=axis.vocabulary)
        sums = np.bincount(axis.cell_bin, shares, minlength=axis.vocabulary)
        first = np.where(cells > 0, sums / np.maximum(cells, 1), first)
        with np.errstate(divide="ignore"):
            return np.log(first).astype(np.float32), np.log(second).astype(np.float32)

    def place(self, first: np.ndarray, second: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """Numbers in [0, 1) for `NumericAxis.decode` that place values of cells inside the range."""
        axis = self.axis
        if not len(axis.cell_bin):
            return uniform
        cell_of = np.full((axis.vocabulary, axis.ranks), -1)
        cell_of[axis.cell_bin, axis.cell_rank] = np.arange(len(axis.cell_bin))
        cell = cell_of[first, second]
        before, inside, total = self._parts(np.maximum(cell, 0))
        total = np.maximum(total, np.finfo(float).tiny)
        if axis.gridded:  # the middle of a point, so that rounding does not reach the next
            placed = (before + np.minimum(np.floor(uniform * inside), inside - 1) + 0.5) / total
        else:
            placed = (before + uniform * inside) / total
        return np.where((cell >= 0) & (inside > 0), placed, uniform)


class Placing:
    """In place of a random generator while a column is decoded: one function for each of its axes, in their order."""

    def __init__(
        self, random: np.random.Generator, places: Sequence[Callable[[np.ndarray], np.ndarray]]
    ) -> None:
        self.random_numbers, self.places = random, iter(places)

    def random(self, rows: int) -> np.ndarray:
        """Numbers in [0, 1), those of the next axis."""
        return next(self.places)(self.random_numbers.random(rows))


def _value(axis: NumericAxis, index: int, dtype: np.dtype) -> float | int:
    """What a grid index is decoded to."""
    whole = index * axis.step + (axis.offset if axis.step != 1 else 0)
    return dtype.type(whole / 10.0**axis.decimals) if dtype.kind == "f" else whole


def _near(axis: NumericAxis, bound: float | int, dtype: np.dtype) -> int:
    scaled = int(np.floor(float(bound) * 10.0**axis.decimals)) if dtype.kind == "f" else int(bound)
    return (scaled - (axis.offset if axis.step != 1 else 0)) // axis.step


def _first_index(axis: NumericAxis, bound: float | int, dtype: np.dtype) -> int:
    """The first point of the grid at or above a bound."""
    if dtype.kind == "f" and not np.isfinite(bound):
        return FARTHEST if bound > 0 else -FARTHEST
    index = _near(axis, bound, dtype)
    return next((i for i in range(index - 1, index + 3) if _value(axis, i, dtype) >= bound), index + 3)


def _last_index(axis: NumericAxis, bound: float | int, dtype: np.dtype) -> int:
    """The last point of the grid at or below a bound."""
    if dtype.kind == "f" and not np.isfinite(bound):
        return FARTHEST - 1 if bound > 0 else -FARTHEST
    index = _near(axis, bound, dtype)
    return next((i for i in range(index + 2, index - 2, -1) if _value(axis, i, dtype) <= bound), index - 2)


def _rank(axis: NumericAxis, index: np.int64) -> np.int64:
    """Grid points below a grid index that are no atoms: its place in rank space."""
    return np.int64(index - np.searchsorted(axis.atoms, index))
