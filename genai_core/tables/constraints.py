"""What every drawn row keeps because the job declares it, or because times of the data are always in one order.

Rows are drawn first; the few that break a constraint are mended, not thrown away: values that stand in the wrong order
change places, a value beyond its range becomes the end, a combination that never occurs becomes one that does, with
its first columns kept. Formulae are relations (see `genai_core.tables.relations`) that a row cannot choose not to keep.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from genai_core.splits import uniform_of
from genai_core.tables.columns import PER_DAY, NumericColumn, join_axes, split_axes
from genai_core.tables.relations import Relation, numbers_of, tolerance

if TYPE_CHECKING:
    from genai_core.tables.columns import Column

Cells = Mapping[str, np.ndarray]  # column -> bool (rows,)
PASSES = 3  # constraints and relations mend each other's columns


class Kept(Protocol):
    """A constraint on the columns of a table."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Their names."""
        ...

    @property
    def text(self) -> str:
        """As people write it."""
        ...

    def broken(self, table: pa.Table) -> np.ndarray:
        """Bool (rows,): which rows do not keep it; missing values break nothing."""
        ...

    def mend(self, table: pa.Table, fixed: Cells, uniform: np.ndarray, again: bool = False) -> pa.Table:
        """The table with its rows mended, cells that are fixed untouched.

        uniform  (rows,) in [0, 1)
        again    another constraint has undone it: mend otherwise, where that can be
        """
        ...


@dataclass(frozen=True, eq=False)
class Order:
    """None of the columns is greater than the next. units: of the columns, the least difference; 0: the next float."""

    columns: tuple[str, ...]
    strict: bool = False
    units: tuple[float, ...] = ()

    @property
    def text(self) -> str:
        return (" < " if self.strict else " <= ").join(self.columns)

    def broken(self, table: pa.Table) -> np.ndarray:
        found = np.zeros(table.num_rows, bool)
        wrong = pc.less_equal if self.strict else pc.less
        for i, j in self._pairs():
            found |= _true(wrong(table[self.columns[j]], table[self.columns[i]]))
        return found

    def mend(self, table: pa.Table, fixed: Cells, uniform: np.ndarray, again: bool = False) -> pa.Table:
        rows = np.flatnonzero(self.broken(table))
        types = [table.schema.field(name).type for name in self.columns]
        plain = len(set(types)) > 1
        arrays = [table[name].combine_chunks().take(pa.array(rows)) for name in self.columns]
        values = [numbers_of(a) if plain else whole_of(a) for a in arrays]
        there = [a.is_valid().to_numpy(zero_copy_only=False) for a in arrays]
        free = [~fixed.get(name, np.zeros(table.num_rows, bool))[rows] for name in self.columns]
        values = [v.copy() for v in values]
        self._in_order(values, there, free, [pt.is_integer(t) and plain for t in types])
        if self.strict:
            self._apart(values, there, free, again)
        for name, type_, own, present in zip(self.columns, types, values, there, strict=True):
            table = _put(table, name, rows, array_from(own, ~present, type_))
        return table

    def _in_order(
        self,
        values: list[np.ndarray],
        there: list[np.ndarray],
        free: list[np.ndarray],
        whole: Sequence[bool],
    ) -> None:
        """Values that are free change places; beside one that is not they become as great as it is."""
        for i, j in self._pairs() * (len(values) - 1):
            wrong = there[i] & there[j] & (values[i] > values[j])
            low, high = values[j].copy(), values[i].copy()
            low = np.floor(low) if whole[i] else low  # beside floats
            high = np.ceil(high) if whole[j] else high
            values[j][wrong & free[j]] = high[wrong & free[j]]
            values[i][wrong & free[i]] = low[wrong & free[i]]

    def _pairs(self) -> list[tuple[int, int]]:
        return [(i, j) for j in range(1, len(self.columns)) for i in range(j)]

    def _apart(
        self, values: list[np.ndarray], there: list[np.ndarray], free: list[np.ndarray], down: bool
    ) -> None:
        """Equal values a unit apart: upwards, and where that cannot be downwards; or the other way round."""
        for falling in (down, not down):
            for i, j in reversed(self._pairs()) if falling else self._pairs():
                moves = free[i] if falling else free[j]
                close = there[i] & there[j] & (values[j] <= values[i]) & moves
                if falling:
                    values[i][close] = _beyond(values[j], self.units[i], -1)[close]
                else:
                    values[j][close] = _beyond(values[i], self.units[j], 1)[close]


def _beyond(values: np.ndarray, unit: float, sign: int) -> np.ndarray:
    if unit:
        return values + np.asarray(sign * unit).astype(values.dtype)
    return np.nextafter(values, sign * np.inf)


@dataclass(frozen=True, eq=False)
class Range:
    """A column between two values; a bound that is null is none."""

    columns: tuple[str, ...]
    ends: pa.Array  # (2,) of the column's type

    @property
    def text(self) -> str:
        low, high = (_word(end) for end in self.ends)
        if low is None or high is None:
            return f"{self.columns[0]} <= {high}" if low is None else f"{self.columns[0]} >= {low}"
        return f"{low} <= {self.columns[0]} <= {high}"

    def broken(self, table: pa.Table) -> np.ndarray:
        column = table[self.columns[0]]
        below, above = pc.less(column, self.ends[0]), pc.greater(column, self.ends[1])
        return _true(below) | _true(above)

    def mend(self, table: pa.Table, fixed: Cells, uniform: np.ndarray, again: bool = False) -> pa.Table:
        (name,) = self.columns
        wrong = self.broken(table) & ~fixed.get(name, np.zeros(table.num_rows, bool))
        rows = np.flatnonzero(wrong)
        own = table[name].combine_chunks().take(pa.array(rows))
        low = pc.fill_null(pc.less(own, self.ends[0]), False)
        return _put(table, name, rows, pc.if_else(low, self.ends[0], self.ends[1]))


@dataclass(frozen=True, eq=False)
class Formula:
    """A declared relation, which `genai_core.tables.relations` keeps."""

    columns: tuple[str, ...]  # the target first, then the operands
    relation: Relation  # its column numbers are places in `columns`

    @property
    def text(self) -> str:
        return self.relation.text(self.columns)

    @np.errstate(all="ignore")
    def broken(self, table: pa.Table) -> np.ndarray:
        numbers = {i: numbers_of(table[name].combine_chunks()) for i, name in enumerate(self.columns)}
        wanted, found = self.relation.value(numbers), numbers[0]
        off: np.ndarray = np.abs(wanted - found) > tolerance(found, self.relation.decimals)
        return off

    def mend(self, table: pa.Table, fixed: Cells, uniform: np.ndarray, again: bool = False) -> pa.Table:
        return table


@dataclass(frozen=True, eq=False)
class Unique:
    """No two rows have the same values: one of the columns is made so."""

    columns: tuple[str, ...]

    @property
    def text(self) -> str:
        return f"unique ({', '.join(self.columns)})"

    def broken(self, table: pa.Table) -> np.ndarray:
        codes = [
            _plain(table[name]).combine_chunks().dictionary_encode().indices.fill_null(-1)
            for name in self.columns
        ]
        keys = np.stack([c.to_numpy(zero_copy_only=False) for c in codes], 1)
        again = np.ones(len(keys), bool)
        if len(keys):
            again[np.unique(keys, axis=0, return_index=True)[1]] = False
        return again

    def mend(self, table: pa.Table, fixed: Cells, uniform: np.ndarray, again: bool = False) -> pa.Table:
        return table


# -- keeping -------------------------------------------------------------------------------------------------


def keep(
    constraints: Sequence[Kept],
    table: pa.Table,
    fixed: Cells,
    tokens: np.ndarray,
    settle: Callable[[pa.Table, Cells], pa.Table],
) -> pa.Table:
    """The table with its rows mended.

    tokens  (rows, positions): what is chosen at random depends on a row's own, so that no other row matters
    settle  makes relations true again, with some cells fixed

    A constraint comes before a relation that was found in the data: where both cannot be kept, the relation gives way.
    """
    own = [one for one in constraints if all(name in table.column_names for name in one.columns)]
    uniform = _uniform(tokens)
    for number in range(PASSES + 1):
        if not any(one.broken(table).any() for one in own):
            return table
        before = table
        for one in own:
            table = one.mend(table, fixed, uniform, number % 2 > 0)
        moved = {
            name: fixed.get(name, np.zeros(table.num_rows, bool)) | ~_same(before[name], table[name])
            for name in sorted({name for one in own for name in one.columns})
        }
        table = settle(table, {**fixed, **moved}) if number < PASSES else table
    return table


def _uniform(tokens: np.ndarray) -> np.ndarray:
    factors = np.random.default_rng(0).integers(1, 2**63, tokens.shape[1], np.uint64) | np.uint64(1)
    with np.errstate(over="ignore"):
        return uniform_of((tokens.astype(np.uint64) * factors).sum(1, dtype=np.uint64), 0)


def broken(constraints: Sequence[Kept], table: pa.Table) -> dict[str, int]:
    """How many rows of a table break each constraint of whose columns it has all."""
    there = [one for one in constraints if all(name in table.column_names for name in one.columns)]
    return {one.text: int(one.broken(table).sum()) for one in there}


# -- values --------------------------------------------------------------------------------------------------


def whole_of(array: pa.Array) -> np.ndarray:
    """int64 (rows,) of whole numbers, decimals and times, float64 of floats; exact, in the type's own unit."""
    axes, _ = split_axes(array)
    if pt.is_timestamp(array.type):
        return axes[0] * PER_DAY[array.type.unit] + axes[1]
    return axes[0].astype(np.float64) if pt.is_floating(array.type) else axes[0].astype(np.int64)


def array_from(values: np.ndarray, missing: np.ndarray, type_: pa.DataType) -> pa.Array:
    """The inverse."""
    values = np.where(missing, 0, values)
    if pt.is_timestamp(type_):
        return join_axes(list(np.divmod(values, PER_DAY[type_.unit])), missing, type_)
    return join_axes([values], missing, type_)


def unit_of(column: Column) -> float:
    """The least difference of a column's values, in its type's own unit; 0: of floats without a grid."""
    assert isinstance(column, NumericColumn)
    axis = column.axes[-1]
    return axis.step / 10.0**axis.decimals if axis.gridded else 0.0


def _true(found: pa.Array | pa.ChunkedArray) -> np.ndarray:
    mask: np.ndarray = pc.fill_null(found, False).to_numpy(zero_copy_only=False).astype(bool)
    return mask


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(column.type.value_type) if pt.is_dictionary(column.type) else column


def _same(before: pa.ChunkedArray, after: pa.ChunkedArray) -> np.ndarray:
    if before is after:
        return np.ones(len(before), bool)
    equal = _true(pc.equal(_plain(before), _plain(after)))
    nulls = _true(pc.and_(before.is_null(), after.is_null()))
    return equal | nulls


def _put(table: pa.Table, name: str, rows: np.ndarray, values: pa.Array) -> pa.Table:
    """The table with some cells of a column replaced."""
    if not len(rows):
        return table
    mask = np.zeros(table.num_rows, bool)
    mask[rows] = True
    column = _plain(table[name]).combine_chunks()
    new = pc.replace_with_mask(column, pa.array(mask), _plain_array(values))
    field = table.schema.field(name)
    if pt.is_dictionary(field.type):
        new = new.dictionary_encode().cast(field.type)
    return table.set_column(table.column_names.index(name), field, new)


def _plain_array(values: Any) -> pa.Array:
    return values.dictionary_decode() if pt.is_dictionary(values.type) else values


def _word(end: pa.Scalar) -> str | None:
    return None if not end.is_valid else str(end.as_py())
