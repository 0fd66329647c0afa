"""Relations between columns that hold exactly, in all rows or in some: `balance_2 = balance_1 - payment_1 + bought_1`.

A column with relations has one more token: which of them a row keeps, or none. Where it keeps one and the operands are
known, the column's own tokens follow from it: they cost nothing in the likelihood, and the value that is written is
computed. So a sum holds in every row that says so, and a row that breaks one that always holds is an anomaly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from genai_core.tables.columns import PER_DAY, NumericColumn, join_axes, split_axes

if TYPE_CHECKING:
    from genai_core.tables.columns import Column

SECONDS = 86_400
MOST_DECIMALS = 6
NEAR = 1e-9  # relative: of numbers that have no last decimal
KINDS = ("sum", "clipped", "product", "quotient")


@dataclass(frozen=True)
class Relation:
    """target = sum of factor x operand (clipped: at least 0), the product of the operands, or the quotient of two.

    target, operands  column numbers
    share             of the rows with all values in which it holds
    decimals          of the target's numbers, see `decimals_of`
    """

    target: int
    operands: tuple[int, ...]
    factors: tuple[float, ...]
    constant: float = 0.0
    kind: str = "sum"
    share: float = 1.0
    decimals: int | None = 0
    declared: bool = False

    def value(self, numbers: Mapping[int, np.ndarray]) -> np.ndarray:
        """What the target is, float64 (rows,)."""
        parts = [numbers[i] for i in self.operands]
        if self.kind == "product":
            return np.multiply.reduce(parts)
        if self.kind == "quotient":
            return parts[0] / parts[1]
        found = sum(
            (f * p for f, p in zip(self.factors, parts, strict=True)), np.full(len(parts[0]), self.constant)
        )
        return np.maximum(found, 0) if self.kind == "clipped" else found

    def solved(self, operand: int, numbers: Mapping[int, np.ndarray]) -> np.ndarray:
        """What an operand (of sums one of factor 1 or -1) must be for the target to be what it is."""
        if self.kind in ("product", "quotient"):
            return self._divided(operand, numbers)
        factor = self.factors[self.operands.index(operand)]
        rest = replace(self, kind="sum").value({**numbers, operand: np.zeros_like(numbers[operand])})
        return factor * (numbers[self.target] - rest)

    @np.errstate(all="ignore")
    def _divided(self, operand: int, numbers: Mapping[int, np.ndarray]) -> np.ndarray:
        goal, first = numbers[self.target], self.operands[0]
        if self.kind == "quotient":
            other = numbers[self.operands[1]]
            found = goal * other if operand == first else numbers[first] / goal
        else:
            found = goal / np.multiply.reduce([numbers[i] for i in self.operands if i != operand])
        return np.where(np.isfinite(found), found, numbers[operand])

    def text(self, names: Sequence[str]) -> str:
        """As people write it."""
        of = [names[i] for i in self.operands]
        if self.kind in ("product", "quotient"):
            return f"{names[self.target]} = {(' * ' if self.kind == 'product' else ' / ').join(of)}"
        words = ""
        for factor, name in zip(self.factors, of, strict=True):
            sign = "- " if factor < 0 else "+ " if words else ""
            words += f"{' ' if words else ''}{sign}{'' if abs(factor) == 1 else f'{abs(factor):g} '}{name}"
        if self.constant:
            words += f" {'-' if self.constant < 0 else '+'} {abs(self.constant):g}"
        return f"{names[self.target]} = {f'max(0, {words})' if self.kind == 'clipped' else words}"

    def moved(self, target: int, operands: Sequence[int]) -> Relation:
        """The same between other columns."""
        return replace(self, target=target, operands=tuple(operands))

    def state(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)

    @classmethod
    def from_state(cls, found: Mapping[str, Any], columns: Sequence[Column]) -> Relation:
        """The inverse of `state`. Raises ValueError."""
        made = cls(
            int(found["target"]),
            tuple(map(int, found["operands"])),
            tuple(map(float, found["factors"])),
            float(found["constant"]),
            str(found["kind"]),
            float(found["share"]),
            None if found["decimals"] is None else int(found["decimals"]),
            found.get("declared", False) is True,
        )
        numbers = [made.target, *made.operands]
        whole = len(set(numbers)) == len(numbers) and all(
            0 <= i < len(columns) and isinstance(columns[i], NumericColumn) for i in numbers
        )
        if (
            not whole
            or made.kind not in KINDS
            or len(made.factors) != len(made.operands)
            or not made.operands
        ):
            raise ValueError(f"a relation between columns is damaged: {dict(found)}")
        return made


# -- numbers -------------------------------------------------------------------------------------------------


def has_numbers(type_: pa.DataType) -> bool:
    """Whether relations are looked for in columns of this type."""
    small = pt.is_integer(type_) and not pt.is_uint64(type_)
    return (
        small or pt.is_floating(type_) or pt.is_decimal(type_) or pt.is_timestamp(type_) or pt.is_date(type_)
    )


def numbers_of(array: pa.Array) -> np.ndarray:
    """float64 (rows,): numbers as they are, times in seconds; NaN where there is none."""
    axes, missing = split_axes(array)
    type_ = array.type
    values = axes[0].astype(np.float64)
    if pt.is_decimal(type_):
        values = values / 10.0**type_.scale
    elif pt.is_timestamp(type_):
        values = values * SECONDS + axes[1] / (PER_DAY[type_.unit] / SECONDS)
    elif pt.is_date(type_):
        values = values * SECONDS
    return np.where(missing | ~np.isfinite(values), np.nan, values)


def array_of(values: np.ndarray, type_: pa.DataType, decimals: int | None) -> pa.Array:
    """The inverse; NaN becomes null. decimals: of floats, None for as many as there are."""
    missing = np.isnan(values)
    values = np.where(missing, 0.0, values)
    if pt.is_floating(type_):
        return join_axes([values if decimals is None else values.round(decimals)], missing, type_)
    if pt.is_decimal(type_):
        values = values * 10.0**type_.scale
    elif pt.is_date(type_):
        values = values / SECONDS
    elif pt.is_timestamp(type_):
        days = np.floor(values / SECONDS)
        rest = np.rint((values - days * SECONDS) * (PER_DAY[type_.unit] / SECONDS))
        return join_axes([days, rest], missing, type_)
    return join_axes([np.rint(values)], missing, type_)


def decimals_of(values: np.ndarray, type_: pa.DataType) -> int | None:
    """Decimals of all the values; None where there is no last one."""
    if not pt.is_floating(type_):
        return type_.scale if pt.is_decimal(type_) else 0
    values = values[np.isfinite(values) & (np.abs(values) < 2**52)]
    for decimals in range(MOST_DECIMALS + 1):
        if np.array_equal(values, values.round(decimals)):
            return decimals
    return None


def tolerance(values: np.ndarray, decimals: int | None) -> np.ndarray:
    """How far a value may be from what a relation says: half of its last decimal."""
    if decimals is None:
        return np.abs(values) * NEAR
    return np.full(np.shape(values), 0.5000001 * 10.0**-decimals)


# -- in a codec ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Related:
    """The relations of one column in the tokens of a table; what a `genai_core.spaces.Implied` is asked for.

    field     the column
    position  its token that says which relation a row keeps, counted from 1; 0: none
    own       its other positions, whose tokens follow
    operands  columns that have to be known before they do
    decimals  of the column's numbers
    """

    field: int
    position: int
    own: tuple[int, ...]
    operands: tuple[int, ...]
    relations: tuple[Relation, ...]
    decimals: int | None
    columns: Sequence[Column]
    positions: Mapping[int, Sequence[int]]  # of the operands, those that hold their values

    @np.errstate(all="ignore")
    def kept(self, numbers: Mapping[int, np.ndarray]) -> np.ndarray:
        """Tokens (rows,): the first of the relations that each row keeps."""
        target = numbers[self.field]
        found = np.zeros(len(target), np.int16)
        for number, relation in enumerate(self.relations, 1):
            holds = np.abs(relation.value(numbers) - target) <= tolerance(target, self.decimals)
            found[holds & (found == 0)] = number
        return found

    def tokens(self, x: np.ndarray) -> np.ndarray:
        """The own tokens (rows, own positions) of records that keep a relation, -1 of others; of a cell, the middle."""
        numbers = {i: numbers_of(self._decoded(i, x)) for i in self.operands}
        values = self.computed(numbers, x[:, self.position])
        column = self.columns[self.field]
        found = np.stack(column.encode(array_of(values, column.type, self.decimals))[0], 1).astype(np.int64)
        return np.where(np.isnan(values)[:, None], -1, found)

    def _decoded(self, i: int, x: np.ndarray) -> pa.Array:
        return self.columns[i].decode(x[:, list(self.positions[i])], Middle())  # type: ignore[arg-type]

    @np.errstate(all="ignore")
    def computed(self, numbers: Mapping[int, np.ndarray], kept: np.ndarray) -> np.ndarray:
        """What the column is in rows that keep a relation; NaN in others."""
        values = np.full(len(kept), np.nan)
        for number, relation in enumerate(self.relations, 1):
            rows = kept == number
            if rows.any():
                values[rows] = relation.value({i: numbers[i][rows] for i in relation.operands})
        values[~np.isfinite(values)] = np.nan  # divided by zero
        if self.decimals is None or pt.is_temporal(self.columns[self.field].type):
            return values
        return values.round(self.decimals)  # as it is written

    def declared(self, kept: np.ndarray, numbers: Mapping[int, np.ndarray]) -> np.ndarray:
        """Which relation rows keep, where a declared one leaves no choice: rows that have all of its values."""
        for number, relation in enumerate(self.relations, 1):
            if relation.declared:
                there = np.isfinite([numbers[i] for i in (self.field, *relation.operands)]).all(0)
                return np.where(there, number, kept)
        return kept


class Middle:
    """In place of a random generator: always the middle."""

    def random(self, rows: int) -> np.ndarray:
        """(rows,) halves."""
        return np.full(rows, 0.5)
