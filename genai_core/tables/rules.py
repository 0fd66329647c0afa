"""What is asked of one column of sampled rows: some values, a range, all but some values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from genai_core.errors import InvalidInput, nearest
from genai_core.tables.columns import NumericColumn, split_axes, take
from genai_core.tables.ranges import AxisRange, Placing

if TYPE_CHECKING:  # checking a job file must not import torch
    from genai_core.modalities.tabular import TabularCodec
    from genai_core.model import Condition

WORDS = ("max", "min", "missing", "not")
Tables = list[np.ndarray]


class Rule:
    """What is asked of one column. Raises InvalidInput."""

    keyword = "where"
    fixes = True  # the values that it writes stay; other columns give way where relations ask for it

    def __init__(self, codec: TabularCodec, name: str) -> None:
        names = codec.schema.names
        if name not in names:
            raise InvalidInput(
                f"{self.keyword} names {name!r}, which is no column of the model{nearest(name, names)}"
            )
        self.codec, self.name, self.field = codec, name, names.index(name)
        self.type, self.column = codec.schema.field(name).type, codec.columns[self.field]
        self.positions = codec.space.values_of(self.field)

    @property
    def place(self) -> str:
        """Where in a job file this stands."""
        return f"{self.keyword}.{self.name}"

    def tables(self) -> Tables:
        """Log-weights of the tokens of each position: see `genai_core.model.Condition`."""
        raise NotImplementedError

    @property
    def condition(self) -> Condition:
        """For the sampler."""
        import torch

        from genai_core.model import Condition

        return Condition(self.field, [torch.from_numpy(table) for table in self.tables()])

    def write(self, table: pa.Table, tokens: np.ndarray, random: np.random.Generator) -> pa.Array:
        """The column as it shall be; tokens (rows, positions of the field)."""
        return table.column(self.field)

    def fulfilled(self, array: pa.Array) -> np.ndarray | None:
        """Bool (rows,): which values are such as is asked for; None: they must be the ones that were written."""
        return None

    def blank(self, fill: float) -> Tables:
        """Tables that allow everything (0) or nothing (-inf)."""
        space, tables = self.codec.space, []
        for i in self.positions:
            position = space.positions[i]
            above = [] if position.parent is None else [space.positions[position.parent].vocabulary]
            tables.append(np.full([*above, position.vocabulary], fill, np.float32))
        return tables

    def values(self, found: Sequence[Any]) -> pa.Array:
        """YAML's values as an array of the column's type."""
        try:
            return as_type(list(found), self.type)
        except (
            pa.ArrowInvalid,
            pa.ArrowTypeError,
            pa.ArrowNotImplementedError,
            OverflowError,
            ValueError,
        ) as error:
            raise InvalidInput(
                f"{self.place}: {list(found)!r} cannot be read as {self.type} ({error})"
            ) from None

    def tokens_of(self, array: pa.Array) -> np.ndarray:
        """Tokens (values, positions of the field)."""
        empty = {f.name: pa.nulls(len(array), f.type) for f in self.codec.schema}
        table = pa.table({**empty, self.name: array}, schema=_nullable(self.codec.schema))
        return self.codec.encode(table).tokens[:, self.positions]

    def drawable(self, tokens: np.ndarray) -> np.ndarray:
        """(values,) bool: whether the model can draw each."""
        fine: np.ndarray = self.codec.space.positions[self.positions[0]].drawable[tokens[:, 0]]
        return fine

    def encoded(self, array: pa.Array) -> np.ndarray:
        """The same of values which must all be ones that the model can draw."""
        tokens = self.tokens_of(array)
        for value, fine in zip(array.to_pylist(), self.drawable(tokens).tolist(), strict=True):
            if not fine:
                raise InvalidInput(
                    f"{self.place}: the training data holds no {value!r}, or too few rows with it, so none can be drawn"
                )
        return tokens

    def open_up(self, tables: Tables, tokens: np.ndarray, fill: float = 0.0) -> None:
        """Set the weights of these tokens (values, positions of the field)."""
        for k, i in enumerate(self.positions):
            parent = self.codec.space.positions[i].parent
            index = (
                (tokens[:, k],) if parent is None else (tokens[:, self.positions.index(parent)], tokens[:, k])
            )
            tables[k][index] = fill

    def special(self, name: str) -> int:
        """First token of a special value."""
        numeric = isinstance(self.column, NumericColumn)
        return self.column.axes[0].special(name) if numeric else self.column.special(name)

    def refuse_nothing(self, tables: Tables) -> None:
        """InvalidInput when no token is left to be drawn."""
        drawable = self.codec.space.positions[self.positions[0]].drawable
        if not (np.isfinite(tables[0]) & drawable).any():
            raise InvalidInput(f"{self.place}: no value that this model can draw fulfils it")

    def leave_out(self, tables: Tables, tokens: np.ndarray, values: Sequence[Any]) -> None:
        """Never draw these values; each must have tokens of its own."""
        if isinstance(self.column, NumericColumn):
            axis = self.column.axes[0]
            special = tokens[:, 0] >= axis.places
            own = np.isin(tokens[:, 0], axis.atom_token) | special
            if (len(self.column.axes) > 1 and not special.all()) or not own.all():
                raise InvalidInput(
                    f"{self.place}: {values!r}: some have no token of their own, being one of very many; ask for a "
                    "range instead"
                )
            tables[0][tokens[:, 0]] = -np.inf
        elif self.column.group == 1:
            tables[0][tokens[:, 0]] = -np.inf
        else:
            self._leave_out_members(tables, tokens)

    def _leave_out_members(self, tables: Tables, tokens: np.ndarray) -> None:
        special = tokens[:, 0] >= self.column.groups
        tables[0][tokens[special, 0]] = -np.inf
        tables[1][tokens[~special, 0], tokens[~special, 1]] = -np.inf
        allowed = self.codec.space.positions[self.positions[1]].allowed
        assert allowed is not None
        empty = ~(np.isfinite(tables[1]) & allowed).any(1)
        tables[0][empty] = -np.inf


class Among(Rule):
    """One of some values."""

    def __init__(self, codec: TabularCodec, name: str, values: Sequence[Any]) -> None:
        super().__init__(codec, name)
        if not values:
            raise InvalidInput(f"{self.place} is an empty list; give at least one value")
        self.wanted = self.values(values)
        self.tokens = self.encoded(self.wanted)

    def tables(self) -> Tables:
        tables = self.blank(-np.inf)
        self.open_up(tables, self.tokens)
        return tables

    def write(self, table: pa.Table, tokens: np.ndarray, random: np.random.Generator) -> pa.Array:
        fits = (tokens[:, None, :] == self.tokens[None]).all(2)
        # several values may share a cell: one of them at random. With times of day a mix of two values' tokens
        # may have been drawn that is neither: then any of the values
        fits[~fits.any(1)] = True
        choice = np.where(fits, random.random(fits.shape), -1).argmax(1)
        return take(self.wanted, pa.array(choice))


class Between(Rule):
    """{min, max, not, missing}: numbers, dates and times in a range; all but some values; null or never null."""

    def __init__(self, codec: TabularCodec, name: str, asked: Mapping[str, Any]) -> None:
        super().__init__(codec, name)
        unknown = [word for word in asked if word not in WORDS]
        if unknown or not asked:
            found = f"found {unknown[0]!r}" if unknown else "nothing is asked"
            hint = nearest(str(unknown[0]), WORDS) if unknown else ""
            raise InvalidInput(
                f"{self.place}: {found}; accepted are a value, a list of values, or {', '.join(WORDS)}{hint}"
            )
        if asked.get("missing", False) not in (True, False) or (asked.get("missing") and len(asked) > 1):
            raise InvalidInput(f"{self.place}.missing: accepted are false, and true with nothing beside it")
        self.asked = dict(asked)
        unwanted = asked.get("not")
        self.unwanted = list(unwanted) if isinstance(unwanted, list | tuple) else [unwanted]
        self.ranges = self._ranges(asked) if "min" in asked or "max" in asked else None
        self.weights = self._weights(asked)
        self.refuse_nothing(self.weights)

    def _ranges(self, asked: Mapping[str, Any]) -> list[AxisRange]:
        """Of each axis. Of a timestamp that of the days; the times of the first and last day are in the tables."""
        if not isinstance(self.column, NumericColumn):
            raise InvalidInput(
                f"{self.place}: {self.name!r} is {self.type}, which has no order; accepted is a list of values"
            )
        low, high = (self._bound(asked, word) for word in ("min", "max"))
        if low is not None and high is not None and low > high:
            raise InvalidInput(f"{self.place}: min {asked['min']} is greater than max {asked['max']}")
        dtype = np.dtype(self.type.to_pandas_dtype()) if pt.is_floating(self.type) else np.dtype(np.int64)
        ends = [
            (None if end is None else end[k]) for k in range(len(self.column.axes)) for end in (low, high)
        ]
        self.ends = list(zip(ends[::2], ends[1::2], strict=True))
        days = AxisRange(self.column.axes[0], *self.ends[0], dtype)
        return [days, *(AxisRange(axis, None, None, dtype) for axis in self.column.axes[1:])]

    def _bound(self, asked: Mapping[str, Any], word: str) -> tuple | None:
        if word not in asked:
            return None
        value = asked[word]
        whole_day = pt.is_timestamp(self.type) and (
            (isinstance(value, date) and not isinstance(value, datetime))
            or (isinstance(value, str) and ":" not in value)
        )
        array = self.values([value if not isinstance(value, date | datetime) else str(value)])
        if array.null_count:
            raise InvalidInput(f"{self.place}.{word}: null is no bound; leave it out, or use missing: false")
        axes = [axis[0].item() for axis in split_axes(array)[0]]
        if any(isinstance(v, float) and np.isnan(v) for v in axes):
            raise InvalidInput(f"{self.place}.{word}: NaN is no bound")
        if whole_day:
            axes[1] = None
        return _End(axes)

    def _weights(self, asked: Mapping[str, Any]) -> Tables:
        tables = self.blank(0.0)
        missing = self.special("missing")
        if asked.get("missing") is True:
            tables[0][np.arange(len(tables[0])) != missing] = -np.inf
            return tables
        if self.ranges is not None:
            tables = self._range_tables()
        if asked.get("missing") is False:
            tables[0][missing] = -np.inf
        if "not" in asked:
            tokens = self.tokens_of(self.values(self.unwanted))
            self.leave_out(
                tables, tokens[self.drawable(tokens)], self.unwanted
            )  # others are never drawn anyway
        return tables

    def _range_tables(self) -> Tables:
        """Null and what is no number lie in no range."""
        assert self.ranges is not None
        tables = self.blank(0.0)
        first, second = self.ranges[0].tables()
        tables[0] = first
        if self.ranges[0].axis.ranks > 1:
            tables[1] = second
        if len(self.ranges) > 1:
            self._restrict_times(tables)
        return tables

    def _restrict_times(self, tables: Tables) -> None:
        """On the first and the last day of a range of timestamps, to times that lie in it."""
        assert isinstance(self.column, NumericColumn)
        days, times = self.column.axes
        at = 1 + (days.ranks > 1)
        for number, (day, end) in enumerate(zip(self.ends[0], self.ends[1], strict=True)):
            if day is None or end is None or (number == 0 and end == 0):
                continue
            token = days.encode(np.array([day]), np.array([False]))[0]
            if token[0] in days.cell_bin:
                raise InvalidInput(
                    f"{self.place}: the training data has more than 400 days, of which ranges take whole ones; give "
                    "a date without a time"
                )
            if token[0] >= days.places:  # no day that is drawn
                continue
            own = AxisRange(times, None if number else end, end if number else None, np.dtype(np.int64))
            first = np.full(times.vocabulary, -np.inf, np.float32)
            first[times.atom_token[own.atoms()]] = 0
            whole = np.full(times.vocabulary, len(times.cell_bin) > 0)
            np.minimum.at(whole, times.cell_bin, own.shares() >= 1)
            first[times.cell_bin[whole[times.cell_bin]]] = 0
            tables[at][token[0]] += first
            if not np.isfinite(tables[at][token[0]]).any():
                tables[0][token[0]] = -np.inf

    def tables(self) -> Tables:
        return self.weights

    def fulfilled(self, array: pa.Array) -> np.ndarray:
        valid: np.ndarray = array.is_valid().to_numpy(zero_copy_only=False)
        if self.asked.get("missing") is True:
            return ~valid
        fine = valid if self.ranges or self.asked.get("missing") is False else np.ones(len(array), bool)
        if self.ranges is not None:
            axes, low, high = split_axes(array)[0], np.zeros(len(array), int), np.zeros(len(array), int)
            for axis, (start, end) in zip(
                axes, self.ends, strict=True
            ):  # the first axis that differs decides
                low = np.where(low == 0, 0 if start is None else np.sign(axis.astype(float) - start), low)
                high = np.where(high == 0, 0 if end is None else np.sign(axis.astype(float) - end), high)
            fine = fine & (low >= 0) & (high <= 0)
        if "not" in self.asked:
            fine = fine & ~pc.is_in(array, self.values(self.unwanted)).to_numpy(zero_copy_only=False)
        return fine

    def write(self, table: pa.Table, tokens: np.ndarray, random: np.random.Generator) -> pa.Array:
        if self.ranges is None:
            return table.column(self.field)
        placing: Any = Placing(random, _placers(self.ranges, tokens))
        found = self.column.decode(tokens, placing)
        if not pt.is_floating(self.type):
            return found
        # the last digit of a value that is placed inside a cell is rounded
        low, high = (None if end is None else pa.scalar(end, self.type) for end in self.ends[0])
        found = found if low is None else pc.max_element_wise(found, low)
        return found if high is None else pc.min_element_wise(found, high)


class _End(tuple):
    """One end of a range on each axis; an open time of day is the whole day."""

    def __gt__(self, other: Any) -> bool:
        pairs = [(a, b) for a, b in zip(self, other, strict=True) if a is not None and b is not None]
        return [a for a, _ in pairs] > [b for _, b in pairs]


def _placers(ranges: Sequence[AxisRange], tokens: np.ndarray) -> list[Callable[[np.ndarray], np.ndarray]]:
    found, at = [], 0
    for own in ranges:
        first = tokens[:, at]
        second = tokens[:, at + 1] if own.axis.ranks > 1 else np.zeros(len(tokens), np.int64)
        found.append(_placer(own, first, second))
        at += 1 + (own.axis.ranks > 1)
    return found


def _placer(own: AxisRange, first: np.ndarray, second: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    return lambda uniform: own.place(first, second, uniform)


def rule(codec: TabularCodec, name: str, value: Any) -> Rule:
    """What a value of `where` asks of a column."""
    if isinstance(value, Mapping):
        one = set(value) == {"min", "max"} and value["min"] == value["max"]
        return Among(codec, name, [value["min"]]) if one else Between(codec, name, value)
    return Among(codec, name, list(value) if isinstance(value, list | tuple) else [value])


def as_type(values: list, type_: pa.DataType) -> pa.Array:
    """YAML's strings and numbers as a column's type; text is parsed (dates, times, decimals)."""
    plain = type_.value_type if pa.types.is_dictionary(type_) else type_
    if any(isinstance(v, bool) for v in values) and not pa.types.is_boolean(plain):
        raise ValueError("true and false fit boolean columns only; quote them for text")
    if pa.types.is_time(plain):  # Arrow does not parse these
        values = [time.fromisoformat(v) if isinstance(v, str) else v for v in values]
        array = pa.array(values, plain)
    elif all(v is None or isinstance(v, str) for v in values):
        array = pa.array(values, pa.string()).cast(plain)
    else:
        array = pa.array(values).cast(plain) if pa.types.is_decimal(plain) else pa.array(values, plain)
    return array.dictionary_encode().cast(type_) if pa.types.is_dictionary(type_) else array


def _nullable(schema: pa.Schema) -> pa.Schema:
    return pa.schema([f.with_nullable(True) for f in schema])
