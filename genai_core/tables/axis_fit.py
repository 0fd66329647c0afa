"""How a numeric axis is laid out for a column: its grid, its atoms, its bins and cells, from a summary of the values"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from genai_core.tables.axis import MAX_BINS, MAX_CELLS, MAX_DISCRETE, SPECIALS, NumericAxis
from genai_core.tables.sketches import NumericSummary

MAX_ATOMS = 128
MAX_NEW, NEGLIGIBLE = (
    0.05,
    0.01,
)  # new ones among the rare values to come, and among all: above, no value is an atom
ALMOST_NONE = 3e-4  # new values among all to come, up to which gaps between those seen count as gaps
ATOM_MASS = 0.001
ATOM_ROWS = 20
SPARED = 200  # a table of fewer rows than this times a threshold is protected less
ROWS_PER_CELL = 5  # no cell is made from fewer training rows: the draw inside it stays anonymous among them
QUANTILE_POINTS = 8193
LARGEST = 2**63 - 1
FINEST = 2.0**53  # from here on floats have no neighbour a grid step away


def fit_axis(summary: NumericSummary, extremes: int = 0) -> NumericAxis:
    """The axis of a summarised column; with nothing finite in it, an axis of special values alone.

    extremes  nothing is drawn beyond the so-many-th least and greatest value, as far as `at_most` allows
    """
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
    known = _known(summary, to_grid, atoms) if gridded else np.zeros(0, np.int64)
    robust = _central_range(points, limits)
    edges, cell_bin, cell_rank = _cells(points, atoms, summary.counted - atom_rows, gridded, limits)
    lowest, highest = _drawn_range(
        summary, extremes, to_grid, known if len(known) or len(cell_bin) else atoms
    )
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
        known=known,
        lowest=lowest,
        highest=highest,
    )
    _order_by_value(axis)
    return axis


def at_most(rows: int, of: int) -> int:
    """So many rows, for the sake of privacy, but no more than one in SPARED: small tables keep what they have."""
    return min(rows, of // SPARED)


def _drawn_range(
    summary: NumericSummary, extremes: int, to_grid: Callable[[np.ndarray], np.ndarray], among: np.ndarray
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The least and greatest value that are drawn, grid units; one of `among` where there is any."""
    rank = at_most(extremes, summary.counted)
    if rank < 2:
        return None, None
    share = (rank - 0.5) / summary.counted
    low, high = to_grid(
        np.array([summary.digest.get_quantile(share), summary.digest.get_quantile(1 - share)])
    )
    if len(among):
        low = among[min(np.searchsorted(among, low), len(among) - 1)]
        high = among[max(np.searchsorted(among, high, "right") - 1, 0)]
    return np.array(low), np.array(max(low, high))


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
    low, high = float(summary.minimum), float(summary.maximum)  # type: ignore[arg-type]
    if max(abs(low), abs(high)) * 10.0**summary.decimals >= FINEST:
        return False, 0
    points = (high - low) * 10.0**summary.decimals
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
    if summary.integral and summary.maximum == LARGEST and LARGEST not in chosen:
        chosen.append(LARGEST)  # a cell would end beyond it
    rows = sum(counts.get(value, 0) for value in chosen)
    kind = np.int64 if summary.integral else np.float64
    return np.unique(to_grid(np.array(chosen, kind))) if chosen else to_grid(np.zeros(0, kind)), rows


def _known(
    summary: NumericSummary, to_grid: Callable[[np.ndarray], np.ndarray], atoms: np.ndarray
) -> np.ndarray:
    """All values that are no atoms, where next to no row has one of its own (Good 1953); else none.

    An unseen value costs more than most errors: were it not rare, it would hide them from false-discovery control.
    """
    counts, complete = summary.frequent_values()
    if not complete or sum(count == 1 for count in counts.values()) > ALMOST_NONE * summary.counted:
        return np.zeros(0, np.int64)
    seen = np.unique(to_grid(np.array(list(counts), np.int64 if summary.integral else np.float64)))
    return np.setdiff1d(seen, atoms)


def _more_to_come(counts: dict[float | int, int], rows: int) -> bool:
    """Whether there are many values that were not seen: the share of those seen once estimates it (Good 1953)."""
    once = sum(count == 1 for count in counts.values())
    if len(counts) == 1:
        return False
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
        low, high = low - np.searchsorted(atoms, low), high - np.searchsorted(atoms, high, "right") + 1
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
