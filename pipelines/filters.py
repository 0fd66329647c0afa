"""Row filters as people write them: `month <= 9 and origin in ('JFK', 'LGA') and dep_delay is not null`.

The text is Python's expression grammar, read by `ast` and never evaluated: comparisons of columns and
literals, `in`, `is null`, `and`, `or`, `not`. As in SQL, a comparison with a missing value is neither true
nor false, and only rows for which the whole is true pass. `col('any name')` reaches columns whose names are no
identifiers.
"""

from __future__ import annotations

import ast
import datetime
import decimal
import operator
import re
from collections.abc import Callable
from functools import reduce
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from genai_core.errors import InvalidInput, nearest

Compare = Callable[[Any, Any], Any]
COMPARISONS: dict[type[ast.cmpop], Compare] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
NULLS = ("null", "None", "NULL")
MAX_CONDITIONS = 1000  # Arrow walks expressions by recursion: 10,000 end the process
TRUTHS = {"true": True, "false": False}
ACCEPTED = "accepted are == != < <= > >=, in (...), is null, is not null, and, or, not, and parentheses"
MIRRORED = {
    operator.lt: operator.gt,
    operator.le: operator.ge,
    operator.gt: operator.lt,
    operator.ge: operator.le,
}


def read(text: str) -> ast.Expression:
    """The text as a tree, whatever the columns are; InvalidInput for what is no expression."""
    try:
        return ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise InvalidInput(f"filter {_shortened(text)!r} cannot be read: {_syntax(text, error)}") from error


def parse(text: str, schema: pa.Schema) -> pc.Expression:
    """The expression that keeps the rows for which `text` is true; InvalidInput says what is wrong."""
    tree = read(text)
    try:
        if sum(isinstance(node, ast.Compare) for node in ast.walk(tree)) > MAX_CONDITIONS:
            raise InvalidInput(
                f"filter {_shortened(text)!r} is too long; write many values as: column in (1, 2, ...)"
            )
        return _Filter(text, schema).condition(tree.body)
    except RecursionError as error:
        raise InvalidInput(f"filter {_shortened(text)!r} is nested too deeply") from error


def columns_of(text: str, schema: pa.Schema) -> list[str]:
    """The columns that a filter looks at, sorted."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(text.strip(), mode="eval")):
        match node:
            case ast.Name(id=name) | ast.Call(func=ast.Name(id="col"), args=[ast.Constant(value=str(name))]):
                found.add(name)
    return sorted(found & set(schema.names))


def _shortened(text: str) -> str:
    return text if len(text) <= 200 else text[:197] + "..."


def _syntax(text: str, error: Exception) -> str:
    if not text.strip():
        return "it is empty; leave the key out to take all rows"
    if re.search(r"(?<![=!<>])=(?!=)", text):
        return "use == to compare"
    if isinstance(error, RecursionError | MemoryError) or "too many nested" in str(error):
        return "it is nested too deeply"
    where = f" at column {error.offset}" if isinstance(error, SyntaxError) and error.offset else ""
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{message}{where}; {ACCEPTED}, all in lower case"


class _Filter:
    """One text against one schema."""

    def __init__(self, text: str, schema: pa.Schema) -> None:
        self.text = text
        self.schema = schema

    def fault(self, message: str) -> InvalidInput:
        return InvalidInput(f"filter {_shortened(self.text)!r}: {message}")

    def condition(self, node: ast.expr) -> pc.Expression:
        """Something that is true or false of a row."""
        match node:
            case ast.BoolOp(op=ast.And(), values=values):
                return reduce(operator.and_, map(self.condition, values))
            case ast.BoolOp(op=ast.Or(), values=values):
                return reduce(operator.or_, map(self.condition, values))
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return ~self.condition(operand)
            case ast.Compare():
                return self.comparison(node)
            case _ if (column := self.column(node)) is not None:
                return self.flag(column)
        raise self.fault(f"{ast.unparse(node)!r} is not a condition; {ACCEPTED}")

    def flag(self, field: pa.Field) -> pc.Expression:
        """A boolean column alone."""
        if not pa.types.is_boolean(field.type):
            raise self.fault(
                f"{field.name!r} is {field.type}, not boolean: compare it, as in {field.name} == ..."
            )
        return pc.field(field.name)

    def comparison(self, node: ast.Compare) -> pc.Expression:
        """`a < b`, and chains of it."""
        sides = [node.left, *node.comparators]
        return reduce(operator.and_, [self.pair(sides[i], op, sides[i + 1]) for i, op in enumerate(node.ops)])

    def pair(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> pc.Expression:
        if isinstance(op, ast.Is | ast.IsNot):
            return self.nullness(left, op, right)
        if isinstance(op, ast.In | ast.NotIn):
            return self.membership(left, op, right)
        compare = COMPARISONS[type(op)]
        first, second = self.column(left), self.column(right)
        if first is not None and second is not None:
            return self.two_columns(compare, first, second)
        if first is not None:
            return compare(pc.field(first.name), self.literal(right, first))
        if second is not None:  # 5 < column: an Expression must stand first
            return MIRRORED.get(compare, compare)(pc.field(second.name), self.literal(left, second))
        raise self.fault(f"{ast.unparse(left)} against {ast.unparse(right)} compares no column; {ACCEPTED}")

    def two_columns(self, compare: Compare, first: pa.Field, second: pa.Field) -> pc.Expression:
        expression = compare(pc.field(first.name), pc.field(second.name))
        empty = pa.table({f.name: pa.array([], f.type) for f in (first, second)})
        try:
            empty.filter(expression)
        except pa.ArrowException as error:
            raise self.fault(
                f"{first.name} ({first.type}) and {second.name} ({second.type}) do not compare"
            ) from error
        return expression

    def nullness(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> pc.Expression:
        field = self.needed(left)
        if not _is_null(right):
            raise self.fault(f"'is' goes with null alone; use == to compare with {ast.unparse(right)!r}")
        missing = pc.field(field.name).is_null()
        return ~missing if isinstance(op, ast.IsNot) else missing

    def membership(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> pc.Expression:
        field = self.needed(left)
        # `in ('JFK')` reaches us as the text alone: it is no tuple
        items = right.elts if isinstance(right, ast.Tuple | ast.List | ast.Set) else [right]
        values = [self.literal(item, field) for item in items]
        kind = _value_type(field.type)
        try:
            wanted = pa.array([value.cast(kind).as_py() for value in values], kind)
        except pa.ArrowException as error:
            raise self.fault(f"a value in {ast.unparse(right)} does not fit {field.name} ({kind})") from error
        column = pc.field(field.name)
        # is_in says false of a missing value, which `not` would turn into true
        found = pc.if_else(column.is_valid(), column.isin(wanted), pa.scalar(None, pa.bool_()))
        return ~found if isinstance(op, ast.NotIn) else found

    def needed(self, node: ast.expr) -> pa.Field:
        field = self.column(node)
        if field is None:
            raise self.fault(f"expected a column, found {ast.unparse(node)!r}")
        return field

    def column(self, node: ast.expr) -> pa.Field | None:
        """The column that a node names; None for anything else."""
        match node:
            case ast.Name(id=name) if name in NULLS or (name in TRUTHS and name not in self.schema.names):
                return None
            case ast.Name(id=name):
                return self.field(name)
            case ast.Call(func=ast.Name(id="col"), args=[ast.Constant(value=str(name))], keywords=[]):
                return self.field(name)
        return None

    def field(self, name: str) -> pa.Field:
        if name not in self.schema.names:
            known = ", ".join(self.schema.names)
            hint = nearest(name, self.schema.names)
            raise self.fault(f"no column {name!r}{hint} (columns: {known}); text goes in quotes")
        return self.schema.field(name)

    def literal(self, node: ast.expr, field: pa.Field) -> pa.Scalar:
        """A constant as a scalar that compares with the column."""
        if _is_null(node):
            raise self.fault(f"nothing equals null; write {field.name} is null, or {field.name} is not null")
        value = self.constant(node)
        try:
            return _scalar(value, _value_type(field.type))
        except (pa.ArrowException, ValueError, TypeError, OverflowError, decimal.InvalidOperation) as error:
            raise self.fault(f"{value!r} does not compare with {field.name} ({field.type})") from error

    def constant(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=bool() | int() | float() | str() as value):
                return value
            case ast.Name(id=name) if name in TRUTHS:
                return TRUTHS[name]
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
                return -value
        raise self.fault(f"{ast.unparse(node)!r} is no value; accepted are numbers, 'text', true and false")


def _is_null(node: ast.expr) -> bool:
    if isinstance(node, ast.Name):
        return node.id in NULLS
    return isinstance(node, ast.Constant) and node.value is None


def _value_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _scalar(value: Any, kind: pa.DataType) -> pa.Scalar:
    """A literal for a column of a type; text becomes whatever the column holds."""
    if isinstance(value, bool) or pa.types.is_boolean(kind):
        return _flag(value, kind)
    if isinstance(value, str):
        return _from_text(value, kind)
    if pa.types.is_decimal(kind):  # Arrow cannot compare a decimal with an integer literal
        return pa.scalar(decimal.Decimal(str(value)))
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return pa.scalar(value)
    raise TypeError(f"a number against {kind}")


def _flag(value: Any, kind: pa.DataType) -> pa.Scalar:
    if isinstance(value, str):
        return pa.scalar(value).cast(kind)
    if not isinstance(value, bool) or not pa.types.is_boolean(kind):
        raise TypeError("booleans compare with booleans")
    return pa.scalar(value)


def _from_text(value: str, kind: pa.DataType) -> pa.Scalar:
    if pa.types.is_timestamp(kind):
        return _timestamp(value, kind)
    if pa.types.is_time(kind):
        return pa.scalar(datetime.time.fromisoformat(value), kind)
    return pa.scalar(value).cast(kind)


def _timestamp(value: str, kind: pa.DataType) -> pa.Scalar:
    """A time without a zone, against a column with one, is meant in the column's zone."""
    moment = datetime.datetime.fromisoformat(value)
    if kind.tz is None:
        return pa.scalar(value).cast(kind)
    if moment.tzinfo is not None:
        return pa.scalar(moment, kind)
    local = pa.array([moment], pa.timestamp(kind.unit))
    return pc.assume_timezone(local, kind.tz)[0]
