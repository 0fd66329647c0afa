"""A numeric axis as two tokens: which atom or quantile bin, and the rank inside the bin.

Atoms are values with a mass of their own (zeros, caps, round amounts): each has its token, so they stay exact. The
rest is cut into quantile bins and these into cells; a value is drawn uniformly from the points of its cell, on the
column's own grid (whole numbers, cents, hours). Values below, above and between what was seen have tokens of their
own and are never drawn.

Where few new values of a column on a grid are to come, those between the ones seen are unseen, and only seen ones are
drawn: clock times as HHMM have none from 1260 to 1299.

Reference measure. log p(value) = log p(tokens) + log_measure, exact under: counting measure on atoms and special
values; elsewhere Lebesgue (on a grid: counting) measure in units of a hundredth of the axis' 1 %-99 % range.
Beyond the range seen, the density falls off as scale / (scale + distance)^2 (Lomax), so distance is kept.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields

import numpy as np

from genai_core.spaces import OffAxis

MAX_DISCRETE = 400  # with no more distinct values every value is an atom; a year of days fits
TILT, OFF_GRID = (
    0.25,
    2.0,
)  # nats by which the density of unseen values falls along the axis; lengths added off the grid
MAX_BINS = 64
MAX_CELLS = 4096
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
    lowest: np.ndarray | None = None  # 0-d, grid units: nothing is drawn below it,
    highest: np.ndarray | None = None  # nor above this one; None: up to minimum and maximum
    known: np.ndarray = field(
        default_factory=lambda: np.zeros(0, np.int64)
    )  # sorted, grid units without the atoms: all values that are drawn from cells; none: any in them

    def __post_init__(self) -> None:
        """ValueError for arrays that no fit makes: their tables would not fit into memory."""
        tokens = (self.cell_bin, self.cell_rank, self.atom_token)
        shapes = {array.ndim for array in (*tokens, self.atoms, self.edges, self.known)}
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
        widths = np.log(self.edges[1:] / 2 - self.edges[:-1] / 2) + np.log(2)
        if not len(self.known):
            return widths
        inside = np.diff(np.searchsorted(self.known - np.searchsorted(self.atoms, self.known), self.edges))
        return np.where(inside > 0, np.log(np.maximum(inside, 1)), widths)

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
        rest = on_grid & inside & self._is_known(x) if len(self.cell_bin) else np.zeros(len(x), bool)
        self._measure_unseen(x, inside & ~rest, on_grid, measure)
        if not rest.any():
            return
        rank = x[rest] - index[rest] if self.gridded else x[rest]
        cell = np.clip(np.searchsorted(self.edges, rank, "right") - 1, 0, len(self.cell_bin) - 1)
        first[rest], second[rest] = self.cell_bin[cell], self.cell_rank[cell]
        measure[rest] = np.log(self.unit) - self._log_widths()[cell]

    def _is_known(self, x: np.ndarray) -> np.ndarray:
        if not len(self.known):
            return np.ones(len(x), bool)
        return self.known[np.minimum(np.searchsorted(self.known, x), len(self.known) - 1)] == x

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
            out[atom >= 0] = self._clipped(self.atoms[atom[atom >= 0]])
        if len(self.cell_bin):
            cell_of = np.full((self.vocabulary, self.ranks), -1)
            cell_of[self.cell_bin, self.cell_rank] = np.arange(len(self.cell_bin))
            cell = cell_of[first, second]
            inside = cell >= 0
            out[inside] = self._clipped(self._draw(cell[inside], uniform[inside]))
        return self._from_grid(out)

    def _draw(self, cell: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        low, high = self.edges[cell], self.edges[cell + 1]
        if self.gridded:
            width = high.astype(np.float64) - low
            # a cell may be wider than int64 reaches: the sum wraps round to the right place
            inside = (uniform * width).astype(np.uint64)
            rank = np.minimum((low.view(np.uint64) + inside).view(np.int64), high - 1)
            return self._from_rank(self._known_rank(rank, cell, uniform))
        return low * (1 - uniform) + high * uniform

    def _known_rank(self, rank: np.ndarray, cell: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """One of the known values of each cell in place of `rank`, where the cell has any."""
        if not len(self.known):
            return rank
        known = self.known - np.searchsorted(self.atoms, self.known)
        first, end = np.searchsorted(known, self.edges[cell]), np.searchsorted(known, self.edges[cell + 1])
        chosen = np.minimum(first + (uniform * (end - first)).astype(np.int64), np.maximum(end - 1, 0))
        return np.where(end > first, known[chosen], rank)

    def _clipped(self, values: np.ndarray) -> np.ndarray:
        if self.lowest is None or self.highest is None:
            return values
        return np.clip(values, self.lowest, self.highest)

    def _from_grid(self, out: np.ndarray) -> np.ndarray:
        if not self.gridded:
            return out
        whole = out * self.step + (self.offset if self.step != 1 else 0)
        return whole / 10.0**self.decimals if self.decimals else whole

    # -- state -----------------------------------------------------------------------------------------------
    def ends(self) -> np.ndarray:
        """(2,) the least and the greatest value that is drawn."""
        low = self.minimum if self.lowest is None else self.lowest
        high = self.maximum if self.highest is None else self.highest
        return self._from_grid(np.array([low, high]))

    def state(self) -> tuple[dict, dict[str, np.ndarray]]:
        """JSON-able settings and arrays."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        arrays = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
        return {name: value for name, value in values.items() if name not in arrays}, arrays
