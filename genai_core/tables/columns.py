"""One column of a table as one to four tokens, and back.

A number has one axis, a timestamp two (day, time of day), a category one token, or two (group, member) when there
are more than MAX_FLAT values. Missing and unseen values have tokens of their own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from genai_core.codec import whole
from genai_core.errors import InvalidData
from genai_core.spaces import Position
from genai_core.tables.axis import NumericAxis
from genai_core.tables.axis_fit import fit_axis
from genai_core.tables.rare import digest, is_rare, without_rare
from genai_core.tables.sketches import CategoricalSummary, NumericSummary

MAX_FLAT = 512  # categories with more values are split into groups, so that no softmax is wider
CATEGORY_SPECIALS = ("unseen", "missing", "rare")
PER_DAY = {"s": 86_400, "ms": 86_400_000, "us": 86_400_000_000, "ns": 86_400_000_000_000}
Arrays = dict[str, np.ndarray]


def is_numeric(type_: pa.DataType) -> bool:
    """Whether a column of this type has a value axis."""
    return (
        pt.is_integer(type_) or pt.is_floating(type_) or pt.is_decimal(type_) or pt.is_temporal(type_)
    ) and not pt.is_interval(type_)  # fmt: skip


def is_categorical(type_: pa.DataType) -> bool:
    """Whether a column of this type is read as unordered categories."""
    if pt.is_dictionary(type_):
        return is_categorical(type_.value_type) or is_numeric(type_.value_type)
    return (
        pt.is_boolean(type_)
        or pt.is_null(type_)
        or pt.is_string(type_)
        or pt.is_large_string(type_)
        or pt.is_string_view(type_)
        or _is_binary(type_)
    )


def _is_binary(type_: pa.DataType) -> bool:
    return (
        pt.is_binary(type_)
        or pt.is_large_binary(type_)
        or pt.is_fixed_size_binary(type_)
        or pt.is_binary_view(type_)
    )  # fmt: skip


def _is_view(type_: pa.DataType) -> bool:
    return pt.is_string_view(type_) or pt.is_binary_view(type_)


# -- Arrow <-> numpy -----------------------------------------------------------------------------------------


def split_axes(array: pa.Array) -> tuple[list[np.ndarray], np.ndarray]:
    """A numeric array as one or two numpy axes (nulls filled with 0), and the mask of nulls."""
    type_ = array.type
    missing = array.is_null().to_numpy(zero_copy_only=False)
    if pt.is_decimal(type_):
        return [_decimal_integers(array)], missing
    if pt.is_floating(type_):
        wide = array.cast(pa.float32()) if pt.is_float16(type_) else array
        return [wide.fill_null(0).to_numpy(zero_copy_only=False)], missing
    if pt.is_uint64(type_):
        unsigned = array.fill_null(0).to_numpy(zero_copy_only=False)
        return [(unsigned ^ np.uint64(2**63)).view(np.int64)], missing
    integers = _integers(array)
    if pt.is_timestamp(type_):
        return list(np.divmod(integers, PER_DAY[type_.unit])), missing
    return [integers // PER_DAY["ms"] if pt.is_date64(type_) else integers], missing


def _integers(array: pa.Array) -> np.ndarray:
    narrow = pt.is_date32(array.type) or pt.is_time32(array.type)
    plain = array.view(pa.int32()) if narrow else array
    if pt.is_temporal(plain.type):
        plain = plain.view(pa.int64())
    return plain.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)


def _decimal_integers(array: pa.Array) -> np.ndarray:
    try:
        wide = array.cast(pa.decimal128(38, array.type.scale)).fill_null(0)
    except pa.ArrowInvalid:
        raise InvalidData(
            f"a value of type {array.type} has more than 38 digits; exclude the column or cast it"
        ) from None
    words = np.frombuffer(wide.buffers()[1], np.int64)[2 * wide.offset : 2 * (wide.offset + len(wide))]
    low, high = words[::2], words[1::2]
    if not np.array_equal(high, low >> 63):
        raise InvalidData(
            f"a value of type {array.type} has more than 18 significant digits; "
            "exclude the column or cast it to double"
        )
    return low


def join_axes(axes: list[np.ndarray], missing: np.ndarray, type_: pa.DataType) -> pa.Array:
    """The inverse of `split_axes`."""
    values, mask = axes[0], missing
    if pt.is_floating(type_):
        return pa.array(values, pa.float64(), mask=mask).cast(type_, safe=False)
    if pt.is_decimal(type_):
        return _decimals(values.astype(np.int64), mask, type_)
    values = values.astype(np.int64)
    if pt.is_uint64(type_):
        return pa.array(values.view(np.uint64) ^ np.uint64(2**63), type_, mask=mask)
    if pt.is_timestamp(type_):
        values = values * PER_DAY[type_.unit] + axes[1].astype(np.int64)
    if pt.is_date64(type_):
        values = values * PER_DAY["ms"]
    if pt.is_integer(type_):
        return pa.array(values, pa.int64(), mask=mask).cast(type_)
    narrow = pt.is_date32(type_) or pt.is_time32(type_)
    return pa.array(values, pa.int64(), mask=mask).cast(pa.int32() if narrow else pa.int64()).view(type_)


def _decimals(values: np.ndarray, missing: np.ndarray, type_: pa.DataType) -> pa.Array:
    words = np.stack([values, values >> 63], 1)
    valid = pa.array(~missing).buffers()[1]
    wide = pa.Array.from_buffers(
        pa.decimal128(38, type_.scale), len(values), [valid, pa.py_buffer(words.tobytes())]
    )
    return wide.cast(type_)


def keys_of(array: pa.Array) -> pa.Array:
    """The values of a categorical array as strings; nulls stay null."""
    if pt.is_dictionary(array.type):
        array = array.dictionary_decode()
    if _is_binary(array.type):
        return pa.array([None if v is None else v.hex() for v in array.to_pylist()], pa.string())
    return array.cast(pa.string())


def values_of(keys: list[str], type_: pa.DataType) -> pa.Array:
    """The inverse of `keys_of`, for the value type of a dictionary too."""
    if pt.is_dictionary(type_):
        type_ = type_.value_type
    if _is_binary(type_):
        return pa.array([bytes.fromhex(k) for k in keys], pa.binary()).cast(type_)
    return pa.array(keys, pa.string()).cast(type_)


def take(array: pa.Array, index: pa.Array) -> pa.Array:
    """`array.take(index)`, for the views that Arrow cannot take from as well."""
    if not _is_view(array.type):
        return array.take(index)
    plain = pa.string() if pt.is_string_view(array.type) else pa.binary()
    return array.cast(plain).take(index).cast(array.type)


# -- column codecs -------------------------------------------------------------------------------------------


@dataclass(eq=False)
class NumericColumn:
    """A column with one or two numeric axes; four tokens at the most."""

    type: pa.DataType
    axes: list[NumericAxis]

    def positions(self, field: int, first_index: int) -> list[Position]:
        """What the tokens mean; the first has index `first_index` in the space."""
        found: list[Position] = []
        for number, axis in enumerate(self.axes):
            on_axis, pairs = axis.places_on_axis()
            at = first_index + len(found)
            found.append(
                Position(
                    axis.vocabulary,
                    field,
                    axis.drawable(),
                    on_axis,
                    parent=first_index if number else None,
                    allowed=self._with_day() if number else None,
                    off_axis=axis.off_axis(),
                )
            )
            if axis.ranks > 1:
                everything = np.ones(axis.ranks, bool)
                found.append(
                    Position(axis.ranks, field, everything, pairs, parent=at, allowed=axis.allowed())
                )
        return found

    def _with_day(self) -> np.ndarray:
        """A time of day is missing exactly when the day is."""
        day, time = self.axes
        table = np.ones((day.vocabulary, time.vocabulary), bool)
        table[:, time.special("missing")] = False
        table[day.special("missing")] = False
        table[day.special("missing"), time.special("missing")] = True
        return table

    def encode(self, array: pa.Array) -> tuple[list[np.ndarray], np.ndarray]:
        """Tokens, one array (rows,) a position, and the log measure (rows,)."""
        values, missing = split_axes(array)
        tokens: list[np.ndarray] = []
        log_measure = np.zeros(len(array), np.float32)
        for axis, axis_values in zip(self.axes, values, strict=True):
            first, second, measure = axis.encode(axis_values, missing)
            tokens += [first, second] if axis.ranks > 1 else [first]
            log_measure += measure
        return tokens, log_measure

    def decode(self, tokens: np.ndarray, random: np.random.Generator) -> pa.Array:
        """An Arrow array of `type` from tokens (rows, positions)."""
        values, at, first = [], 0, tokens[:, 0]
        for axis in self.axes:
            second = tokens[:, at + 1] if axis.ranks > 1 else np.zeros(len(tokens), np.int64)
            values.append(axis.decode(tokens[:, at], second, random.random(len(tokens))))
            at += 1 + (axis.ranks > 1)
        main = self.axes[0]
        if pt.is_floating(self.type):
            specials = {"nan": np.nan, "positive_infinite": np.inf, "negative_infinite": -np.inf}
            values[0] = values[0].astype(np.float64)
            for name, value in specials.items():
                values[0][first == main.special(name)] = value
        return join_axes(values, first == main.special("missing"), self.type)

    def state(self) -> tuple[dict[str, Any], Arrays]:
        """JSON-able settings and arrays."""
        states = [axis.state() for axis in self.axes]
        arrays = {
            f"{i}.{name}": value for i, (_, found) in enumerate(states) for name, value in found.items()
        }
        return {"kind": "numeric", "axes": [settings for settings, _ in states]}, arrays

    @classmethod
    def from_state(cls, type_: pa.DataType, settings: dict[str, Any], arrays: Arrays) -> NumericColumn:
        """The inverse of `state`."""
        axes = []
        for i, plain in enumerate(settings["axes"]):
            own: dict[str, Any] = {n.split(".", 1)[1]: v for n, v in arrays.items() if n.startswith(f"{i}.")}
            axes.append(NumericAxis(**plain, **own))
        return cls(type_, axes)


@dataclass(eq=False)
class CategoricalColumn:
    """A column of unordered values; `group` of them share a first token (1: each has its own)."""

    type: pa.DataType
    values: list[str]  # sorted keys
    group: int
    seen: tuple[bool, bool]  # unseen (rarer than the values kept), missing
    rare: tuple[str, ...] = ()  # digests of values that are known, but in too few rows to be drawn

    @property
    def groups(self) -> int:
        return math.ceil(len(self.values) / self.group)

    def special(self, name: str) -> int:
        """Token of a special value."""
        return self.groups + CATEGORY_SPECIALS.index(name)

    def positions(self, field: int, first_index: int) -> list[Position]:
        """What the tokens mean; the first has index `first_index` in the space."""
        size = self.groups + len(CATEGORY_SPECIALS) - (not self.rare)
        # "unseen" and "rare" have no value to write, so they are never drawn, however many rows had one
        drawable = np.array(([True] * self.groups + [False, self.seen[1], False])[:size])
        found = [Position(size, field, drawable)]
        if self.group > 1:
            table = np.zeros((size, self.group), bool)
            table[:, 0] = True
            table[: self.groups].reshape(-1)[: len(self.values)] = True
            found.append(
                Position(self.group, field, np.ones(self.group, bool), parent=first_index, allowed=table)
            )
        return found

    def encode(self, array: pa.Array) -> tuple[list[np.ndarray], np.ndarray]:
        """Tokens, one array (rows,) a position, and the log measure (rows,): 0, a counting measure."""
        keys = keys_of(array)
        found = pc.index_in(keys, value_set=pa.array(self.values, pa.string())).fill_null(-1)
        index = found.to_numpy(zero_copy_only=False)
        first = np.where(index >= 0, index // self.group, self.special("unseen"))
        first[is_rare(keys, index < 0, self.rare)] = self.special("rare")
        first[keys.is_null().to_numpy(zero_copy_only=False)] = self.special("missing")
        tokens = [first.astype(np.int16)]
        if self.group > 1:
            tokens.append(np.where(index >= 0, index % self.group, 0).astype(np.int16))
        return tokens, np.zeros(len(array), np.float32)

    def decode(self, tokens: np.ndarray, random: np.random.Generator) -> pa.Array:
        """An Arrow array of `type` from tokens (rows, positions)."""
        index = tokens[:, 0].astype(np.int64) * self.group + (tokens[:, 1] if self.group > 1 else 0)
        missing = tokens[:, 0] >= self.groups  # unseen and rare ones have no value either
        if pt.is_null(self.type) or not self.values:
            return pa.nulls(len(tokens), self.type)
        index = np.where(missing, 0, index)
        if pt.is_dictionary(self.type):
            codes = pa.array(index, pa.int64(), mask=missing).cast(self.type.index_type)
            return pa.DictionaryArray.from_arrays(
                codes, values_of(self.values, self.type), ordered=self.type.ordered
            )
        return take(values_of(self.values, self.type), pa.array(index, mask=missing))

    def state(self) -> tuple[dict[str, Any], Arrays]:
        """JSON-able settings and arrays (none)."""
        settings = {
            "kind": "categorical",
            "values": self.values,
            "group": self.group,
            "seen": list(self.seen),
            "rare": list(self.rare),
        }
        return settings, {}

    @classmethod
    def from_state(cls, type_: pa.DataType, settings: dict[str, Any], arrays: Arrays) -> CategoricalColumn:
        """The inverse of `state`."""
        group = whole(settings, "group", 1, 2**15 - 1)  # tokens are int16
        rare = tuple(settings.get("rare", ()))
        return cls(type_, settings["values"], group, tuple(settings["seen"]), rare)


Column = NumericColumn | CategoricalColumn
COLUMN_KINDS: dict[str, type[NumericColumn] | type[CategoricalColumn]] = {
    "numeric": NumericColumn,
    "categorical": CategoricalColumn,
}


class ColumnSummary:
    """What one streaming pass learns of a column; merges with another part's summary."""

    def __init__(self, type_: pa.DataType) -> None:
        self.type = type_
        self.categories = CategoricalSummary() if is_categorical(type_) else None
        axes = 0 if self.categories else 2 if pt.is_timestamp(type_) else 1
        self.axes = [NumericSummary(integral=not pt.is_floating(type_)) for _ in range(axes)]

    def update(self, array: pa.Array) -> None:
        """Add the rows of an array."""
        if self.categories:
            self.categories.update(keys_of(array))
            return
        values, missing = split_axes(array)
        for summary, axis in zip(self.axes, values, strict=True):
            summary.update(axis[~missing], int(missing.sum()))

    def merge(self, other: ColumnSummary) -> None:
        """Add what another part of the table held."""
        if self.categories and other.categories:
            self.categories.merge(other.categories)
        for mine, theirs in zip(self.axes, other.axes, strict=True):
            mine.merge(theirs)

    def column(self, max_categories: int, rare_below: int = 0, extremes: int = 0) -> Column:
        """The codec of the column; the settings are those of `TabularSettings`."""
        if not self.categories:
            return NumericColumn(self.type, [fit_axis(summary, extremes) for summary in self.axes])
        known = self.categories.counts(max_categories)
        counts = without_rare(known, self.categories.counted, rare_below)
        rare = tuple(sorted(digest(value) for value in known if value not in counts))
        values = sorted(counts)
        group = 1 if len(values) <= MAX_FLAT else math.ceil(len(values) ** 0.5)
        seen = (sum(known.values()) < self.categories.counted, self.categories.missing > 0)
        return CategoricalColumn(self.type, values, group, seen, rare)

    @property
    def kept_share(self) -> float:
        """Share of the non-missing values that `column(...)` with no limit can write again."""
        if not self.categories or not self.categories.counted:
            return 1.0
        return sum(self.categories.counts(2**31).values()) / self.categories.counted
