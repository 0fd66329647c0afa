"""Conditions on sampled tables: `where: {origin: JFK, month: [6, 7]}`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from genai_core.errors import InvalidInput, MissingCapability, nearest
from genai_core.tables.columns import take

if TYPE_CHECKING:  # checking a job file must not import torch
    from genai_core.modalities.tabular import TabularCodec
    from genai_core.model import Condition


class Where:
    """Conditions in the codec's tokens. Raises InvalidInput for unknown columns and values never seen."""

    def __init__(self, codec: TabularCodec, where: Mapping[str, Any]) -> None:
        self.codec = codec
        self.wanted = {name: self._array(name, value) for name, value in where.items()}
        self.tokens = {name: self._encoded(name, array) for name, array in self.wanted.items()}

    def _array(self, name: str, value: Any) -> pa.Array:
        names = self.codec.schema.names
        if name not in names:
            raise InvalidInput(f"where names {name!r}, which is no column of the model{nearest(name, names)}")
        values = list(value) if isinstance(value, list | tuple) else [value]
        if not values:
            raise InvalidInput(f"where.{name} is an empty list; give at least one value")
        type_ = self.codec.schema.field(name).type
        try:
            return _as_type(values, type_)
        except (
            pa.ArrowInvalid,
            pa.ArrowTypeError,
            pa.ArrowNotImplementedError,
            OverflowError,
            ValueError,
        ) as error:
            raise InvalidInput(f"where.{name}: {values!r} cannot be read as {type_} ({error})") from None

    def _encoded(self, name: str, array: pa.Array) -> np.ndarray:
        """Tokens (values, positions of the field); every value must be one that the model can draw."""
        field = self.codec.schema.names.index(name)
        empty = {f.name: pa.nulls(len(array), f.type) for f in self.codec.schema}
        table = pa.table({**empty, name: array}, schema=_nullable(self.codec.schema))
        positions = self.codec.space.positions_of(field)
        tokens = self.codec.encode(table).tokens[:, positions]
        drawable = self.codec.space.positions[positions[0]].drawable[tokens[:, 0]]
        for value, fine in zip(array.to_pylist(), drawable.tolist(), strict=True):
            if not fine:
                raise InvalidInput(
                    f"where.{name}: the training data holds no {value!r}, so no row with it can be drawn"
                )
        return tokens

    @property
    def conditions(self) -> list[Condition]:
        """What the model must keep to while drawing."""
        return [self._condition(name) for name in self.wanted]

    def _condition(self, name: str) -> Condition:
        import torch

        from genai_core.model import Condition

        field = self.codec.schema.names.index(name)
        positions = self.codec.space.positions_of(field)
        tokens, tables = self.tokens[name], []
        for k, i in enumerate(positions):
            position = self.codec.space.positions[i]
            if position.parent is None:
                table = np.zeros(position.vocabulary, bool)
                table[tokens[:, k]] = True
            else:
                parent = positions.index(position.parent)
                table = np.zeros(
                    (self.codec.space.positions[position.parent].vocabulary, position.vocabulary), bool
                )
                table[tokens[:, parent], tokens[:, k]] = True
            tables.append(torch.from_numpy(table))
        return Condition(field, tables)

    def write(self, table: pa.Table, tokens: np.ndarray, random: np.random.Generator) -> pa.Table:
        """Put the exact values asked for in place of what was drawn in their cells."""
        for name, array in self.wanted.items():
            field = self.codec.schema.names.index(name)
            drawn = tokens[:, self.codec.space.positions_of(field)]
            fits = (drawn[:, None, :] == self.tokens[name][None]).all(2)
            # several values may share a cell: one of them at random. With times of day a mix of two values' tokens
            # may have been drawn that is neither: then any of the values
            fits[~fits.any(1)] = True
            choice = np.where(fits, random.random(fits.shape), -1).argmax(1)
            table = table.set_column(field, table.schema.field(field), take(array, pa.array(choice)))
        return table


def check_sampling(
    kind: str,
    modality: str,
    where: Mapping[str, Any],
    prompt: str | None = None,
    temperature: float = 1.0,
    top_p: float = 1.0,
) -> None:
    """Raise MissingCapability for what a family cannot do while drawing. A label can be asked of every family."""
    asked = {
        "where": bool(where) and modality == "tabular",
        "prompt": prompt is not None,
        "temperature": temperature != 1.0,
        "top_p": top_p != 1.0,
    }
    if kind != "autoregressive" and any(asked.values()):
        names = " and ".join(name for name, given in asked.items() if given)
        raise MissingCapability(
            f"this {kind} model cannot generate with {names}; train an autoregressive model for that"
        )


def _as_type(values: list, type_: pa.DataType) -> pa.Array:
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
