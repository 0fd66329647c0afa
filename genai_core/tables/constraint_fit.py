"""From what a job declares, and from the data, to the constraints that a codec keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.types as pt
from pydantic import TypeAdapter

from genai_core.errors import InvalidInput, nearest
from genai_core.tables.columns import Column, is_numeric
from genai_core.tables.combinations import CombinationCounts, Combinations, combines
from genai_core.tables.constraints import Formula, Kept, Order, Range, Unique, unit_of
from genai_core.tables.declarations import (
    Combination,
    Constraint,
    Follows,
    InRange,
    Made,
    MadeByPattern,
    MadeInSequence,
    Ordered,
    parse_formula,
)
from genai_core.tables.declarations import Unique as DeclaredUnique
from genai_core.tables.relations import Relation, has_numbers
from genai_core.tables.rules import as_type

DECLARED: TypeAdapter[Constraint] = TypeAdapter(Constraint)


def names_of(one: Constraint) -> list[str]:
    """The columns that a declaration names."""
    if isinstance(one, Follows):
        return [one.column, *parse_formula(one.equals).operands]
    return [one.column] if isinstance(one, InRange) else list(one.columns)


# -- checking ------------------------------------------------------------------------------------------------


def check_constraints(declared: Sequence[Constraint], learnt: pa.Schema, made: Mapping[str, Made]) -> None:
    """Raise InvalidInput for constraints that columns of these types cannot keep, or that contradict each other."""
    for number, one in enumerate(declared):
        place = f"modality.constraints[{number}]"
        for name in names_of(one):
            if name in learnt.names or (isinstance(one, DeclaredUnique) and name in made):
                continue
            if name in made:
                raise InvalidInput(
                    f"{place}: {name!r} is made outside the model; only kind: unique may name it"
                )
            raise InvalidInput(
                f"{place} names {name!r}, which is no learnt column{nearest(name, learnt.names)}"
            )
        _check_types(one, place, learnt)
    _refuse_circles(
        "order", [(a, b) for one in declared if isinstance(one, Ordered) for a, b in _pairs(one.columns)]
    )
    formulae = [one for one in declared if isinstance(one, Follows)]
    _refuse_circles(
        "formula", [(b, one.column) for one in formulae for b in parse_formula(one.equals).operands]
    )
    targets = [one.column for one in formulae]
    for name in targets:
        if targets.count(name) > 1:
            raise InvalidInput(f"modality.constraints: {name!r} has two formulae; keep one")


def _check_types(one: Constraint, place: str, learnt: pa.Schema) -> None:
    types = {name: learnt.field(name).type for name in names_of(one) if name in learnt.names}
    if isinstance(one, Ordered):
        alike = len(set(types.values())) == 1 or all(
            pt.is_integer(t) or pt.is_floating(t) for t in types.values()
        )
        fine = alike and all(is_numeric(t) and not pt.is_uint64(t) for t in types.values())
        accepted = "numbers (whole and floating ones may be mixed), or times of one type"
    elif isinstance(one, InRange):
        fine, accepted = all(map(is_numeric, types.values())), "numbers or times"
    elif isinstance(one, Follows):
        fine, accepted = all(map(has_numbers, types.values())), "numbers, dates or timestamps"
    elif isinstance(one, Combination):
        fine, accepted = all(map(combines, types.values())), "categories, whole numbers or dates"
    else:
        return
    if not fine:
        said = ", ".join(f"{name} is {type_}" for name, type_ in types.items())
        raise InvalidInput(f"{place} ({one.kind}): found {said}; accepted are {accepted}")
    if isinstance(one, InRange):
        _ends(one, learnt.field(one.column).type, place)


def _ends(one: InRange, type_: pa.DataType, place: str) -> pa.Array:
    try:
        ends = as_type([one.min, one.max], type_)
    except (pa.ArrowException, OverflowError, ValueError, TypeError) as error:
        raise InvalidInput(f"{place}: min or max cannot be read as {type_} ({error})") from None
    if ends.null_count == 0 and ends[0].as_py() > ends[1].as_py():
        raise InvalidInput(f"{place}: min {one.min} is greater than max {one.max}")
    return ends


def _pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    return list(pairwise(names))


def _refuse_circles(kind: str, edges: Sequence[tuple[str, str]]) -> None:
    """InvalidInput where what comes first comes after itself."""
    after: dict[str, set[str]] = {}
    for first, second in edges:
        after.setdefault(first, set()).add(second)
    for start in after:
        todo, seen = list(after[start]), set[str]()
        while todo:
            name = todo.pop()
            if name == start:
                raise InvalidInput(
                    f"modality.constraints ({kind}): {start!r} goes round in a circle; drop one of them"
                )
            if name not in seen:
                seen.add(name)
                todo += after.get(name, ())


# -- fitting -------------------------------------------------------------------------------------------------


class ConstraintFit:
    """What one pass learns of the constraints that a job declares."""

    def __init__(self, declared: Sequence[Constraint], learnt: pa.Schema) -> None:
        self.declared, self.rows = list(declared), 0
        self.counts = {
            i: CombinationCounts(one.columns)
            for i, one in enumerate(declared)
            if isinstance(one, Combination)
        }
        self.seen: dict[int, Kept] = {}
        for i, one in enumerate(declared):
            if isinstance(one, Ordered):
                self.seen[i] = Order(tuple(one.columns), one.strict)
            elif isinstance(one, InRange):
                ends = _ends(one, learnt.field(one.column).type, "modality.constraints")
                self.seen[i] = Range((one.column,), ends)
        self.broken = dict.fromkeys(self.seen, 0)

    def update(self, batch: pa.RecordBatch | pa.Table) -> None:
        """Some more rows."""
        if not self.declared:
            return
        table = batch if isinstance(batch, pa.Table) else pa.Table.from_batches([batch])
        self.rows += table.num_rows
        for i, one in self.seen.items():
            self.broken[i] += int(one.broken(table).sum())
        for counts in self.counts.values():
            counts.update(table)

    def notes(self) -> list[str]:
        """What whoever trains should know: constraints that the training data break themselves."""
        return [
            f"constraint {self.seen[i].text}: {n:,} of the {self.rows:,} rows to learn break it; no drawn row will. "
            "A filter of the source would keep them from being learnt"
            for i, n in self.broken.items()
            if n
        ]

    def combinations(
        self, schema: pa.Schema, columns: Sequence[Column], rare_below: int
    ) -> dict[int, Combinations]:
        """By the declaration's number."""
        by_name = dict(zip(schema.names, columns, strict=True))
        return {
            i: counts.combinations([by_name[name] for name in counts.columns], rare_below)
            for i, counts in self.counts.items()
        }


def relations_of(declared: Sequence[Constraint], schema: pa.Schema) -> list[Relation]:
    """The formulae as relations; their decimals and how often they hold are for the data to say."""
    found = []
    for one in declared:
        if isinstance(one, Follows):
            parts = parse_formula(one.equals)
            operands = tuple(schema.names.index(name) for name in parts.operands)
            target = schema.names.index(one.column)
            found.append(Relation(target, operands, parts.factors, parts.constant, parts.kind, declared=True))
    return found


def kept_of(
    declared: Sequence[Constraint],
    schema: pa.Schema,
    columns: Sequence[Column],
    combinations: Mapping[int, Combinations],
) -> tuple[Kept, ...]:
    """The constraints, but for formulae, with what is known of the columns."""
    found: list[Kept] = []
    codecs = dict(zip(schema.names, columns, strict=True))
    for i, one in enumerate(declared):
        if isinstance(one, Ordered):
            found.append(
                Order(tuple(one.columns), one.strict, tuple(unit_of(codecs[n]) for n in one.columns))
            )
        elif isinstance(one, InRange):
            found.append(Range((one.column,), _ends(one, schema.field(one.column).type, "range")))
        elif isinstance(one, Combination):
            found.append(combinations[i])
        elif isinstance(one, DeclaredUnique):
            found.append(Unique(tuple(one.columns)))
    return tuple(found)


def formulae_of(relations: Sequence[Relation], names: Sequence[str]) -> tuple[Kept, ...]:
    """The declared ones among the relations, as constraints."""
    found: list[Kept] = []
    for one in relations:
        if one.declared:
            columns = tuple(names[i] for i in (one.target, *one.operands))
            found.append(Formula(columns, one.moved(0, range(1, len(columns)))))
    return tuple(found)


def require_unique(declared: Sequence[Constraint], made: Mapping[str, Made]) -> None:
    """Raise InvalidInput for a unique key none of whose columns is made without repeating a value."""
    for number, one in enumerate(declared):
        if isinstance(one, DeclaredUnique) and not any(_never_repeats(made.get(n)) for n in one.columns):
            first = one.columns[0]
            raise InvalidInput(
                f"modality.constraints[{number}] (unique): {', '.join(one.columns)} are learnt, and values that are "
                "drawn from a distribution repeat. Say how one of them is made, under modality.made, such as "
                f"{{{first}: {{kind: sequence}}}} or {{{first}: {{kind: pattern, pattern: 'A[0-9]{{8}}'}}}}"
            )


def _never_repeats(how: Made | None) -> bool:
    return isinstance(how, MadeInSequence) or (isinstance(how, MadeByPattern) and how.unique)


def orders_in(values: np.ndarray, names: Sequence[str], schema: pa.Schema, least: int = 100) -> list[Ordered]:
    """Times of one type that are always in order in the rows of values (rows, columns), without what follows."""
    times = [i for i, name in enumerate(names) if pt.is_temporal(schema.field(name).type)]

    def ordered(i: int, j: int) -> bool:
        there = np.isfinite(values[:, i]) & np.isfinite(values[:, j])
        alike = schema.field(names[i]).type == schema.field(names[j]).type
        own = values[there]
        return bool(
            alike
            and there.sum() >= least
            and (own[:, i] <= own[:, j]).all()
            and (own[:, i] < own[:, j]).any()
        )

    pairs = {(i, j) for i in times for j in times if i != j and ordered(i, j)}
    direct = sorted((i, j) for i, j in pairs if not any((i, k) in pairs and (k, j) in pairs for k in times))
    return [Ordered(kind="order", columns=[names[i], names[j]]) for i, j in direct]


def new_orders(declared: Sequence[Constraint], found: Sequence[Ordered]) -> list[Ordered]:
    """Those that the declared ones do not say already, or contradict."""
    known = [one.columns for one in declared if isinstance(one, Ordered)]
    return [one for one in found if not any(set(one.columns) <= set(columns) for columns in known)]


def to_plain(declared: Sequence[Constraint]) -> list[dict[str, Any]]:
    """JSON-able."""
    return [one.model_dump(mode="json") for one in declared]


def of_plain(found: Sequence[Any]) -> list[Constraint]:
    """The inverse. Raises ValueError."""
    return [DECLARED.validate_python(one) for one in found]
