"""Columns of which only combinations are drawn that the training data holds: `(city, country)`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from genai_core.errors import InvalidData
from genai_core.tables.columns import CategoricalColumn, Column, is_categorical, keys_of, values_of
from genai_core.tables.rare import without_rare

MOST = 1_000_000  # combinations that are counted


def combines(type_: pa.DataType) -> bool:
    """Whether values of this type are combined: categories, whole numbers, dates."""
    return is_categorical(type_) or pt.is_integer(type_) or pt.is_date(type_)


def _keys(array: pa.Array) -> pa.Array:
    return keys_of(array) if is_categorical(array.type) else array.cast(pa.string())


@dataclass(frozen=True, eq=False)
class Combinations:
    """See `genai_core.tables.constraints.Kept`.

    values  of each column, as strings
    codes   int32 (combinations, columns): places in `values`
    counts  int64 (combinations,): rows of the training data
    """

    columns: tuple[str, ...]
    values: tuple[tuple[str | None, ...], ...]
    codes: np.ndarray
    counts: np.ndarray

    def __post_init__(self) -> None:
        """ValueError for what no fit makes."""
        sizes = [len(own) for own in self.values]
        if self.codes.shape != (len(self.counts), len(self.columns)) or len(sizes) != len(self.columns):
            raise ValueError("combinations do not fit their columns")
        if not len(self.codes) or (self.codes < 0).any() or (self.codes >= sizes).any():
            raise ValueError("combinations name values that are not there")

    @property
    def text(self) -> str:
        return f"combinations of ({', '.join(self.columns)})"

    @cached_property
    def _prefixes(self) -> list[np.ndarray]:
        """For each column but the first: sorted keys of the combinations' beginnings up to it."""
        found, at = [], self.codes[:, 0].astype(np.int64)
        for i in range(1, len(self.columns)):
            keys, at = np.unique(at * len(self.values[i]) + self.codes[:, i], return_inverse=True)
            found.append(keys)
        return found

    def _codes(self, table: pa.Table) -> np.ndarray:
        """int64 (rows, columns), -1 for values that no combination has."""
        found = []
        for name, own in zip(self.columns, self.values, strict=True):
            keys = _keys(table[name].combine_chunks())
            index = pc.index_in(keys, value_set=pa.array(own, pa.string())).fill_null(-1)
            found.append(index.to_numpy(zero_copy_only=False).astype(np.int64))
        return np.stack(found, 1)

    def broken(self, table: pa.Table) -> np.ndarray:
        """Bool (rows,): rows with a combination that is none of them."""
        codes = self._codes(table)
        bad, at = codes[:, 0] < 0, np.maximum(codes[:, 0], 0)
        for i, keys in enumerate(self._prefixes, 1):
            wanted = at * len(self.values[i]) + codes[:, i]
            at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
            bad |= (codes[:, i] < 0) | (keys[at] != wanted)
        return bad

    def mend(
        self, table: pa.Table, fixed: Mapping[str, np.ndarray], uniform: np.ndarray, again: bool = False
    ) -> pa.Table:
        """Of the combinations that agree in the fixed columns and as many others as can be, one as often as it is."""
        rows = np.flatnonzero(self.broken(table))
        if not len(rows):
            return table
        codes = self._codes(table.take(pa.array(rows)))
        none = np.zeros(table.num_rows, bool)
        held = np.stack([fixed.get(name, none)[rows] for name in self.columns], 1)
        for pattern in np.unique(held, axis=0):
            own = np.flatnonzero((held == pattern).all(1))
            order = np.argsort(~pattern, kind="stable")
            codes[own] = self._nearest(codes[own], order, int(pattern.sum()), uniform[rows[own]])
        for i, name in enumerate(self.columns):
            changed = (codes[:, i] >= 0) & ~held[:, i]
            table = self._write(table, i, name, rows[changed], codes[changed, i])
        return table

    def _nearest(self, wanted: np.ndarray, order: np.ndarray, held: int, uniform: np.ndarray) -> np.ndarray:
        """Codes (rows, columns) with the columns `order`[:held] kept; rows for which there is none are as they were."""
        ranked = np.lexsort(self.codes.T[order[::-1]])
        sorted_, found = self.codes[ranked][:, order], wanted.copy()
        mass = np.concatenate([[0], self.counts[ranked].cumsum()])
        spans: dict[tuple[int, ...], list[int]] = {}
        for at, row in enumerate(map(tuple, sorted_.tolist())):
            for size in range(held, len(order)):
                span = spans.setdefault(row[:size], [at, at])
                span[1] = at + 1
        for n, row in enumerate(map(tuple, wanted[:, order].tolist())):
            for size in range(len(order) - 1, held - 1, -1):
                if row[:size] in spans:
                    first, end = spans[row[:size]]
                    place = mass[first] + uniform[n] * (mass[end] - mass[first])
                    chosen = min(max(int(np.searchsorted(mass, place, "right")) - 1, first), end - 1)
                    found[n, order] = sorted_[chosen]
                    break
        return found

    def _write(self, table: pa.Table, i: int, name: str, rows: np.ndarray, codes: np.ndarray) -> pa.Table:
        if not len(rows):
            return table
        field = table.schema.field(name)
        plain = field.type.value_type if pt.is_dictionary(field.type) else field.type
        keys = [self.values[i][code] for code in codes.tolist()]
        text = pa.array(keys, pa.string())
        new = _from_keys(text, plain)
        column = table[name].combine_chunks()
        column = column.dictionary_decode() if pt.is_dictionary(field.type) else column
        mask = np.zeros(table.num_rows, bool)
        mask[rows] = True
        column = pc.replace_with_mask(column, pa.array(mask), new)
        if pt.is_dictionary(field.type):
            column = column.dictionary_encode().cast(field.type)
        return table.set_column(table.column_names.index(name), field, column)

    def counted(self) -> CombinationCounts:
        """To go on counting."""
        found = CombinationCounts(self.columns)
        for row, n in zip(self.codes.tolist(), self.counts.tolist(), strict=True):
            found.counts[tuple(own[at] for own, at in zip(self.values, row, strict=True))] = n
        return found

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """JSON-able settings, and arrays."""
        settings = {"columns": list(self.columns), "values": [list(own) for own in self.values]}
        return settings, {"codes": self.codes, "counts": self.counts}

    @classmethod
    def from_state(cls, settings: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Combinations:
        """The inverse. ValueError for what no fit makes."""
        values = tuple(tuple(own) for own in settings["values"])
        return cls(tuple(settings["columns"]), values, arrays["codes"], arrays["counts"])


def _from_keys(text: pa.Array, plain: pa.DataType) -> pa.Array:
    if not is_categorical(plain):
        return text.cast(plain)
    there = text.drop_null()
    if not len(there):
        return pa.nulls(len(text), plain)
    found = values_of(text.fill_null(there[0]).to_pylist(), plain)
    return pc.if_else(text.is_null(), pa.scalar(None, plain), found)


class CombinationCounts:
    """What one pass counts."""

    def __init__(self, columns: Sequence[str]) -> None:
        self.columns = tuple(columns)
        self.counts: Counter[tuple[str | None, ...]] = Counter()

    def update(self, batch: pa.RecordBatch | pa.Table) -> None:
        """Some more rows. Raises InvalidData for more than a million combinations."""
        columns = [batch.column(name) for name in self.columns]
        arrays = [c.combine_chunks() if isinstance(c, pa.ChunkedArray) else c for c in columns]
        names = [str(i) for i in range(len(arrays))]
        table = pa.table([_keys(a) for a in arrays], names)
        for row in table.group_by(names).aggregate([([], "count_all")]).to_pylist():
            self.counts[tuple(row[name] for name in names)] += row["count_all"]
        if len(self.counts) > MOST:
            raise InvalidData(
                f"constraints: the columns {', '.join(self.columns)} have more than {MOST:,} combinations; name fewer"
            )

    def combinations(self, columns: Sequence[Column], rare_below: int) -> Combinations:
        """Those in enough rows, of values that are drawn. columns: the codecs. Raises InvalidData: none is left."""
        drawn = [set(c.values) if isinstance(c, CategoricalColumn) else None for c in columns]
        fine = {
            row: n
            for row, n in self.counts.items()
            if all(own is None or v is None or v in own for v, own in zip(row, drawn, strict=True))
        }
        words = {repr(row): row for row in fine}
        kept = without_rare({word: fine[row] for word, row in words.items()}, self.counts.total(), rare_below)
        rows = [words[word] for word in sorted(kept)]
        if not rows:
            raise InvalidData(
                f"constraints: no combination of {', '.join(self.columns)} has values that are all drawn; lower "
                "modality.rare_below, or drop the constraint"
            )
        values = [sorted({row[i] for row in rows}, key=lambda v: (v is None, v)) for i in range(len(rows[0]))]
        places = [{value: at for at, value in enumerate(own)} for own in values]
        codes = np.array([[p[v] for p, v in zip(places, row, strict=True)] for row in rows], np.int32)
        counts = np.array([fine[row] for row in rows], np.int64)
        return Combinations(self.columns, tuple(map(tuple, values)), codes, counts)
