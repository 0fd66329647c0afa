"""What a job file declares of a table's columns: how they are made, and what every drawn row keeps."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from genai_core.settings import Settings


class MadeInSequence(Settings):
    """Whole numbers, one after the other."""

    kind: Literal["sequence"]
    start: int = Field(1, ge=-(2**62), le=2**62)


class MadeByPattern(Settings):
    """Codes such as `[A-Z]{3}-[0-9]{4}`."""

    kind: Literal["pattern"]
    pattern: str = Field(
        min_length=1,
        max_length=200,
        description="characters, classes such as [A-Z0-9], and {3} or {2,5} after them",
    )
    unique: bool = Field(True, description="no code twice in an output")


class MadeByFaker(Settings):
    """Names, addresses and the like, by the package Faker."""

    kind: Literal["faker"]
    provider: str = Field(
        pattern="^[a-z][a-z0-9_]*$", description="such as email, name, address, phone_number"
    )
    locale: str = Field("en_US", pattern="^[a-z]{2,3}(_[A-Z]{2})?$")


class MadeEmpty(Settings):
    """Nulls."""

    kind: Literal["empty"]


Made = Annotated[MadeByFaker | MadeByPattern | MadeEmpty | MadeInSequence, Field(discriminator="kind")]


# -- constraints -------------------------------------------------------------------------------------------------

Names = Annotated[list[str], Field(min_length=2, max_length=64)]
Bound = int | float | str


class _OfColumns(Settings):
    @field_validator("columns", check_fields=False)
    @classmethod
    def _each_once(cls, columns: list[str]) -> list[str]:
        if len(set(columns)) < len(columns):
            raise ValueError(f"{columns} names a column twice")
        return columns


class Ordered(_OfColumns):
    """Columns of which none is greater than the next: numbers, or times of one type."""

    kind: Literal["order"]
    columns: Names
    strict: bool = Field(False, description="each is less than the next, never equal")


class InRange(Settings):
    """A column of numbers or times with a least and a greatest value."""

    kind: Literal["range"]
    column: str
    min: Bound | None = None
    max: Bound | None = None

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError("give min, max or both")
        return self


class Combination(_OfColumns):
    """Categories, whole numbers or dates of which only combinations that the training data holds are drawn."""

    kind: Literal["combination"]
    columns: Names


class Unique(_OfColumns):
    """No two rows of an output have the same values; one of the columns is made, by a sequence or a unique pattern."""

    kind: Literal["unique"]
    columns: Annotated[list[str], Field(min_length=1, max_length=64)]


class Follows(Settings):
    """A column of numbers or times that follows from others, such as `price * count` or `old - paid + bought`."""

    kind: Literal["formula"]
    column: str
    equals: str = Field(
        min_length=1,
        max_length=1000,
        description="a sum of columns with factors, max(0, a - b), a product, or a / b; times count in seconds; names "
        "that are no words stand in `backticks`",
    )

    @field_validator("equals")
    @classmethod
    def _readable(cls, text: str) -> str:
        parse_formula(text)
        return text


Constraint = Annotated[Combination | Follows | InRange | Ordered | Unique, Field(discriminator="kind")]


@dataclass(frozen=True)
class Formula:
    """kind: one of `genai_core.tables.relations.KINDS`; the rest as there, with names in place of numbers."""

    kind: str
    operands: tuple[str, ...]
    factors: tuple[float, ...]
    constant: float = 0.0


ACCEPTED = (
    "accepted are sums such as `a - 2 * b + 5`, max(0, a - b), products a * b and quotients a / b of columns"
)


def parse_formula(text: str) -> Formula:
    """A formula's parts. Raises ValueError."""
    quoted: dict[str, str] = {}

    def hide(found: re.Match[str]) -> str:
        quoted[word := f"quoted_{len(quoted)}_"] = found.group(1)
        return word

    try:
        tree: Any = ast.parse(re.sub(r"`([^`]+)`", hide, text).strip(), mode="eval").body
    except (SyntaxError, RecursionError, MemoryError):
        raise ValueError(f"formula {text!r} cannot be read; {ACCEPTED}") from None
    try:
        found = _formula(tree)
    except _Unread:
        raise ValueError(f"formula {text!r} cannot be kept; {ACCEPTED}") from None
    names = tuple(quoted.get(name, name) for name in found.operands)
    if len(set(names)) < len(names):
        raise ValueError(f"formula {text!r} names a column twice; {ACCEPTED}")
    return Formula(found.kind, names, found.factors, found.constant)


class _Unread(Exception):
    pass


def _formula(tree: Any) -> Formula:
    if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name) and tree.func.id == "max":
        if len(tree.args) != 2 or tree.keywords or _number(tree.args[0]) != 0:
            raise _Unread
        return Formula("clipped", *_sum(tree.args[1]))
    if isinstance(tree, ast.BinOp) and isinstance(tree.op, ast.Div):
        if isinstance(tree.left, ast.Name) and isinstance(tree.right, ast.Name):
            return Formula("quotient", (tree.left.id, tree.right.id), (1.0, 1.0))
        raise _Unread
    factors = _factors(tree)
    if factors is not None and len(factors) > 1:
        return Formula("product", tuple(factors), (1.0,) * len(factors))
    return Formula("sum", *_sum(tree))


def _factors(tree: Any) -> list[str] | None:
    """Names of a product of columns alone."""
    if isinstance(tree, ast.Name):
        return [tree.id]
    if isinstance(tree, ast.BinOp) and isinstance(tree.op, ast.Mult):
        left, right = _factors(tree.left), _factors(tree.right)
        return None if left is None or right is None else left + right
    return None


def _sum(tree: Any) -> tuple[tuple[str, ...], tuple[float, ...], float]:
    terms: list[tuple[str | None, float]] = []
    _terms(tree, 1.0, terms)
    named = [(name, factor) for name, factor in terms if name is not None]
    if not named or any(factor == 0 for _, factor in named):
        raise _Unread
    constant = sum(factor for name, factor in terms if name is None)
    return tuple(name for name, _ in named), tuple(factor for _, factor in named), constant


def _terms(tree: Any, sign: float, terms: list[tuple[str | None, float]]) -> None:
    if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.USub | ast.UAdd):
        _terms(tree.operand, -sign if isinstance(tree.op, ast.USub) else sign, terms)
    elif isinstance(tree, ast.BinOp) and isinstance(tree.op, ast.Add | ast.Sub):
        _terms(tree.left, sign, terms)
        _terms(tree.right, -sign if isinstance(tree.op, ast.Sub) else sign, terms)
    elif isinstance(tree, ast.BinOp) and isinstance(tree.op, ast.Mult):
        numbers = [_number(tree.left), _number(tree.right)]
        if (numbers[0] is None) == (numbers[1] is None):
            raise _Unread
        factor = numbers[0] if numbers[0] is not None else numbers[1]
        _terms(tree.right if numbers[0] is not None else tree.left, sign * float(factor or 0), terms)
    elif isinstance(tree, ast.Name):
        terms.append((tree.id, sign))
    elif (number := _number(tree)) is not None:
        terms.append((None, sign * number))
    else:
        raise _Unread


def _number(tree: Any) -> float | None:
    """A constant of the formula."""
    if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.USub):
        inner = _number(tree.operand)
        return None if inner is None else -inner
    plain = isinstance(tree, ast.Constant) and type(tree.value) in (int, float)
    return float(tree.value) if plain else None
