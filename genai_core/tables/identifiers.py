"""Columns that are made and not learnt: identifiers, and what names a person.

A column that has another value in nearly every row holds nothing to learn: its values would be repeated, which gives
persons away, or be lost. Such columns are found in the first rows and left out of learning; when rows are drawn they
are made outside the model: numbers in a row, codes of the same pattern, or null for free text.

What is made depends on the seed and on the number of the row alone: the same for any number of workers.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt
from pydantic import TypeAdapter

from genai_core.errors import InvalidData, InvalidInput, Unavailable
from genai_core.tables.declarations import Made, MadeByFaker, MadeByPattern, MadeEmpty, MadeInSequence

WATCHED_ROWS = 20_000  # the first rows: enough to see that a category has no end
LEAST_ROWS = 100  # fewer may differ by chance
UNIQUE = 0.9  # share of the values that are different
FITS = 0.9  # share of the values that a pattern must describe
LONGEST = 64  # characters of a code; longer values are free text
ENOUGH = 10**9  # values of a pattern that was found, from which on none is made twice
MOST_NUMBERED = 2**62
GOLDEN = 0.6180339887498949  # an irrational stride: neighbours are far apart (Knuth, multiplicative hashing)
CLASSES = {"A-Z": "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "a-z": "abcdefghijklmnopqrstuvwxyz", "0-9": "0123456789"}
TOKEN = re.compile(r"(\[(?:[^\]\\]|\\.)+\]|\\.|[^\[\]{}()|*+?^$.])(?:\{(\d+)(?:,(\d+))?\})?")
RUN = re.compile(r"([A-Z]+)|([a-z]+)|([0-9]+)|(.)", re.S)
MADE: TypeAdapter[Made] = TypeAdapter(Made)


# -- making ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Piece:
    """`low` to `high` characters of a pattern, each one of `characters`."""

    characters: str
    low: int
    high: int


def parse_pattern(pattern: str) -> list[Piece]:
    """Pieces of a pattern: literals, classes such as [A-Z0-9], \\d, each with {n} or {n,m}. Raises InvalidInput."""
    pieces, at = [], 0
    while at < len(pattern):
        found = TOKEN.match(pattern, at)
        if found is None:
            raise InvalidInput(
                f"pattern {pattern!r}: cannot be read at {pattern[at:][:10]!r}; accepted are characters, classes such "
                "as [A-Z0-9], \\d, and {3} or {2,5} after them; a backslash before any other character"
            )
        token, low, high = found.groups()
        low_count = int(low) if low else 1
        pieces.append(Piece(_characters(token, pattern), low_count, int(high) if high else low_count))
        at = found.end()
    if any(not 0 <= p.low <= p.high <= 256 or not p.high for p in pieces) or not pieces:
        raise InvalidInput(f"pattern {pattern!r}: a piece has 1 to 256 characters, the smaller number first")
    return pieces


def _characters(token: str, pattern: str) -> str:
    if token == r"\d":
        return CLASSES["0-9"]
    if not token.startswith("["):
        return token[-1]
    found, inside = [], re.findall(r"\\.|.", token[1:-1], re.S)
    while inside:
        first = inside.pop(0)[-1]
        if len(inside) >= 2 and inside[0] == "-":
            last = inside[1][-1]
            del inside[:2]
            if not ord(first) <= ord(last) < ord(first) + 1000:
                raise InvalidInput(f"pattern {pattern!r}: {first}-{last} is no range of characters")
            found += [chr(code) for code in range(ord(first), ord(last) + 1)]
        else:
            found.append(first)
    return "".join(dict.fromkeys(found))


def values_of_pattern(pieces: list[Piece], unique: bool) -> int:
    """How many different values are made; unique ones have every piece at its longest."""
    if unique:
        return math.prod(len(p.characters) ** p.high for p in pieces)
    return math.prod(sum(len(p.characters) ** n for n in range(p.low, p.high + 1)) for p in pieces)


def make(
    how: Made, field: pa.Field, rows: int, first: int, random: np.random.Generator, seed: int
) -> pa.Array:
    """A column of made values: rows first, first + 1, ... of an output."""
    if isinstance(how, MadeInSequence):
        found = pa.array(np.arange(first, first + rows, dtype=np.int64) + how.start)
    elif isinstance(how, MadeByPattern):
        found = pa.array(_by_pattern(how, rows, first, random), pa.string())
    elif isinstance(how, MadeByFaker):
        found = pa.array(_by_faker(how, rows, seed), pa.string())
    else:
        found = pa.nulls(rows)
    if pt.is_dictionary(field.type):
        return found.cast(field.type.value_type).dictionary_encode().cast(field.type)
    return found.cast(field.type)


def _by_pattern(how: MadeByPattern, rows: int, first: int, random: np.random.Generator) -> list[str]:
    pieces = parse_pattern(how.pattern)
    if how.unique and first + rows > values_of_pattern(pieces, unique=True):
        raise InvalidInput(
            f"pattern {how.pattern!r} has {values_of_pattern(pieces, True):,} values, and row {first + rows:,} needs "
            "one of its own; lengthen the pattern, or set unique: false"
        )
    sizes = np.array([len(p.characters) for p in pieces for _ in range(p.high)])
    digits = (random.random((rows, len(sizes))) * sizes).astype(np.int64)
    if how.unique:
        _number(digits, sizes, first)
    letters = [np.array(list(p.characters)) for p in pieces for _ in range(p.high)]
    columns = np.stack([some[digits[:, i]] for i, some in enumerate(letters)], 1)
    if not how.unique:  # the length of each piece
        at = 0
        for p in pieces:
            length = p.low + (random.random(rows) * (p.high - p.low + 1)).astype(np.int64)
            columns[:, at : at + p.high][np.arange(p.high) >= length[:, None]] = ""
            at += p.high
    return ["".join(row) for row in columns.tolist()]


def _number(digits: np.ndarray, sizes: np.ndarray, first: int) -> None:
    """Write a permutation of the row's number into the last digits, as many as have fewer than 2^62 values."""
    start, space = len(sizes), 1
    while start and space * int(sizes[start - 1]) < MOST_NUMBERED:
        start -= 1
        space *= int(sizes[start])
    stride = int(space * GOLDEN) | 1
    while math.gcd(stride, space) != 1:
        stride += 2
    left = np.array([row * stride % space for row in range(first, first + len(digits))], np.int64)
    for place in range(len(sizes) - 1, start - 1, -1):
        left, digits[:, place] = np.divmod(left, sizes[place])


def _by_faker(how: MadeByFaker, rows: int, seed: int) -> list[str]:
    made = faker_method(how, seed)
    return [str(made()) for _ in range(rows)]


def faker_method(how: MadeByFaker, seed: int = 0) -> Any:
    """The provider's method. Unavailable without Faker, InvalidInput for a provider or a locale that it has not."""
    try:
        from faker import Faker
    except ImportError:
        raise Unavailable(
            "columns made by faker need the package Faker; say: pip install 'genai-core[personal]'"
        ) from None
    try:
        faker = Faker(how.locale)
        faker.seed_instance(seed)
        return getattr(faker, how.provider)
    except (AttributeError, ImportError, ValueError):
        raise InvalidInput(
            f"made: Faker has no provider {how.provider!r} in the locale {how.locale!r}; such as email, name, address, "
            "phone_number, iban in en_US"
        ) from None


def check_made(made: Mapping[str, Made], schema: pa.Schema) -> None:
    """Raise InvalidInput for columns that cannot be made so, Unavailable without Faker."""
    for name, how in made.items():
        field = schema.field(name)
        if isinstance(how, MadeEmpty) and not field.nullable:
            raise InvalidInput(f"made.{name}: the column takes no nulls; make it otherwise")
        if isinstance(how, MadeByFaker):
            faker_method(how)
        try:
            make(how, field, 2, 0, np.random.default_rng(0), 0)
        except pa.ArrowException as error:
            raise InvalidInput(
                f"made.{name}: what is made does not fit the column's type {field.type} ({error})"
            ) from None


# -- finding -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Found:
    """A column with another value in nearly every row, how it would be made, and why, in words."""

    name: str
    how: Made | None  # None: it cannot be made, since it takes no nulls
    said: str


class Watch:
    """The first rows of columns that may be identifiers."""

    def __init__(self, schema: pa.Schema) -> None:
        self.columns = len(schema)
        self.fields = {f.name: f for f in schema if _can_identify(f.type)}
        self.parts: dict[str, list[pa.Array]] = {name: [] for name in self.fields}
        self.rows = 0

    def update(self, batch: pa.RecordBatch | pa.Table) -> None:
        """Look at the rows of a batch, as long as there are few."""
        left = WATCHED_ROWS - self.rows
        if left > 0:
            for name, parts in self.parts.items():
                parts.append(_plain(batch.column(name).slice(0, left)))
            self.rows += min(left, batch.num_rows)

    def found(self) -> list[Found]:
        """Those that are; none where no other column would be left."""
        judged = [_judge(self.fields[name], pa.concat_arrays(p)) for name, p in self.parts.items() if p]
        found = [one for one in judged if one is not None]
        return found if len(found) < self.columns else []


def _can_identify(type_: pa.DataType) -> bool:
    plain = type_.value_type if pt.is_dictionary(type_) else type_
    return pt.is_string(plain) or pt.is_large_string(plain) or pt.is_integer(plain)


def _plain(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    array = array.dictionary_decode() if pt.is_dictionary(array.type) else array
    return array.cast(pa.string()) if pt.is_large_string(array.type) else array


def _judge(field: pa.Field, values: pa.Array) -> Found | None:
    values = values.drop_null()
    if len(values) < LEAST_ROWS:
        return None
    share = len(values.unique()) / len(values)
    if pt.is_integer(values.type):
        return _numbered(field, values) if share == 1 else None
    if share < UNIQUE:
        return None
    said = f"{share:.0%} of the values of {field.name!r} are different"
    texts = values.to_pylist()
    pattern = infer_pattern(texts)
    if pattern:
        return Found(
            field.name, MadeByPattern(kind="pattern", pattern=pattern), f"{said}; codes like {pattern}"
        )
    kind = (
        "free text" if np.mean([len(t) for t in texts]) > LONGEST or " " in "".join(texts[:100]) else "text"
    )
    return Found(
        field.name, MadeEmpty(kind="empty") if field.nullable else None, f"{said}; {kind} without a pattern"
    )


def _numbered(field: pa.Field, values: pa.Array) -> Found | None:
    """Whole numbers one after the other, in whatever order: a numbering of the rows."""
    ends = pc.min_max(values).as_py()
    if ends["max"] - ends["min"] + 1 != len(values):
        return None
    how = MadeInSequence(kind="sequence", start=ends["min"])
    return Found(field.name, how, f"{field.name!r} numbers the rows")


def infer_pattern(values: list[str]) -> str | None:
    """The pattern that nearly all values have: the same runs of letters, digits and other characters; else None."""
    if any(len(value) > LONGEST for value in values):
        return None
    shapes: dict[tuple[str, ...], list[list[str]]] = {}
    for value in values:
        runs = [(str(found.lastindex), found.group()) for found in RUN.finditer(value)]
        shape = tuple(text if kind == "4" else kind for kind, text in runs)
        shapes.setdefault(shape, []).append([text for _, text in runs])
    shape, rows = max(shapes.items(), key=lambda item: len(item[1]))
    if len(rows) < FITS * len(values) or " " in shape:
        return None
    return "".join(_piece(list(column)) for column in zip(*rows, strict=True)) or None


def _piece(texts: list[str]) -> str:
    """A run as a piece of a pattern: itself, if all have it."""
    if len(set(texts)) == 1:
        return re.sub(r"([\[\]{}()|*+?^$.\\])", r"\\\1", texts[0])
    kind = next(name for name, letters in CLASSES.items() if texts[0][0] in letters)
    lengths = Counter(map(len, texts))
    low, high = min(lengths), max(lengths)
    return f"[{kind}]" + (f"{{{low},{high}}}" if low < high else "" if low == 1 else f"{{{low}}}")


def advice(found: Found) -> str:
    """What to do about a column that is refused."""
    return (
        f"{found.said}: it is not learnt as a category. Say how it is made, under modality.made, such as "
        f"{{{found.name}: {{kind: faker, provider: name}}}} or {{{found.name}: {{kind: empty}}}}; leave it out with "
        "modality.exclude; or set modality.identifiers: learn"
    )


def settle(found: list[Found], how: str) -> tuple[dict[str, Made], list[str]]:
    """Columns to make, and notes for whoever trains. InvalidData: they are refused, or one cannot be made."""
    for one in found:
        if how == "refuse" or one.how is None:
            raise InvalidData(advice(one))
    made = {one.name: one.how for one in found if one.how is not None}
    notes = [
        f"{one.said}: not learnt, made outside the model instead ({_words(made[one.name])}); modality.made says it "
        "otherwise, modality.identifiers: learn learns it"
        for one in found
    ]
    return made, notes


def _words(how: Made) -> str:
    return ", ".join(f"{key}: {value}" for key, value in how.model_dump().items())
