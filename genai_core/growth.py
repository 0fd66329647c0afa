"""Going on from a fitted model of a table: its codec learns new values, its network gets room for them.

Tokens keep their meaning: the values of a category that are new come after the old ones, and numbers stay cut as they
were. So every weight of the parent keeps its place; what is new begins as the mean of what its column has, and about as
frequent as it is in the new data. Numbers beyond the parent's range are scored as such and never drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from genai_core.codec import MIN_ROWS
from genai_core.errors import InvalidData, InvalidInput
from genai_core.modalities.tabular import TabularCodec
from genai_core.model import Model
from genai_core.spaces import Tokens
from genai_core.tables.columns import CATEGORY_SPECIALS, CategoricalColumn, Column, keys_of
from genai_core.tables.sketches import CategoricalSummary

LEAST = 3  # rows that a new value must have to be kept by name: rarer ones may name a person
MOST_VALUES = 90_000


def extended(codec: Any, batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Any:
    """The parent's codec with the values that are new. Raises SchemaMismatch, InvalidData, InvalidInput."""
    if not isinstance(codec, TabularCodec):
        raise InvalidInput("only models of tables can be gone on from; train a new model of these records")
    codec.check_schema(schema)
    found = {
        name: CategoricalSummary()
        for name, column in zip(codec.schema.names, codec.columns, strict=True)
        if isinstance(column, CategoricalColumn)
    }
    rows, counts = 0, {i: one.counted() for i, one in codec.combinations.items()}
    for batch in batches:
        rows += batch.num_rows
        for combined in counts.values():
            combined.update(batch)
        for name, summary in found.items():
            summary.update(keys_of(_array(batch.column(name))))
    if rows < MIN_ROWS:
        raise InvalidData(f"found {rows} row(s) to learn from; at least {MIN_ROWS} are needed")
    notes: list[str] = []
    columns: list[Column] = []
    for name, column in zip(codec.schema.names, codec.columns, strict=True):
        if isinstance(column, CategoricalColumn):
            before = len(column.values)
            column = _with_new(column, found[name])
            if added := len(column.values) - before:
                notes.append(f"column {name!r} has {added:,} value(s) that are new to the model")
        columns.append(column)
    own = dict(zip(codec.schema.names, columns, strict=True))
    combinations = {
        i: one.combinations([own[name] for name in one.columns], LEAST) for i, one in counts.items()
    }
    written, relations = codec.written, codec.relations
    return TabularCodec(
        codec.schema,
        columns,
        rows,
        codec.made,
        written,
        tuple(notes),
        relations,
        codec.declared,
        combinations,
    )


def _array(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _with_new(column: CategoricalColumn, summary: CategoricalSummary) -> CategoricalColumn:
    known, counts = set(column.values), summary.counts(MOST_VALUES)
    new = sorted(value for value, count in counts.items() if value not in known and count >= LEAST)
    seen = (column.seen[0], column.seen[1] or summary.missing > 0)
    return replace(column, values=[*column.values, *new[: MOST_VALUES - len(column.values)]], seen=seen)


def carry_over(network: Model, parent: Model) -> None:
    """Give a new network the weights of its parent, whose tokens it has and more; it is not initialised again.

    Raises InvalidInput when the two are of other shapes.
    """
    old, new = parent.space, network.space
    assert isinstance(old, Tokens) and isinstance(new, Tokens)
    places = _places(old, new)
    mine, theirs = network.state_dict(), parent.state_dict()
    unlike = sorted(set(mine) ^ set(theirs))
    biases = []
    for name in mine if not unlike else ():
        if mine[name].shape == theirs[name].shape:
            mine[name].copy_(theirs[name])
        elif _grown(mine[name], theirs[name], sum(new.vocabularies), len(places)):
            mine[name].copy_(_placed(theirs[name], places, new))
            biases += [name] if mine[name].dim() == 1 else []
        else:
            unlike.append(name)
    if unlike:
        raise InvalidInput(
            f"the network for the new data has another shape than its parent ({unlike[0]}); train a new model instead"
        )
    network.load_state_dict(mine)

    def begin(x: Tensor) -> None:
        """The first weights are the parent's; what is new begins as frequent as it is, x (rows, positions)."""
        parameters = dict(network.named_parameters())
        with torch.no_grad():
            for name in biases:
                parameters[name].copy_(_with_frequencies(parameters[name], x, places, new))

    network.initialise = begin  # type: ignore[method-assign]


def _grown(mine: Tensor, theirs: Tensor, new_total: int, old_total: int) -> bool:
    return (
        mine.shape[1:] == theirs.shape[1:]
        and mine.shape[:1] == (new_total,)
        and theirs.shape[:1] == (old_total,)
    )


def _places(old: Tokens, new: Tokens) -> Tensor:
    """Row in the new network's tables of all tokens, of each old token."""
    places, at = [], 0
    for before, after in zip(old.positions, new.positions, strict=True):
        more = after.vocabulary - before.vocabulary
        if more < 0:
            raise InvalidInput("the new data's tokens are not those of the parent; train a new model instead")
        row = np.arange(before.vocabulary)
        specials = before.vocabulary - len(CATEGORY_SPECIALS)  # they come last; numbers get no new tokens
        places.append(at + np.where((row >= specials) & (more > 0), row + more, row))
        at += after.vocabulary
    return torch.from_numpy(np.concatenate(places))


def _columns(places: Tensor, new: Tokens) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Of each position that has new tokens: its number, and the rows of its old and of its new tokens."""
    known = torch.zeros(sum(new.vocabularies), dtype=torch.bool)
    known[places] = True
    at = 0
    for number, size in enumerate(new.vocabularies):
        rows = torch.arange(at, at + size)
        if not known[rows].all():
            yield number, rows[known[rows]], rows[~known[rows]]
        at += size


def _placed(theirs: Tensor, places: Tensor, new: Tokens) -> Tensor:
    """A table of all tokens; the new ones have the mean of their column's."""
    found = theirs.new_zeros(sum(new.vocabularies), *theirs.shape[1:])
    found[places] = theirs
    for _, old_rows, new_rows in _columns(places, new):
        found[new_rows] = found[old_rows].mean(0)
    return found


def _with_frequencies(bias: Tensor, x: Tensor, places: Tensor, new: Tokens) -> Tensor:
    """Log frequencies of the new tokens beside those that the parent's stand for."""
    found = bias.clone()
    starts = np.concatenate([[0], np.cumsum(new.vocabularies)])
    for number, old_rows, new_rows in _columns(places, new):
        start = int(starts[number])
        counts = torch.bincount(x[:, number].cpu(), minlength=new.vocabularies[number]).float() + 0.1
        share = counts[new_rows - start] / counts[old_rows - start].sum()
        found[new_rows] = bias[old_rows].logsumexp(0) + share.log().to(bias)
    return found


def parent_facts(provenance: dict[str, Any], digest: str | None) -> dict[str, Any]:
    """What a model keeps of the one that it goes on from."""
    kept = ("data", "job", "job_id", "name", "parent", "privacy")
    return {"digest": digest, **{name: provenance[name] for name in kept if name in provenance}}
