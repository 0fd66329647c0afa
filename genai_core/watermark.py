"""A keyed watermark of sampled tokens: whoever has the key can tell the rows from others, file by file, by a z-test.

The numbers that decide a draw come from a hash of what was drawn before, under a secret key, instead of from a random
generator. Over keys they are as random as any, so that no single row is less likely than without (Aaronson 2022;
Kuditipudi et al. 2023). A context that comes again in a batch is drawn at random: otherwise equal contexts would always
go on in the same way (Hu et al. 2023).

Tables  the last fields to be drawn take the uniform of their inverse CDF from the key. High uniforms give high values:
        their correlation tells. Each row uses one of four halves of the other columns as context, so that a column may
        be dropped, and rows dropped or shuffled.
Texts   of one token in four, which are drawn at random: that of the largest keyed Gumbel noise plus logit, after the
        last `RECENT` tokens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt
import torch
from torch import Tensor

from genai_core.errors import InvalidInput, MissingCapability
from genai_core.spaces import Tokens
from genai_core.tables.given import IMPUTED
from genai_core.tables.orders import base_order

MIN_KEY = 16  # bytes: a short key can be guessed, and its id helps
FOUND = 4.0  # z from which on a file counts as marked: by chance one in 30,000 does
TARGETS, GROUPS = 3, 4
MIN_VOCABULARY = 8  # of a target: a yes or no hardly shows a uniform
RECENT = 4  # tokens of a text that make a context
SHARE = 0.25  # of the tokens of texts: with all, batches repeat each other; 10,000 names had 2,916 different, not 9,503
CAN = ("tabular", "text")
_START = np.array([0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573], np.uint64)


class Watermark:
    """A secret key. It never shows in a repr; `key_id` names it without giving it away."""

    def __init__(self, secret: bytes) -> None:
        if len(secret) < MIN_KEY:
            raise InvalidInput(
                f"the watermark's key has {len(secret)} bytes, at least {MIN_KEY} are needed; make one with "
                "`openssl rand -hex 32`"
            )
        self._key = np.frombuffer(_blake(secret, b"genai-watermark"), np.uint64)
        self.key_id = _blake(secret, b"genai-key-id").hex()[:16]

    def __repr__(self) -> str:
        return f"Watermark({self.key_id})"

    def hashes(self, words: np.ndarray) -> np.ndarray:
        """uint64 (n,): SipHash-2-4 (Aumasson & Bernstein 2012) of every row of words (n, k)."""
        words = np.ascontiguousarray(words).astype(np.uint64)
        v = [
            np.full(len(words), start ^ key)
            for start, key in zip(_START, [*self._key, *self._key], strict=True)
        ]
        length = np.full(len(words), (8 * words.shape[1] & 0xFF) << 56, np.uint64)
        for word in (*words.T, length):
            v[3] = v[3] ^ word
            _rounds(v, 2)
            v[0] = v[0] ^ word
        v[2] = v[2] ^ np.uint64(0xFF)
        _rounds(v, 4)
        return v[0] ^ v[1] ^ v[2] ^ v[3]


class KeyedGenerator(torch.Generator):
    """A random generator some of whose numbers a key decides; one for each batch of records."""

    mark: Watermark
    plan: TablePlan | None
    seen: set[int]

    @classmethod
    def of(cls, mark: Watermark, space: Any) -> KeyedGenerator:
        """For records of a space. Raises InvalidInput for tables that leave no room."""
        made = cls()
        made.mark, made.seen = mark, set()
        made.plan = TablePlan.of(space) if isinstance(space, Tokens) else None
        return made


@dataclass(frozen=True)
class TablePlan:
    """Which positions of a table a key draws, and the positions of each context: for every target the same."""

    targets: tuple[int, ...]
    contexts: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, space: Tokens) -> TablePlan:
        """By the fields' first positions alone, the coarse ones: rounding leaves most of them as they are."""
        first = [space.positions_of(field)[0] for field in range(len(space.fields))]
        sizes = np.array([space.vocabularies[i] for i in first])
        order = base_order(space)  # as the network draws
        follows = {one.field for one in space.implied}
        free = [f for f in order if f not in follows]
        last = [f for f in free[-min(TARGETS, len(order) // 2) :] if sizes[f] >= MIN_VOCABULARY]
        rest = order[: order.index(last[0])][::-1] if last else []
        if not last or len(rest) < 2:
            raise InvalidInput(
                f"a watermark needs a column of {MIN_VOCABULARY} values or more and two others beside it; found "
                f"{len(space.fields)} column(s)"
            )
        count = min(GROUPS, len(rest))
        groups = [rest[number::count] for number in range(count)]
        halves = {tuple(sorted(groups[i] + groups[(i + 1) % count])): None for i in range(count)}
        contexts = tuple(tuple(first[f] for f in half) for half in halves)
        return cls(tuple(first[f] for f in last), contexts)

    def words(self, x: np.ndarray, target: int, context: int) -> np.ndarray:
        """What is hashed of records x (rows, positions)."""
        columns = x[:, self.contexts[context]].astype(np.int64)
        tag = np.full((len(x), 1), (target << 16) + context)
        return np.hstack([tag, columns])


def uniforms(generator: torch.Generator, x: Tensor, position: int, drawn: Sequence[int]) -> Tensor:
    """float32 (rows,) in [0, 1) that decide the next token of records x (rows, positions), of which some are drawn."""
    random = torch.rand(len(x), generator=generator)
    plan = generator.plan if isinstance(generator, KeyedGenerator) else None
    if plan is None or position not in plan.targets:
        return random
    assert isinstance(generator, KeyedGenerator)
    chosen = torch.randint(len(plan.contexts), (len(x),), generator=generator).numpy()
    records, out, there = x.numpy(), random.numpy().copy(), set(drawn)
    for number, context in enumerate(plan.contexts):
        rows = np.flatnonzero(chosen == number)
        if len(rows) and there.issuperset(context):
            found = generator.mark.hashes(plan.words(records[rows], position, number))
            unique, first = np.unique(found, return_index=True)
            out[rows[first]] = _unit(unique)
    return torch.from_numpy(out)


def marked(token: Tensor, logits: Tensor, history: Tensor, generator: torch.Generator) -> Tensor:
    """The next token (rows,) of texts: as drawn, or by the key; logits (rows, vocabulary)."""
    if not isinstance(generator, KeyedGenerator):
        return token
    chosen = np.flatnonzero(torch.rand(len(token), generator=generator).numpy() < SHARE)
    contexts = _contexts(generator.mark, history.cpu().numpy()[chosen])
    unique, first = np.unique(contexts, return_index=True)
    new = np.array([int(found) not in generator.seen for found in unique], bool)
    generator.seen.update(int(found) for found in unique)
    rows = chosen[first[new]]
    if not len(rows):
        return token
    noise = _unit(generator.mark.hashes(_pairs(unique[new], logits.shape[1]))).reshape(len(rows), -1)
    gumbel = torch.from_numpy(-np.log(-np.log(np.clip(noise, 2.0**-25, None))))
    where = torch.from_numpy(rows)
    best = (logits[where].float().cpu() + gumbel.float()).argmax(1).to(token)
    return token.index_copy(0, where.to(token.device), best)


@dataclass(frozen=True)
class Detection:
    """z: standard deviations above what files without this key's mark show; tests: what it is combined from."""

    z: float
    rows: int
    tests: Mapping[str, float]

    @property
    def found(self) -> bool:
        """Whether the file counts as marked."""
        return self.z >= FOUND


def detect(fitted: Any, table: pa.Table, mark: Watermark) -> Detection:
    """Look for a key's mark in rows; columns may be missing. Raises MissingCapability, InvalidInput.

    Where a column `_imputed` says which cells were filled, in those alone.
    """
    check(fitted.kind, fitted.modality)
    schema = fitted.codec.schema
    missing = [name for name in schema.names if name not in table.column_names]
    if len(missing) == len(schema.names):
        raise InvalidInput("the file has none of the columns that this model makes")
    columns = [
        pa.nulls(table.num_rows, field.type) if field.name in missing else table[field.name].cast(field.type)
        for field in schema
    ]
    # None of the checks of a job's input: what somebody changed shall be looked at as well
    given = pa.table(columns, schema=pa.schema([field.with_nullable(True) for field in schema]))
    tokens = fitted.codec.encode(given).tokens
    if isinstance(fitted.codec.space, Tokens):
        space, gone = fitted.codec.space, {schema.names.index(name) for name in missing}
        return _detect_table(tokens, space, mark, gone, _filled(table))
    return _detect_text(tokens, fitted.codec.space, mark)


def check(kind: str, modality: str) -> None:
    """Raises MissingCapability for models whose draws no key can decide."""
    if kind != "autoregressive" or modality not in CAN:
        raise MissingCapability(
            f"a {kind} model of modality {modality} carries no watermark; autoregressive models of {' and '.join(CAN)} "
            "do. Sign the files instead: `sign: {key: DIR}`"
        )


def _filled(table: pa.Table) -> Callable[[str], np.ndarray | slice]:
    """Column -> its rows that were drawn."""
    if IMPUTED not in table.column_names or not pt.is_list(table[IMPUTED].type):
        return lambda name: slice(None)
    names = table[IMPUTED].combine_chunks()
    rows, values = pc.list_parent_indices(names).to_numpy(), pc.list_flatten(names)
    return lambda name: rows[pc.equal(values, name).to_numpy(zero_copy_only=False)]


def _detect_table(
    tokens: np.ndarray,
    space: Tokens,
    mark: Watermark,
    missing: set[int],
    filled: Callable[[str], np.ndarray | slice],
) -> Detection:
    plan = TablePlan.of(space)
    gone = {space.positions_of(field)[0] for field in missing}
    tests: dict[str, float] = {}
    solved = {i for one in space.implied for i in one.operands}
    for target in plan.targets:
        field = space.positions[target].field
        column, rows = space.fields[field], filled(space.fields[field])
        if field in solved and not isinstance(rows, slice):
            continue  # a cell that was filled may follow from its relation, and carry no mark
        x = tokens[rows]
        for number, context in enumerate(plan.contexts):
            if target not in gone and gone.isdisjoint(context) and len(x) > 1:
                tests[f"{column}, context {number + 1}"] = _correlation(
                    mark.hashes(plan.words(x, target, number)), x[:, target]
                )
    z = sum(tests.values()) / np.sqrt(len(tests)) if tests else 0.0
    return Detection(float(z), len(tokens), tests)


def _correlation(hashes: np.ndarray, values: np.ndarray) -> float:
    """z of the correlation between keyed uniforms and the ranks of what was drawn; rows of one context count as one.

    Given the values, the uniforms of different contexts are independent without the mark: the variance is exact.
    """
    order = np.argsort(values, kind="stable")
    _, start, count = np.unique(values[order], return_index=True, return_counts=True)
    rank = np.empty(len(values))
    rank[order] = np.repeat(start + (count - 1) / 2, count)
    spread = rank.std()
    if not spread:
        return 0.0
    found, group, size = np.unique(hashes, return_inverse=True, return_counts=True)
    weight = np.bincount(group, (rank - rank.mean()) / spread) / size
    total = float(((_unit(found).astype(np.float64) - 0.5) * weight).sum())
    return total * float(np.sqrt(12 / (weight**2).sum()))


def _detect_text(x: np.ndarray, space: Any, mark: Watermark) -> Detection:
    tokens = x[:, -space.length :].astype(np.int64)
    inside = np.ones(tokens.shape, bool)
    if space.end is not None:  # up to the first end, which was drawn as well
        inside[:, 1:] = np.cumsum(tokens == space.end, 1)[:, :-1] == 0
    pairs = [
        np.stack([_contexts(mark, tokens[rows, :j]), tokens[rows, j].astype(np.uint64)], 1)
        for j in range(tokens.shape[1])
        if len(rows := np.flatnonzero(inside[:, j]))
    ]
    unique = np.unique(np.concatenate(pairs), axis=0) if pairs else np.zeros((0, 2), np.uint64)
    surprise = -np.log1p(-np.clip(_unit(mark.hashes(unique)).astype(np.float64), 0, 1 - 2.0**-25))
    z = (surprise.sum() - len(unique)) / np.sqrt(max(len(unique), 1))
    return Detection(float(z), len(x), {"tokens": float(z)})


def _contexts(mark: Watermark, history: np.ndarray) -> np.ndarray:
    """uint64 (rows,): the last tokens before the next one, -1 where there are none."""
    padded = np.pad(history, ((0, 0), (RECENT, 0)), constant_values=-1)
    return mark.hashes(padded[:, -RECENT:].astype(np.int64))


def _pairs(contexts: np.ndarray, vocabulary: int) -> np.ndarray:
    tokens = np.arange(vocabulary, dtype=np.uint64)
    return np.stack([np.repeat(contexts, vocabulary), np.tile(tokens, len(contexts))], 1)


def _unit(hashes: np.ndarray) -> np.ndarray:
    """float32 in [0, 1): 24 bits, so that none is rounded to 1."""
    return (hashes >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)


def _blake(secret: bytes, what: bytes) -> bytes:
    return hashlib.blake2b(secret, digest_size=16, person=what).digest()


def _rounds(v: list[np.ndarray], count: int) -> None:
    for _ in range(count):
        v[0], v[2] = v[0] + v[1], v[2] + v[3]
        v[1], v[3] = _turned(v[1], 13) ^ v[0], _turned(v[3], 16) ^ v[2]
        v[0] = _turned(v[0], 32)
        v[2], v[0] = v[2] + v[1], v[0] + v[3]
        v[1], v[3] = _turned(v[1], 17) ^ v[2], _turned(v[3], 21) ^ v[0]
        v[2] = _turned(v[2], 32)


def _turned(x: np.ndarray, bits: int) -> np.ndarray:
    return (x << np.uint64(bits)) | (x >> np.uint64(64 - bits))
