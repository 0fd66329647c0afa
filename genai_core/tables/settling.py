"""Makes the relations that rows keep true in them: targets are computed, or operands give way to what must stay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from genai_core.tables.columns import PER_DAY, NumericColumn, join_axes
from genai_core.tables.relations import NEAR, Related, Relation, array_of, numbers_of, tolerance

if TYPE_CHECKING:
    from genai_core.tables.columns import Column

PASSES = 3  # an operand that has given way may be one of another relation


@np.errstate(all="ignore")
def settled(
    related: Sequence[Related], table: pa.Table, tokens: np.ndarray, given: Mapping[int, np.ndarray]
) -> pa.Table:
    """The table with every relation that its rows keep (tokens) true in it.

    given  columns -> bool (rows,), cells that must stay: then an operand gives way that may be solved for
    """
    if not related:
        return table
    wanted = sorted({i for one in related for i in (one.field, *one.operands)})
    numbers = {i: numbers_of(table.column(i).combine_chunks()).copy() for i in wanted}
    touched = {one.field: one.decimals for one in related}
    fixed = {i: given.get(i, np.zeros(table.num_rows, bool)) for i in wanted}
    for _ in range(PASSES):
        moved = _computed_in_turn(related, numbers, tokens, fixed)
        if not moved:
            break
        for i, rows in moved.items():  # what follows from them is computed again
            fixed[i] = fixed[i] | rows
            touched.setdefault(i, next(one.decimals for one in related if i in one.operands))
    for i, decimals in touched.items():
        field = table.schema.field(i)
        new = array_of(_within(numbers[i], field.type), field.type, decimals)
        table = table.set_column(i, field, _unchanged_nulls(table.column(i), new))
    return table


def _computed_in_turn(
    related: Sequence[Related],
    numbers: dict[int, np.ndarray],
    tokens: np.ndarray,
    fixed: Mapping[int, np.ndarray],
) -> dict[int, np.ndarray]:
    """Columns from their operands, in the order in which they build upon each other; which operands gave way, where."""
    before = dict(numbers)
    for one in related:
        kept = one.declared(tokens[:, one.position], numbers)
        values = one.computed(numbers, kept)
        free = ~np.isnan(values) & ~fixed[one.field]
        numbers[one.field] = np.where(free, values, numbers[one.field])
        for number, relation in enumerate(one.relations, 1):
            for i in relation.operands:
                numbers[i] = numbers[i].copy()
            _give_way(one, relation, numbers, (kept == number) & fixed[one.field], fixed)
    targets = {one.field for one in related}
    changed = {
        i: (numbers[i] != before[i]) & ~(np.isnan(numbers[i]) & np.isnan(before[i]))
        for i in numbers
        if i not in targets
    }
    return {i: rows for i, rows in changed.items() if rows.any()}


def _give_way(
    one: Related,
    relation: Relation,
    numbers: dict[int, np.ndarray],
    rows: np.ndarray,
    given: Mapping[int, np.ndarray],
) -> None:
    """Solve for operands that are free, where the target must stay as it is.

    The last one of factor 1 or -1 is what the others leave. Where that is beyond what its column holds, others move as
    little as they must; rows in which nothing fits stay as they are. Of products and quotients one operand becomes the
    nearest that its column can hold.
    """
    if not rows.any():
        return
    divided = relation.kind in ("product", "quotient")
    if relation.kind == "clipped":
        rows = rows & (numbers[relation.target] > 0)
    able = [i for i, f in zip(relation.operands, relation.factors, strict=True) if abs(f) == 1]
    free = {
        i: rows & ~given.get(i, np.zeros(len(rows), bool)) & ~np.isnan(numbers[i]) for i in relation.operands
    }
    # the last operand of a product may stand at its end and the one before it make up for that
    for last, to_end in [
        *((i, False) for i in reversed(able)),
        *((i, divided) for i in reversed(able) if divided),
    ]:
        at = np.flatnonzero(free[last])
        own = {i: numbers[i][at] for i in (relation.target, *relation.operands)}
        low, high = ends_of(one.columns[last])
        if len(one.columns[last].axes[0].edges):  # type: ignore[union-attr]
            high += high - low  # a column of so many values that not all have been seen may hold larger ones
        for other in relation.operands if not divided else ():
            moved = _moved(one, relation, own, last, other, low, high)
            own[other] = np.where(free[other][at] & (other != last), moved, own[other])
        own[last] = relation.solved(last, own)
        if divided:
            decimals = 0 if pt.is_integer(one.columns[last].type) else one.decimals
            own[last] = own[last] if decimals is None else own[last].round(decimals)
        inside = np.clip(own[last], low, high)
        fits = np.abs(own[last] - inside) <= tolerance(own[relation.target], one.decimals)  # sums of floats
        own[last] = inside
        for i in relation.operands:
            numbers[i][at[fits | to_end]] = own[i][fits | to_end]
        solved = np.zeros(len(rows), bool)
        solved[at[fits]] = True
        free = {i: there & ~solved for i, there in free.items()}


def _moved(
    one: Related,
    relation: Relation,
    numbers: Mapping[int, np.ndarray],
    last: int,
    other: int,
    low: float,
    high: float,
) -> np.ndarray:
    """`other` moved by no more than it takes for `last` to lie between low and high, inside its own column's ends."""
    factors = dict(zip(relation.operands, relation.factors, strict=True))
    pull = factors[last] * factors[other]
    solved = relation.solved(last, numbers)
    ends = np.stack([(solved - high) / pull, (solved - low) / pull])
    least, most = ends.min(0), ends.max(0)
    decimals = 0 if pt.is_integer(one.columns[other].type) else one.decimals
    if decimals is not None:
        unit = 10.0**-decimals
        least, most = np.ceil(least / unit - NEAR) * unit, np.floor(most / unit + NEAR) * unit
    return np.clip(numbers[other] + np.clip(0.0, least, most), *ends_of(one.columns[other]))


def ends_of(column: Column) -> tuple[float, float]:
    """The least and the greatest number that is drawn of a column."""
    assert isinstance(column, NumericColumn)
    values = [column.axes[0].ends()]
    if len(column.axes) > 1:
        values.append(np.array([0, PER_DAY[column.type.unit] - 1]))
    low, high = numbers_of(join_axes(values, np.zeros(2, bool), column.type))
    return float(low), float(high)


def _within(values: np.ndarray, type_: pa.DataType) -> np.ndarray:
    """What a column of whole numbers cannot hold becomes the nearest that it can."""
    if not pt.is_integer(type_):
        return values
    low, high = np.iinfo(type_.to_pandas_dtype()).min, np.iinfo(type_.to_pandas_dtype()).max
    return np.clip(values, low, high)


def _unchanged_nulls(before: pa.ChunkedArray, new: pa.Array) -> pa.Array:
    """NaN and infinite values of floats are no numbers here: they stay what they were."""
    old = before.combine_chunks()
    if not pt.is_floating(old.type):
        return new
    import pyarrow.compute as pc

    return pc.if_else(pc.is_valid(new), new, old)
