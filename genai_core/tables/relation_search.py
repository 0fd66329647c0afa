"""Finds the relations that columns of a table keep, in a sample of its rows.

Looked for: c = a in 2 % of the rows or more; c = a + b, a - b, max(0, a - b), a * b in a fifth; sums and differences
of three in half of them; and c = 100 a + b and the like, with whole factors, where they always hold. A relation is
believed only if it holds far more often than one that is off by a last decimal or two: sums of small numbers meet by
chance.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations, product

import numpy as np
import pyarrow as pa

from genai_core.splits import uniform_of
from genai_core.tables.constraint_fit import orders_in
from genai_core.tables.declarations import Ordered
from genai_core.tables.relations import Relation, decimals_of, has_numbers, numbers_of, tolerance

SAMPLE = 4000  # rows
PROBES = {1: 40, 2: 40, 3: 10}  # rows in which every combination of so many operands is tried
MOST = {1: 400, 2: 120, 3: 36}  # columns of numbers up to which so many operands are tried
LEAST = {1: 0.02, 2: 0.2, 3: 0.5}  # share of the rows in which a relation of so many operands holds
SPIKE = 5  # times as often as with an error of one to three last decimals
INFORMATIVE = 30  # rows that say something
FREQUENT = 0.02  # share of a value that says nothing when it is met again
MOST_FACTOR, ALWAYS = 10_000, 0.999
OF_A_COLUMN = 4  # relations


class Sample:
    """Random rows of a stream, the same however it is cut into batches."""

    def __init__(self, schema: pa.Schema) -> None:
        self.names = [field.name for field in schema if has_numbers(field.type)]
        self.keys, self.parts, self.rows = np.zeros(0), [np.zeros((0, len(self.names)))], 0

    def update(self, batch: pa.RecordBatch | pa.Table) -> None:
        """Some more rows."""
        keys = uniform_of(np.arange(self.rows, self.rows + batch.num_rows), 0)
        self.rows += batch.num_rows
        own = keys <= (np.sort(keys)[SAMPLE] if len(keys) > SAMPLE else 1.0)
        if len(self.keys) >= SAMPLE:
            own &= keys < self.keys.max()
        if not self.names or not own.any():
            return
        index = pa.array(np.flatnonzero(own))
        columns = [_taken(batch.column(name), index) for name in self.names]
        keys = np.concatenate([self.keys, keys[own]])
        values = np.concatenate([*self.parts, np.stack([numbers_of(c) for c in columns], 1)])
        best = np.sort(np.argsort(keys)[:SAMPLE])
        self.keys, self.parts = keys[best], [values[best]]

    @np.errstate(all="ignore")  # floats may be as large as they are
    def found(
        self, schema: pa.Schema, declared: Sequence[Relation] = (), search: bool = True
    ) -> tuple[Relation, ...]:
        """Relations between the columns of `schema`, which may be fewer than those that were seen; declared ones first.

        search  False: those alone
        """
        names = [name for name in self.names if name in schema.names]
        values = self.parts[0][:, [self.names.index(name) for name in names]]
        decimals = [decimals_of(values[:, i], schema.field(name).type) for i, name in enumerate(names)]
        at = [schema.names.index(name) for name in names]
        own = [one.moved(at.index(one.target), [at.index(i) for i in one.operands]) for one in declared]
        found = relations(values, decimals, own, search)
        return tuple(one.moved(at[one.target], [at[i] for i in one.operands]) for one in found)

    def orders(self, schema: pa.Schema) -> list[Ordered]:
        """Times that are always in one order."""
        names = [name for name in self.names if name in schema.names]
        return orders_in(self.parts[0][:, [self.names.index(name) for name in names]], names, schema)


def _taken(column: pa.Array | pa.ChunkedArray, index: pa.Array) -> pa.Array:
    found = column.take(index)
    return found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found


@np.errstate(all="ignore")
def relations(
    values: np.ndarray,
    decimals: Sequence[int | None],
    declared: Sequence[Relation] = (),
    search: bool = True,
) -> list[Relation]:
    """Relations that hold in the rows of values (rows, columns; NaN where there is none), those to compute first first.

    decimals  of each column, see `genai_core.tables.relations.decimals_of`
    declared  relations that are kept anyway; no other is found for their targets
    """
    look = _Search(values, decimals)
    kept = {_key(one): look.measured(one) for one in declared}
    taken = {one.target for one in declared}
    for one in sorted(look.candidates(), key=_first) if search else ():
        for read in look.readings(one):
            new = _key(one) not in kept and read.target not in taken
            if new and look.adds(read, list(kept.values())):
                kept[_key(one)] = read
    return _sorted(list(kept.values()))


def _first(one: Relation) -> tuple:
    """Simple relations that always hold come first."""
    return one.share < ALWAYS, len(one.operands), -round(one.share, 3), one.kind == "clipped"


class _Search:
    def __init__(self, values: np.ndarray, decimals: Sequence[int | None]) -> None:
        self.values, self.decimals = values, decimals
        self.rows, self.columns = values.shape
        self.spread = np.array([np.nanstd(c) if np.isfinite(c).any() else 0.0 for c in values.T])
        self.frequent = np.stack([_frequent(column) for column in values.T], 1) if self.columns else values
        self.usable = [i for i in range(self.columns) if 0 < self.spread[i] < np.inf]

    def measured(self, one: Relation) -> Relation:
        """A declared relation with the share of the rows in which it holds."""
        there = np.isfinite(self.values[:, [one.target, *one.operands]]).all(1)
        one = replace(one, decimals=self.decimals[one.target])
        return replace(one, share=float(self.holds(one)[there].mean()) if there.any() else 0.0)

    def candidates(self) -> Iterator[Relation]:
        """Believed relations, each once: of a sum that can be read several ways one of them."""
        if len(self.values) < INFORMATIVE:
            return
        seen: set[tuple] = set()
        for one in (*self._tried(), *self._always()):
            key = _key(one)
            if key in seen:
                continue
            seen.add(key)
            one = self.readings(one)[0]
            share = self._believed(one)
            if share:
                yield replace(one, share=share, decimals=self.decimals[one.target])

    def _tried(self) -> Iterator[Relation]:
        for number in (1, 2, 3):
            if len(self.usable) > MOST[number]:
                continue
            probes = self._probes(PROBES[number])
            forms = _forms(self.usable, number)
            least = max(int(LEAST[number] * len(probes) * 0.7), 1)
            for target in self.usable:
                goal = probes[:, target, None]
                close = tolerance(goal, self.decimals[target])
                for kind, operands, factors in forms:
                    parts = probes[:, operands]  # (probes, combinations, operands)
                    made = parts.prod(2) if kind == "product" else (parts * factors).sum(2)
                    made = np.maximum(made, 0) if kind == "clipped" else made
                    hits = (np.abs(made - goal) <= close).sum(0)
                    hits[(operands == target).any(1)] = 0
                    for i in np.flatnonzero(hits >= least):
                        yield Relation(
                            target, tuple(map(int, operands[i])), tuple(map(float, factors)), kind=kind
                        )

    def _probes(self, number: int) -> np.ndarray:
        """So many rows with few zeros and few gaps."""
        filled = (np.isfinite(self.values) & (self.values != 0)).sum(1)
        order = np.argsort(-filled, kind="stable")
        better = order[: max(len(order) // 2, 1)]
        return self.values[better[:: max(len(better) // number, 1)][:number]]

    def _always(self) -> Iterator[Relation]:
        """Sums with whole factors, by least squares."""
        names = [i for i in self.usable if np.isfinite(self.values[:, i]).mean() > 0.5]
        if not 2 < len(names) <= MOST[2]:
            return
        rows = self.values[np.isfinite(self.values[:, names]).all(1)][:1000]
        if len(rows) < max(INFORMATIVE, 2 * len(names)):
            return
        for target in names:
            others = [i for i in names if i != target]
            scale = self.spread[others]
            design = np.concatenate(
                [(rows[:, others] - rows[:, others].mean(0)) / scale, np.ones((len(rows), 1))], 1
            )
            found, _, rank, _ = np.linalg.lstsq(design, rows[:, target], rcond=1e-9)
            factors = found[:-1] / scale
            whole = np.rint(factors)
            used = np.flatnonzero(whole)
            if rank < design.shape[1] or not 1 < len(used) <= 6 or np.abs(factors - whole).max() > 1e-3:
                continue
            constant = np.rint(np.median(rows[:, target] - rows[:, others] @ whole))
            if np.abs(whole).max() <= MOST_FACTOR:
                operands = tuple(others[i] for i in used)
                yield Relation(target, operands, tuple(whole[used].tolist()), float(constant))

    def readings(self, one: Relation) -> list[Relation]:
        """The same sum read for each of its columns: first the last of those that are about as wide as the widest."""
        if one.kind != "sum":
            return [one]
        members = [(one.target, -1.0), *zip(one.operands, one.factors, strict=True)]
        able = [(i, f) for i, f in members if abs(f) == 1]
        widest = max(self.spread[i] for i, _ in able)
        order = sorted(able, key=lambda m: (self.spread[m[0]] >= widest / 3, m[0]), reverse=True)
        found = []
        for target, factor in order:
            rest = sorted((i, -f / factor) for i, f in members if i != target)
            found.append(
                replace(
                    one,
                    target=target,
                    operands=tuple(i for i, _ in rest),
                    factors=tuple(f for _, f in rest),
                    constant=-one.constant / factor,
                    decimals=self.decimals[target],
                )
            )
        return found

    def holds(self, one: Relation, off: float = 0.0) -> np.ndarray:
        """Bool (rows,): where it holds, with an error of `off` last decimals."""
        numbers = dict(enumerate(self.values.T))
        goal, decimals = self.values[:, one.target], self.decimals[one.target]
        error = off * 10.0 ** -(decimals or 0)
        found: np.ndarray = np.abs(one.value(numbers) + error - goal) <= tolerance(goal, decimals)
        return found

    def _telling(self, one: Relation) -> np.ndarray:
        """Bool (rows,): where a relation that holds says something: not 0 = 0 - 0, not a frequent value again."""
        operands = list(one.operands)
        there = np.isfinite(self.values[:, [one.target, *operands]]).all(1)
        if len(operands) == 1:
            return there & ~self.frequent[:, one.target]
        goal = self.values[:, one.target]
        alone = (self.values[:, operands] == goal[:, None]).any(1)
        some = (self.values[:, operands] != 0).all(1)
        return there & some & ~alone & ((one.kind != "clipped") | (goal != 0))

    def _believed(self, one: Relation) -> float:
        """Share of the rows with all values in which it holds; 0: it is not believed."""
        telling, holds = self._telling(one), self.holds(one)
        hits = int((telling & holds).sum())
        number = min(len(one.operands), 3)
        there = np.isfinite(self.values[:, [one.target, *one.operands]]).all(1)
        if hits < INFORMATIVE:
            return 0.0
        of = there if number == 1 else telling
        if hits < LEAST[number] * of.sum():
            return 0.0
        if self.decimals[one.target] is not None:
            near = np.mean([(telling & self.holds(one, off)).sum() for off in (-3, -2, -1, 1, 2, 3)])
            if hits < SPIKE * near:
                return 0.0
        return float(holds[there].mean())

    def adds(self, one: Relation, kept: Sequence[Relation]) -> bool:
        """Whether it says what the kept ones do not, and does not go round in a circle with them."""
        own = [k for k in kept if k.target == one.target]
        if len(own) >= OF_A_COLUMN or any(k.share >= ALWAYS for k in own) or _circular(one, kept):
            return False
        known = np.zeros(self.rows, bool)
        for k in own:
            known |= self.holds(k)
        new = self.holds(one) & self._telling(one) & ~known
        if new.sum() < max(INFORMATIVE, LEAST[1] * self.rows):
            return False
        if one.kind != "sum" or one.share < ALWAYS:
            return not self._follows(one, kept)
        rows = [self._vector(k) for k in kept if k.kind == "sum" and k.share >= ALWAYS]
        return np.linalg.matrix_rank(np.stack([*rows, self._vector(one)])) == len(rows) + 1

    def _follows(self, one: Relation, kept: Sequence[Relation]) -> bool:
        """Whether it is a sum that always holds, of which some part happens to be zero."""
        members = {one.target, *one.operands}
        return len(one.operands) > 1 and any(
            k.share >= ALWAYS and members < {k.target, *k.operands} for k in kept
        )

    def _vector(self, one: Relation) -> np.ndarray:
        out = np.zeros(self.columns)
        out[one.target] = -1
        out[list(one.operands)] = one.factors
        return out


def _forms(columns: Sequence[int], number: int) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Kind, operands (combinations, number), factors (number,)."""
    sets = np.array(list(combinations(columns, number)), int).reshape(-1, number)
    signs = [np.array(s, float) for s in product((1, -1), repeat=number) if 1 in s]
    forms = [("sum", sets, s) for s in signs]
    if number == 2:
        forms.append(("product", sets, np.ones(2)))
        forms += [("clipped", sets, s) for s in signs if s.sum() == 0]
    return forms


def _frequent(column: np.ndarray) -> np.ndarray:
    """Bool (rows,): whether the row's value is frequent, or none."""
    _, at, counts = np.unique(column, return_inverse=True, return_counts=True)
    found: np.ndarray = counts[at] > FREQUENT * len(column)
    return found | ~np.isfinite(column) | (column == 0)


def _key(one: Relation) -> tuple:
    """Equal for the ways in which one sum can be read."""
    if one.kind != "sum":
        return one.kind, one.target, *sorted(zip(one.operands, one.factors, strict=True))
    members = sorted([(one.target, -1.0), *zip(one.operands, one.factors, strict=True)])
    sign = members[0][1]
    return ("sum", *((i, f / sign) for i, f in members))


def _circular(one: Relation, kept: Sequence[Relation]) -> bool:
    """Whether an operand depends on the target."""
    needs: dict[int, set[int]] = {}
    for k in kept:
        needs.setdefault(k.target, set()).update(k.operands)
    todo, seen = list(one.operands), set[int]()
    while todo:
        i = todo.pop()
        if i == one.target:
            return True
        if i not in seen:
            seen.add(i)
            todo += needs.get(i, ())
    return False


def _sorted(kept: Sequence[Relation]) -> list[Relation]:
    """Columns that others are computed from first; of one column the relation that holds most often."""
    needs: dict[int, set[int]] = {}
    for k in kept:
        needs.setdefault(k.target, set()).update(k.operands)
    placed: list[int] = []

    def place(i: int) -> None:
        for other in sorted(needs.get(i, ())):
            place(other)
        if i in needs and i not in placed:
            placed.append(i)

    for i in sorted(needs):
        place(i)
    return sorted(kept, key=lambda k: (placed.index(k.target), -k.share))
