"""Conditions on sampled tables: `where: {origin: JFK, month: [6, 7], delay: {min: 60}}`, `balance: {late: {yes: 0.5}}`.

What a condition asks of a column is a log-weight for each of its tokens, which the sampler adds to the logits; what is
finer than a token (a range that begins inside a cell, one value of a cell) is written when rows are decoded. Nothing is
drawn and thrown away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from genai_core.errors import InvalidInput, MissingCapability, nearest
from genai_core.tables.balance import Balanced
from genai_core.tables.rules import Among, Between, Rule, rule

if TYPE_CHECKING:  # checking a job file must not import torch
    from genai_core.modalities.tabular import TabularCodec
    from genai_core.model import Condition


class Where:
    """Conditions in the codec's tokens. Raises InvalidInput for unknown columns and for what can never be drawn.

    where    column -> value, list of values, or {min, max, not, missing}
    balance  column -> {value: share of the rows}; other values share what is left in proportion
    """

    def __init__(
        self,
        codec: TabularCodec,
        where: Mapping[str, Any],
        balance: Mapping[str, Mapping[Any, float]] | None = None,
    ) -> None:
        self.codec, balance = codec, balance or {}
        both = sorted(set(where) & set(balance))
        if both:
            raise InvalidInput(
                f"where.{both[0]} and balance.{both[0]} both say what {both[0]!r} shall be; keep one of them"
            )
        asked = [rule(codec, name, value) for name, value in where.items()]
        # single values leave nothing to draw: all else, ranges too, is drawn given them
        self.rules: list[Rule] = sorted(asked, key=lambda found: not isinstance(found, Among))
        self.rules += [Balanced(codec, name, shares) for name, shares in balance.items()]

    @property
    def conditions(self) -> list[Condition]:
        """What the model must keep to while drawing."""
        return [found.condition for found in self.rules]

    def write(self, table: pa.Table, tokens: np.ndarray, random: np.random.Generator) -> pa.Table:
        """Put what was asked for in place of what was drawn in its cells; relations give way elsewhere."""
        for found in self.rules:
            own = tokens[:, found.positions]
            table = table.set_column(
                found.field, table.schema.field(found.field), found.write(table, own, random)
            )
        fixed = {found.field: np.ones(table.num_rows, bool) for found in self.rules if found.fixes}
        ranges = [found for found in self.rules if found.fixes and self._computed(found)]
        if not ranges:
            return self.codec.settle(table, tokens, fixed)
        # what follows from other columns lies where it shall in most rows; in the rest the others give way
        exact = {field: rows for field, rows in fixed.items() if field not in {r.field for r in ranges}}
        made = self.codec.settle(table, tokens, exact)
        off = ~_fulfilled(ranges, made)
        if not off.any():
            return made
        moved = self.codec.settle(table, tokens, exact | {found.field: off for found in ranges})
        rounded = self.codec.settle(
            moved, tokens, exact
        )  # products of whole numbers do not reach every value
        better = _fulfilled(ranges, rounded)
        return _chosen(made, _chosen(moved, rounded, better), off)

    def _computed(self, found: Rule) -> bool:
        """Whether it asks for a range of a column that follows from others."""
        related = any(one.field == found.field for one in self.codec.related)
        return related and isinstance(found, Between)


def _fulfilled(rules: Sequence[Rule], table: pa.Table) -> np.ndarray:
    """Bool (rows,): where all of them are."""
    fine = np.ones(table.num_rows, bool)
    for found in rules:
        own = found.fulfilled(table.column(found.field).combine_chunks())
        fine &= True if own is None else own
    return fine


def _chosen(first: pa.Table, second: pa.Table, rows: np.ndarray) -> pa.Table:
    """The rows of `second` where `rows` says so, else of `first`."""
    if rows.all() or first is second:
        return second
    index = np.arange(len(rows)) + len(rows) * rows
    return pa.concat_tables([first, second]).combine_chunks().take(pa.array(index))


def check_sampling(
    kind: str,
    modality: str,
    where: Mapping[str, Any],
    prompt: str | None = None,
    temperature: float | Mapping[str, float] = 1.0,
    top_p: float | Mapping[str, float] = 1.0,
    **more: Any,
) -> None:
    """Raise MissingCapability for what a family cannot do while drawing. A label can be asked of every family.

    more  other things by name, such as balance, that autoregressive models of tables alone can do
    """
    asked = {
        "where": bool(where) and modality == "tabular",
        "prompt": prompt is not None,
        "temperature": temperature != 1.0,
        "top_p": top_p != 1.0,
        **{name: bool(value) for name, value in more.items()},
    }
    if kind != "autoregressive" and any(asked.values()):
        names = " and ".join(name for name, given in asked.items() if given)
        raise MissingCapability(
            f"this {kind} model cannot generate with {names}; train an autoregressive model for that"
        )
    only_tables = {
        **more,
        "temperature by column": isinstance(temperature, Mapping),
        "top_p by column": isinstance(top_p, Mapping),
    }
    for name, given in only_tables.items():
        if given and modality != "tabular":
            raise MissingCapability(f"this model learnt {modality} records; {name} is for tables alone")


def conditions_of(
    codec: Any,
    where: Mapping[str, Any],
    prompt: str | None = None,
    balance: Mapping[str, Mapping[Any, float]] | None = None,
) -> Any:
    """What a codec makes of conditions; None when there are none. Raises InvalidInput."""
    if balance and prompt is None:
        return Where(codec, where, balance)
    return codec.given(where, prompt) if where or prompt is not None else None


def sharpening(
    codec: Any, temperature: float | Mapping[str, float], top_p: float | Mapping[str, float]
) -> dict[str, Any]:
    """Temperature and top_p as a model takes them. Raises InvalidInput."""
    return {
        "temperature": per_position(codec, "temperature", temperature, 10),
        "top_p": per_position(codec, "top_p", top_p, 1),
    }


def per_position(
    codec: TabularCodec, name: str, value: float | Mapping[str, float], high: float
) -> float | list[float]:
    """A temperature or top_p of each position from one of each column; InvalidInput: no such column, out of bounds."""
    if not isinstance(value, Mapping):
        return value
    names = codec.schema.names
    for column, number in value.items():
        if column not in names:
            raise InvalidInput(
                f"{name} names {column!r}, which is no column of the model{nearest(column, names)}"
            )
        if not 0 < number <= high:
            raise InvalidInput(
                f"{name}.{column}: found {number}; accepted are numbers above 0 up to {high:g}"
            )
    return [float(value.get(names[position.field], 1.0)) for position in codec.space.positions]
