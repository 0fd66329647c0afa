"""A numeric axis as two tokens: which atom or quantile bin, and the rank inside the bin.

Atoms are values with a mass of their own (zeros, caps, round amounts): each has its token, so they stay exact. The
rest is cut into quantile bins and these into cells; a value is drawn uniformly from the points of its cell, on the
column's own grid (whole numbers, cents, hours). Values below, above and between what was seen have tokens of their
own and are never drawn.

Reference measure. log p(value) = log p(tokens) + log_measure, exact under: counting measure on atoms and special
values; elsewhere Lebesgue (on a grid: counting) measure in units of a hundredth of the axis' 1 %-99 % range.
Beyond the range seen, the density falls off as scale / (scale + distance)^2 (Lomax), so distance is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from itertools import pairwise

import numpy as np

from genai_core.spaces import OffAxis
from genai_core.tables.sketches import NumericSummary

MAX_ATOMS = 128
MAX_DISCRETE = 400  # with no more distinct values every value is an atom; a year of days fits
MAX_NEW, NEGLIGIBLE = (
    0.05,
    0.01,
)  # new ones among the rare values to come, and among all: above, no value is an atom
TILT, OFF_GRID = (
    0.25,
    2.0,
)  # nats by which the density of unseen values falls along the axis; lengths added off the grid
ATOM_MASS = 0.001
ATOM_ROWS = 20
MAX_BINS = 64
MAX_CELLS = 4096
ROWS_PER_CELL = 5  # no cell is made from fewer training rows: the draw inside it stays anonymous among them
QUANTILE_POINTS = 8193
SPECIALS = ("below", "above", "unseen", "nan", "positive_infinite", "negative_infinite", "missing")


@dataclass(eq=False)
class NumericAxis:
    """Encoder and decoder of one axis.

    In *grid units* (integers) when the axis has a grid, value = offset + index * step, else in the values' own
    units. In *rank space*, grid indices with the atoms left out, so that cells need not know of them.
    """

    gridded: bool
    decimals: int  # value = index * step / 10**decimals + offset
    step: int
    offset: int
    minimum: np.ndarray  # 0-d, grid units
    maximum: np.ndarray
    unit: float  # of the reference measure, grid units
    scale: float  # of the tails, grid units
    atoms: np.ndarray  # (atoms,) sorted, grid units
    edges: np.ndarray  # (cells + 1,) sorted, rank space
    cell_bin: np.ndarray  # (cells,) first token
    cell_rank: np.ndarray  # (cells,) second token
    atom_token: np.ndarray  # (atoms,)
    seen: np.ndarray  # (specials,) bool: drawable
    location: float
    spread: float

    def __post_init__(self) -> None:
        """ValueError for arrays that no fit makes: their tables would not fit into memory."""
        tokens = (self.cell_bin, self.cell_rank, self.atom_token)
        shapes = {array.ndim for array in (*tokens, self.atoms, self.edges)}
        cells = len(self.cell_bin)
        if shapes != {1} or len(self.cell_rank) != cells or len(self.edges) != (cells + 1 if cells else 0):
            raise ValueError("the cells of a column do not fit together")
        if len(self.atom_token) != len(self.atoms) or any(len(t) and t.min() < 0 for t in tokens):
            raise ValueError("the tokens of a column do not fit together")
        if self.places > MAX_DISCRETE + MAX_BINS or self.ranks > MAX_CELLS:
            raise ValueError(
                f"a column has {self.places:,} x {self.ranks:,} tokens, more than any that is fitted"
            )

    # -- shape ---------------------------------------------------------------------------------------------
    @property
    def places(self) -> int:
        """Number of first tokens on the axis (bins and atoms)."""
        bins = int(self.cell_bin.max()) + 1 if len(self.cell_bin) else 0
        return max(bins, int(self.atom_token.max()) + 1 if len(self.atom_token) else 0)

    @property
    def ranks(self) -> int:
        """Number of second tokens; 1 when no bin has more than one cell."""
        return int(self.cell_rank.max()) + 1 if len(self.cell_rank) else 1

    @property
    def vocabulary(self) -> int:
        return self.places + len(SPECIALS)

    def special(self, name: str) -> int:
        """Token of a special value."""
        return self.places + SPECIALS.index(name)

    def drawable(self) -> np.ndarray:
        """(vocabulary,) bool."""
        return np.concatenate([np.ones(self.places, bool), self.seen])

    def allowed(self) -> np.ndarray:
        """(vocabulary, ranks) bool: the second tokens possible after each first token."""
        table = np.zeros((self.vocabulary, self.ranks), bool)
        table[:, 0] = True
        table[self.cell_bin, self.cell_rank] = True
        return table

    def places_on_axis(self) -> tuple[np.ndarray, np.ndarray]:
        """Standardised values of first tokens (vocabulary,) and of pairs (vocabulary, ranks); NaN off the axis."""
        pairs = np.full((self.vocabulary, self.ranks), np.nan)
        if len(self.atoms):
            pairs[self.atom_token, 0] = self._standard(self.atoms)
        if len(self.cell_bin):
            middle = self.edges[:-1] / 2 + self.edges[1:] / 2
            value = self._from_rank(middle.astype(self.edges.dtype)) if self.gridded else middle
            pairs[self.cell_bin, self.cell_rank] = self._standard(value)
        counts = np.maximum((~np.isnan(pairs)).sum(1), 1)
        first = np.where(np.isnan(pairs).all(1), np.nan, np.nansum(pairs, 1) / counts)
        return first, pairs

    def off_axis(self) -> OffAxis | None:
        """What the log measure says of values without a place; None for an axis of special values alone."""
        if self.scale <= 0:
            return None
        ends = self._standard(np.array([self.minimum, self.maximum], float))
        return OffAxis(
            below=self.special("below"),
            above=self.special("above"),
            unseen=self.special("unseen"),
            low=float(ends[0]),
            high=float(ends[1]),
            end=float(np.log(self.unit / self.scale)),
            reach=float(self.scale / self.spread),
            between=self._between,
            tilt=TILT,
        )

    @property
    def _between(self) -> float:
        """Log measure of an unseen value just above the minimum."""
        width = max(float(self.maximum) - float(self.minimum), self.unit)
        return float(np.log(self.unit / min(width, 1e308)) + np.log(TILT / -np.expm1(-TILT)))

    def _standard(self, values: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):
            return np.clip((values.astype(float) - self.location) / self.spread, -1e6, 1e6)

    def _log_widths(self) -> np.ndarray:
        """(cells,) log of the cells' measures; halved first, so that the full range of floats does not overflow."""
        return np.log(self.edges[1:] / 2 - self.edges[:-1] / 2) + np.log(2)

    # -- encode ----------------------------------------------------------------------------------------------
    def encode(self, values: np.ndarray, missing: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """First tokens, second tokens and log measures of `values`; `missing` marks nulls."""
        first = np.full(len(values), self.special("missing"), np.int16)
        second = np.zeros(len(values), np.int16)
        log_measure = np.zeros(len(values), np.float32)
        todo = self._encode_specials(values, missing, first)
        x, on_grid = self._to_grid(values[todo])
        first_x, second_x = np.full(len(x), self.special("unseen"), np.int16), np.zeros(len(x), np.int16)
        measure_x = np.zeros(len(x), np.float32)
        if len(x) and self.scale > 0:
            self._encode_finite(x, on_grid, first_x, second_x, measure_x)
        first[todo], second[todo], log_measure[todo] = first_x, second_x, measure_x
        return first, second, log_measure

    def _encode_specials(self, values: np.ndarray, missing: np.ndarray, first: np.ndarray) -> np.ndarray:
        todo = ~missing
        if values.dtype.kind == "f":
            for name, mark in (
                ("nan", np.isnan(values)),
                ("positive_infinite", np.isposinf(values)),
                ("negative_infinite", np.isneginf(values)),
            ):
                first[todo & mark] = self.special(name)
                todo = todo & ~mark
        return todo

    def _encode_finite(
        self, x: np.ndarray, on_grid: np.ndarray, first: np.ndarray, second: np.ndarray, measure: np.ndarray
    ) -> None:
        below, above = x < self.minimum, x > self.maximum
        first[below], first[above] = self.special("below"), self.special("above")
        with np.errstate(over="ignore"):
            distance = np.where(below, self.minimum - x.astype(float), x.astype(float) - self.maximum)[
                below | above
            ]
            distance = np.minimum(distance / self.scale, 1e300)
        measure[below | above] = np.log(self.unit / self.scale) - 2 * np.log1p(distance)
        index = np.searchsorted(self.atoms, x)
        is_atom = np.zeros(len(x), bool)
        if len(self.atoms):
            is_atom = on_grid & (self.atoms[np.minimum(index, len(self.atoms) - 1)] == x)
            first[is_atom] = self.atom_token[index[is_atom]]
        inside = ~is_atom & ~below & ~above
        rest = on_grid & inside if len(self.cell_bin) else np.zeros(len(x), bool)
        self._measure_unseen(x, inside & ~rest, on_grid, measure)
        if not rest.any():
            return
        rank = x[rest] - index[rest] if self.gridded else x[rest]
        cell = np.clip(np.searchsorted(self.edges, rank, "right") - 1, 0, len(self.cell_bin) - 1)
        first[rest], second[rest] = self.cell_bin[cell], self.cell_rank[cell]
        measure[rest] = np.log(self.unit) - self._log_widths()[cell]

    def _measure_unseen(
        self, x: np.ndarray, unseen: np.ndarray, on_grid: np.ndarray, measure: np.ndarray
    ) -> None:
        """Spread over the axis, a little more of it below than above: so the measure says where the value is.

        Values off the grid get less, so that they can be told apart.
        """
        if unseen.any():
            width = max(float(self.maximum) / 2 - float(self.minimum) / 2, self.unit / 2)
            share = (x[unseen] / 2 - self.minimum / 2) / width
            measure[unseen] = self._between - TILT * (share + OFF_GRID * ~on_grid[unseen])

    def _to_grid(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if not self.gridded:
            return values.astype(np.float64), np.ones(len(values), bool)
        if values.dtype.kind == "f":
            scaled = np.clip(values.astype(np.float64) * 10.0**self.decimals, -(2.0**62), 2.0**62)
            index = np.rint(scaled).astype(np.int64)
            on_grid = np.round(values.astype(np.float64), self.decimals).astype(values.dtype) == values
        else:
            index, on_grid = values, np.ones(len(values), bool)
        shifted = index - self.offset if self.step != 1 else index
        return shifted // self.step, on_grid & (shifted % self.step == 0)

    def _from_rank(self, rank: np.ndarray) -> np.ndarray:
        """Grid index of a rank: atoms below it are counted back in."""
        if not len(self.atoms):
            return rank
        return rank + np.searchsorted(self.atoms - np.arange(len(self.atoms)), rank, "right")

    # -- decode ----------------------------------------------------------------------------------------------
    def decode(self, first: np.ndarray, second: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """Values of tokens, float64 or (on a grid without decimals) int64; 0 for special values.

        uniform: (rows,) in [0, 1), places the value inside its cell.
        """
        out = np.zeros(len(first), np.int64 if self.gridded else np.float64)
        if len(self.atoms):
            atom_of = np.full(self.vocabulary, -1)
            atom_of[self.atom_token] = np.arange(len(self.atoms))
            atom = atom_of[first]
            out[atom >= 0] = self.atoms[atom[atom >= 0]]
        if len(self.cell_bin):
            cell_of = np.full((self.vocabulary, self.ranks), -1)
            cell_of[self.cell_bin, self.cell_rank] = np.arange(len(self.cell_bin))
            cell = cell_of[first, second]
            inside = cell >= 0
            out[inside] = self._draw(cell[inside], uniform[inside])
        return self._from_grid(out)

    def _draw(self, cell: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        low, high = self.edges[cell], self.edges[cell + 1]
        if self.gridded:
            width = high.astype(np.float64) - low
            # a cell may be wider than int64 reaches: the sum wraps round to the right place
            inside = (uniform * width).astype(np.uint64)
            return self._from_rank(np.minimum((low.view(np.uint64) + inside).view(np.int64), high - 1))
        return low * (1 - uniform) + high * uniform

    def _from_grid(self, out: np.ndarray) -> np.ndarray:
        if not self.gridded:
            return out
        whole = out * self.step + (self.offset if self.step != 1 else 0)
        return whole / 10.0**self.decimals if self.decimals else whole

    # -- state -----------------------------------------------------------------------------------------------
    def state(self) -> tuple[dict, dict[str, np.ndarray]]:
        """JSON-able settings and arrays."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        arrays = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
        return {name: value for name, value in values.items() if name not in arrays}, arrays


def fit_axis(summary: NumericSummary) -> NumericAxis:
    """The axis of a summarised column; with nothing finite in it, an axis of special values alone."""
    seen = {
        "nan": summary.nan,
        "positive_infinite": summary.positive_infinite,
        "negative_infinite": summary.negative_infinite,
        "missing": summary.missing,
    }
    marks = np.array([bool(seen.get(name, 0)) for name in SPECIALS])
    if not summary.counted:
        return _empty_axis(summary.integral, marks)
    gridded, decimals = _grid(summary)
    step = max(summary.divisor, 1) if gridded and decimals == 0 else 1
    offset = summary.anchor if step != 1 and summary.anchor is not None else 0

    def to_grid(values: np.ndarray) -> np.ndarray:
        if not gridded:
            return np.asarray(values, np.float64)
        if np.asarray(values).dtype.kind != "f":
            return (np.asarray(values, np.int64) - offset) // step
        scaled = np.asarray(values, np.float64) * 10.0**decimals
        return np.rint((np.clip(scaled, -(2.0**62), 2.0**62) - offset) / step).astype(np.int64)

    kind = np.int64 if summary.integral else np.float64
    limits = to_grid(np.array([summary.minimum, summary.maximum], kind))
    points = np.clip(to_grid(summary.quantiles(QUANTILE_POINTS)), limits[0], limits[1])
    atoms, atom_rows = _atoms(summary, to_grid)
    robust = _central_range(points, limits)
    edges, cell_bin, cell_rank = _cells(points, atoms, summary.counted - atom_rows, gridded, limits)
    axis = NumericAxis(
        gridded=gridded,
        decimals=decimals,
        step=step,
        offset=offset,
        minimum=np.array(limits[0]),
        maximum=np.array(limits[1]),
        unit=max(robust / 100, 1.0) if gridded else robust / 100,
        scale=max(robust / 2, 1.0) if gridded else robust / 2,
        atoms=atoms,
        edges=edges,
        cell_bin=cell_bin,
        cell_rank=cell_rank,
        atom_token=np.arange(len(atoms), dtype=np.int64),
        seen=marks,
        location=float(np.median(points)),
        spread=robust / 4.65,  # the 1 %-99 % range of a normal distribution in standard deviations
    )
    _order_by_value(axis)
    return axis


def _central_range(points: np.ndarray, limits: np.ndarray) -> float:
    """The 1 %-99 % range, or the whole one where that is nothing; finite and positive."""
    halves = points.astype(float) / 2
    central = float(np.subtract(*np.quantile(halves, [0.99, 0.01])))
    whole = float(limits[1] / 2 - limits[0] / 2)
    return min(2 * (central or whole or 0.5), 1e308)


def _empty_axis(integral: bool, seen: np.ndarray) -> NumericAxis:
    none, zero = np.zeros(0, np.int64), np.array(0)
    return NumericAxis(
        integral, 0, 1, 0, zero, zero, 1.0, 0.0, none, none, none, none, none, seen, 0.0, 1.0
    )  # fmt: skip


def _grid(summary: NumericSummary) -> tuple[bool, int]:
    """Whether the axis has a grid, and its decimals. Fine grids (over 1e7 points) are as good as none."""
    if summary.integral:
        return True, 0
    if summary.decimals is None:
        return False, 0
    points = (float(summary.maximum) - float(summary.minimum)) * 10.0**summary.decimals  # type: ignore[arg-type]
    return summary.decimals <= 2 or points <= 1e7, summary.decimals


def _atoms(summary: NumericSummary, to_grid: Callable[[np.ndarray], np.ndarray]) -> tuple[np.ndarray, int]:
    """Values with a mass of their own (grid units, sorted), and the rows they hold."""
    counts, complete = summary.frequent_values()
    if complete and len(counts) <= MAX_DISCRETE and not _more_to_come(counts, summary.counted):
        chosen = list(counts)
    else:
        least = max(ATOM_MASS * summary.counted, ATOM_ROWS)
        ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        chosen = [value for value, count in ranked[:MAX_ATOMS] if count >= least]
    rows = sum(counts[value] for value in chosen)
    kind = np.int64 if summary.integral else np.float64
    return np.unique(to_grid(np.array(chosen, kind))) if chosen else to_grid(np.zeros(0, kind)), rows


def _more_to_come(counts: dict[float | int, int], rows: int) -> bool:
    """Whether there are many values that were not seen: the share of those seen once estimates it (Good 1953)."""
    once = sum(count == 1 for count in counts.values())
    rare = sum(count for count in counts.values() if count < ATOM_ROWS)  # zeros and caps do not count
    return once > MAX_NEW * rare and once > NEGLIGIBLE * rows


def _cells(
    points: np.ndarray, atoms: np.ndarray, rows: int, gridded: bool, limits: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Edges of the cells in rank space, and the bin and rank of each cell."""
    none = np.zeros(0, np.int64)
    if rows <= 0:
        return none, none, none
    points = points[~np.isin(points, atoms)]
    low, high = limits
    if gridded:
        points = points - np.searchsorted(atoms, points)
        low, high = low - np.searchsorted(atoms, low), high + 1 - np.searchsorted(atoms, high, "right")
    if high <= low:
        return none, none, none
    points = np.concatenate([[low], points, [high]])
    cells = int(np.clip(rows // ROWS_PER_CELL, 1, MAX_CELLS))
    bins = int(np.clip(round(cells**0.5), 1, MAX_BINS))
    outer = _quantile_edges(points, bins, low, high)
    pieces = [_inner_edges(points, a, b, max(cells // bins, 1), gridded) for a, b in pairwise(outer)]
    edges = np.concatenate([p[:-1] for p in pieces] + [[high]])
    cell_bin = np.repeat(np.arange(len(pieces)), [len(p) - 1 for p in pieces])
    cell_rank = np.concatenate([np.arange(len(p) - 1) for p in pieces])
    return edges.astype(points.dtype), cell_bin, cell_rank


def _quantile_edges(points: np.ndarray, number: int, low: float, high: float) -> np.ndarray:
    inner = np.quantile(points, np.linspace(0, 1, number + 1)[1:-1], method="lower")
    inner = np.unique(inner)
    return np.concatenate([[low], inner[(inner > low) & (inner < high)], [high]]).astype(points.dtype)


def _inner_edges(points: np.ndarray, low: float, high: float, number: int, gridded: bool) -> np.ndarray:
    if gridded and float(high) - float(low) <= number:  # the whole range of int64 overflows it
        return np.arange(low, high + 1)
    inside = points[(points >= low) & (points < high)]
    return _quantile_edges(inside, number, low, high) if len(inside) else np.array([low, high])


def _order_by_value(axis: NumericAxis) -> None:
    """Number the first tokens along the axis, bins and atoms merged, so that neighbours are neighbours."""
    bins = int(axis.cell_bin.max()) + 1 if len(axis.cell_bin) else 0
    axis.atom_token = np.arange(len(axis.atoms), dtype=np.int64) + bins
    if not bins:
        return
    first, _ = axis.places_on_axis()
    order = np.argsort(first[: axis.places], kind="stable")
    token = np.empty(len(order), np.int64)
    token[order] = np.arange(len(order))
    axis.cell_bin, axis.atom_token = token[axis.cell_bin], token[axis.atom_token]
