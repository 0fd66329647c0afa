"""A table that stands in for the data where columns are read: made from noisy counts of each column alone.

The codec of a private fit, and the frequencies its network begins with, are fitted on this table and never on the
data. Of each column are counted: its values; of numbers also where they lie on a fixed lattice (eighths of a power of
two), how many lie in each bin between the ends that these tell, and of what step they are multiples. A row adds to one
count of each kind, so k kinds have a sensitivity of sqrt(k) together, and all counts get Gaussian noise of one size.
Values and lattice cells that nobody could name in advance are kept only if their noisy count is above a threshold that
a single row passes with a probability of less than delta / 10 (Korolova et al. 2009).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.types as pt
from scipy.stats import norm

from genai_core.errors import InvalidData
from genai_core.hyperparameters import Privacy
from genai_core.privacy.accounting import Mechanism, noise_for
from genai_core.tables.columns import PER_DAY, is_categorical, join_axes, keys_of, split_axes, values_of

STAND_IN_ROWS = 50_000
OF_DELTA = 0.1  # for thresholds; the rest is the accountant's
BINS = 128
EIGHTHS, LOWEST = 8, 1100  # cells of a power of two; below 2^-1100 there is none
MOST_DECIMALS = 5
FEW = 4.0  # standard deviations of the noise: fewer rows off a grid are noise
SPECIALS = ("missing", "nan", "positive_infinite", "negative_infinite")
SPECIAL_VALUES = {"nan": np.nan, "positive_infinite": np.inf, "negative_infinite": -np.inf}


@dataclass
class Count:
    """Exact counts of one axis of numbers, or of a category."""

    values: np.ndarray = field(default_factory=lambda: np.zeros(0))
    rows: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    specials: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SPECIALS, 0))
    categories: Counter[str] = field(default_factory=Counter)

    def add(self, values: np.ndarray) -> None:
        """Numbers that are none of the special ones."""
        new, rows = np.unique(values, return_counts=True)
        both = np.concatenate([self.values.astype(new.dtype), new])
        self.values, at = np.unique(both, return_inverse=True)
        self.rows = np.bincount(at, np.concatenate([self.rows, rows])).astype(np.int64)

    def add_keys(self, keys: pa.Array) -> None:
        """Values of a category, as strings."""
        self.specials["missing"] += keys.null_count
        for one in keys.drop_null().value_counts().to_pylist():
            self.categories[one["values"]] += one["counts"]


class Marginals:
    """Counts every column of a stream, then tells what noise lets be told."""

    def __init__(self, schema: pa.Schema) -> None:
        self.schema, self.rows = schema, 0
        self.counts = {f.name: [Count() for _ in range(_axes(f.type))] for f in schema}

    def update(self, batch: pa.RecordBatch | pa.Table) -> None:
        """Some more rows."""
        self.rows += batch.num_rows
        for name, counts in self.counts.items():
            column = batch.column(name)
            array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
            if is_categorical(array.type):
                counts[0].add_keys(keys_of(array))
            else:
                _count_numbers(array, counts)

    @property
    def kinds(self) -> int:
        """Kinds of counts to which a row adds one each."""
        return sum(_kinds(f.type) for f in self.schema)

    def stand_in(self, noise: _Noise) -> pa.Table:
        """A table of the schema. Raises InvalidData for a column of which nothing can be told."""
        rows = min(self.rows, STAND_IN_ROWS)
        random = np.random.default_rng(0)  # what is made from private counts needs no secret
        columns = []
        for f in self.schema:
            counts = self.counts[f.name]
            if is_categorical(f.type):
                column = _category(f, counts[0], noise, rows)
            else:
                grids = [_grids(f.type, number) for number in range(len(counts))]
                axes = [
                    _axis(count, f, steps, noise, rows, random)
                    for count, steps in zip(counts, grids, strict=True)
                ]
                column = _numbers(axes, f.type)
            columns.append(column.take(pa.array(random.permutation(rows))))
        return pa.Table.from_arrays(columns, schema=_nullable(self.schema))


class _Noise:
    """Gaussian noise of one size for all counts."""

    def __init__(self, size: float, thresholded: int, delta: float, random: np.random.Generator) -> None:
        self.size, self.random = size, random
        self.threshold = 1 + size * float(norm.isf(delta / max(thresholded, 1)))

    def __call__(self, counts: Any) -> np.ndarray:
        exact = np.asarray(counts, float)
        return exact + self.random.normal(0, self.size, exact.shape)


def private_table(
    batches: Iterable[pa.RecordBatch], schema: pa.Schema, settings: Privacy, random: np.random.Generator
) -> tuple[pa.Table, int, float, Mechanism, float]:
    """The stand-in of a stream, its number of rows, that from which a value is named, what it spent, the delta left."""
    found = Marginals(schema)
    for batch in batches:
        found.update(batch)
    if found.rows and settings.delta * found.rows > 1:
        raise InvalidData(
            f"fit.privacy.delta: {settings.delta:g} is more than one over the {found.rows:,} rows; make it far smaller"
        )
    left = settings.delta * (1 - OF_DELTA)
    multiplier = noise_for(settings.epsilon * settings.columns, left, 1.0, 1)
    size = multiplier * math.sqrt(max(found.kinds, 1))
    thresholded = sum(1 if is_categorical(f.type) else 2 * _axes(f.type) for f in schema)
    noise = _Noise(size, thresholded, settings.delta * OF_DELTA, random)
    spent = Mechanism(multiplier, 1.0, 1)
    return found.stand_in(noise), found.rows, noise.threshold, spent, left


# -- counting ----------------------------------------------------------------------------------------------------


def _axes(type_: pa.DataType) -> int:
    return 2 if pt.is_timestamp(type_) else 1


def _kinds(type_: pa.DataType) -> int:
    """Values; of each axis of numbers also lattice, bins and grids."""
    return 1 if is_categorical(type_) else 4 * _axes(type_)


def _grids(type_: pa.DataType, axis: int) -> list[float]:
    """Steps that values of an axis may be whole multiples of, large ones first."""
    if pt.is_floating(type_):
        return [10.0**-decimals for decimals in range(MOST_DECIMALS + 1)]
    if axis:  # the time of day
        second = PER_DAY[type_.unit] // 86_400
        return sorted({3600.0 * second, 60.0 * second, float(second), 1.0}, reverse=True)
    return [1000.0, 100.0, 10.0, 1.0]


def _count_numbers(array: pa.Array, counts: list[Count]) -> None:
    values, missing = split_axes(array)
    for count, axis in zip(counts, values, strict=True):
        count.specials["missing"] += int(missing.sum())
        own = axis[~missing]
        if own.dtype.kind == "f":
            own = own.astype(np.float64)
            count.specials["nan"] += int(np.isnan(own).sum())
            count.specials["positive_infinite"] += int(np.isposinf(own).sum())
            count.specials["negative_infinite"] += int(np.isneginf(own).sum())
            own = own[np.isfinite(own)]
        count.add(own)


def lattice(values: np.ndarray) -> np.ndarray:
    """int64 keys of cells that depend on nothing but the value: its sign, power of two, and eighth of it."""
    parts, powers = np.frexp(values.astype(np.float64))
    keys = (powers.astype(np.int64) + LOWEST) * EIGHTHS + np.floor(
        (np.abs(parts) - 0.5) * 2 * EIGHTHS
    ).astype(np.int64)
    return np.where(values == 0, 0, np.sign(parts).astype(np.int64) * keys)


def cell_of(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The inverse: the least and the greatest number of cells."""
    size = np.abs(keys)
    powers, eighths = size // EIGHTHS - LOWEST, size % EIGHTHS
    low = np.ldexp(0.5 + eighths / (2 * EIGHTHS), powers.astype(int))
    high = np.ldexp(0.5 + (eighths + 1) / (2 * EIGHTHS), powers.astype(int))
    none = keys == 0
    low, high = np.where(none, 0.0, low), np.where(none, 0.0, high)
    return np.where(keys < 0, -high, low), np.where(keys < 0, -low, high)


# -- telling -----------------------------------------------------------------------------------------------------


def _category(f: pa.Field, count: Count, noise: _Noise, rows: int) -> pa.Array:
    told = noise(list(count.categories.values()))
    kept = [(key, n) for key, n in zip(count.categories, told.tolist(), strict=True) if n > noise.threshold]
    missing = float(noise(count.specials["missing"]))
    missing = missing if missing > FEW * noise.size else 0.0
    if not kept and pt.is_null(f.type):
        return pa.nulls(rows, f.type)
    if not kept:
        raise InvalidData(
            f"fit.privacy: no value of {f.name!r} is in about {noise.threshold:,.0f} rows or more, so none can be "
            "named; leave the column out (modality.exclude), say how it is made (modality.made), or raise epsilon"
        )
    kept.sort()
    numbers = _shares([*(n for _, n in kept), missing], rows)
    index = np.repeat(np.arange(len(numbers)), numbers)
    values = values_of([key for key, _ in kept], f.type)
    found = values.take(pa.array(index, mask=index == len(kept)))
    return found.dictionary_encode().cast(f.type) if pt.is_dictionary(f.type) else found


@dataclass
class _Axis:
    values: np.ndarray  # (rows,), of special values 0
    special: np.ndarray  # (rows,) -1, or the place in SPECIALS


def _axis(
    count: Count,
    f: pa.Field,
    steps: list[float],
    noise: _Noise,
    rows: int,
    random: np.random.Generator,
) -> _Axis:
    """Rows of an axis by what can be told: frequent values exactly, others anywhere in their bin."""
    told = noise(count.rows)
    frequent = told > noise.threshold
    exact, of_exact = count.values[frequent], told[frequent]
    keys = lattice(count.values) if len(count.values) else np.zeros(0, np.int64)
    cells, at = np.unique(keys, return_inverse=True)
    of_cells = noise(np.bincount(at, count.rows, minlength=len(cells)))
    cells = cells[of_cells > noise.threshold]
    specials = [float(noise(count.specials[name])) for name in SPECIALS]
    specials = [n if n > FEW * noise.size else 0.0 for n in specials]
    if not pt.is_floating(f.type):
        specials[1:] = [0.0] * 3
    if not len(cells) and not len(exact) and not any(specials):
        raise InvalidData(
            f"fit.privacy: of {f.name!r} nothing can be told with so small an epsilon; leave it out "
            "(modality.exclude), or raise epsilon"
        )
    edges = _edges(cells)
    step = _step(count, steps, noise)
    rest = _rest(count, edges, noise, exact, of_exact)
    numbers = _shares([*of_exact.tolist(), *rest.tolist(), *specials], rows)
    several = np.repeat(np.arange(len(numbers)), numbers)
    values = np.zeros(rows, count.values.dtype if len(count.values) else np.float64)
    own = several < len(exact)
    values[own] = exact[several[own]]
    inside = (several >= len(exact)) & (several < len(exact) + len(rest))
    bins = several[inside] - len(exact)
    drawn = edges[bins] + random.random(len(bins)) * (edges[bins + 1] - edges[bins])
    values[inside] = drawn if step is None else _to_grid(drawn, step)
    special = np.where(several >= len(exact) + len(rest), several - len(exact) - len(rest), -1)
    return _Axis(values, special)


def _edges(cells: np.ndarray) -> np.ndarray:
    """Of bins: equally wide ones between the ends, and the lattice's own."""
    if not len(cells):
        return np.zeros(0)
    low, high = cell_of(cells)
    ends = (float(low.min()), float(high.max()))
    wide = np.linspace(*ends, BINS + 1)
    first, last = (int(lattice(np.array([end]))[0]) for end in ends)
    between = (
        np.arange(first, last + 1) if last - first <= 4 * BINS else np.concatenate([cells, [first, last]])
    )
    own = cell_of(between[(np.abs(between) >= EIGHTHS) | (between == 0)])[0]
    edges = np.unique(np.concatenate([wide, own]))
    return edges[(edges >= ends[0]) & (edges <= ends[1])]


def _rest(
    count: Count, edges: np.ndarray, noise: _Noise, exact: np.ndarray, of_exact: np.ndarray
) -> np.ndarray:
    """Rows of each bin beside those of the values that are told exactly."""
    if len(edges) < 2:
        return np.zeros(0)
    last = len(edges) - 2

    def binned(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
        inside = (values >= edges[0]) & (values <= edges[-1])
        at = np.clip(np.searchsorted(edges, values[inside], "right") - 1, 0, last)
        return np.bincount(at, rows[inside], minlength=last + 1)

    left = noise(binned(count.values, count.rows)) - binned(exact, of_exact)
    doubt = noise.size**2 * (1 + binned(exact, np.ones(len(exact))))
    return _merged(left, doubt, edges)


def _merged(left: np.ndarray, variance: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Neighbours together, from the left, until there are more rows than noise makes; spread over them by width."""
    found, start = np.zeros(len(left)), 0
    for end in range(1, len(left) + 1):
        rows = left[start:end].sum()
        if rows > FEW / 2 * math.sqrt(variance[start:end].sum()):
            widths = np.diff(edges[start : end + 1])
            found[start:end] = rows * widths / widths.sum()
            start = end
    return found


def _step(count: Count, steps: list[float], noise: _Noise) -> float | None:
    """The largest of the steps that nearly all values are multiples of; None where more than a few are of none."""
    coarsest = np.full(len(count.values), len(steps))
    for number, step in reversed(list(enumerate(steps))):
        coarsest[_to_grid(count.values, step) == count.values] = number
    told = noise(np.bincount(coarsest, count.rows, minlength=len(steps) + 1))
    for number, step in enumerate(steps):
        finer = told[number + 1 :]
        if finer.sum() <= FEW * noise.size * math.sqrt(len(finer)):
            return step
    return None


def _to_grid(values: np.ndarray, step: float) -> np.ndarray:
    """The nearest multiples, in the values' type; of fractions rounded as decimals are."""
    if step < 1:
        return values.round(-round(math.log10(step)))
    return (np.rint(values / step) * step).astype(values.dtype)


def _shares(weights: list[float], rows: int) -> np.ndarray:
    """Whole numbers in proportion to the weights, which add up to `rows`."""
    ends = np.rint(np.cumsum(weights) / sum(weights) * rows).astype(int)
    return np.diff(np.concatenate([[0], ends]))


def _numbers(axes: list[_Axis], type_: pa.DataType) -> pa.Array:
    values = [axis.values for axis in axes]
    first = axes[0].special
    if pt.is_floating(type_):
        values[0] = values[0].astype(np.float64)
        for name, value in SPECIAL_VALUES.items():
            values[0][first == SPECIALS.index(name)] = value
    if len(axes) > 1:  # the time of day of a row that has a day
        there = np.flatnonzero(axes[1].special < 0)
        values[1] = values[1][there[np.arange(len(values[1])) % len(there)]]
    return join_axes(values, first == 0, type_)


def _nullable(schema: pa.Schema) -> pa.Schema:
    return pa.schema([f.with_nullable(True) for f in schema], metadata=schema.metadata)


def told_of(facts: Mapping[str, Any]) -> str:
    """A guarantee in one line."""
    return f"epsilon {facts['epsilon']:g}, delta {facts['delta']:g}, of {facts['protects']}"
