"""How the columns of one file differ from those of the lake: added, missing, retyped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
import pyarrow.types as pt

Policy = Literal["fail", "skip", "cast"]


@dataclass(frozen=True)
class SchemaDrift:
    """What is different in one file; retyped: (column, type in the file, type in the lake)."""

    added: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    retyped: tuple[tuple[str, str, str], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.missing or self.retyped)

    def __str__(self) -> str:
        """Such as `added gate; missing seats; delay is string instead of double`."""
        parts = [
            f"added {', '.join(self.added)}" if self.added else "",
            f"missing {', '.join(self.missing)}" if self.missing else "",
            *(f"{name} is {found} instead of {usual}" for name, found, usual in self.retyped),
        ]
        return "; ".join(filter(None, parts))


def differences(found: pa.Schema, usual: pa.Schema, typed: bool = True) -> SchemaDrift:
    """Of a file from the lake's columns. typed: false for text formats, where a whole number may stand for a float."""
    both = [name for name in usual.names if name in found.names]
    other = [name for name in both if not _fits(found.field(name).type, usual.field(name).type, typed)]
    return SchemaDrift(
        added=tuple(name for name in found.names if name not in usual.names),
        missing=tuple(name for name in usual.names if name not in found.names),
        retyped=tuple((name, str(found.field(name).type), str(usual.field(name).type)) for name in other),
    )


def usual_schema(schemas: Sequence[pa.Schema], typed: bool = True) -> pa.Schema:
    """The columns that at least half of the files have, each with the type that most of them give it.

    The order is that of the first file that has a column.
    """
    types: dict[str, Counter[pa.DataType]] = {}
    for schema in schemas:
        for field in schema:
            types.setdefault(field.name, Counter())[field.type] += 1
    return pa.schema(
        pa.field(name, _usual_type(found, typed))
        for name, found in types.items()
        if 2 * found.total() >= len(schemas)
    )


def _usual_type(found: Counter[pa.DataType], typed: bool) -> pa.DataType:
    known = Counter({kind: count for kind, count in found.items() if not pt.is_null(kind)}) or found
    floats = [kind for kind in known if pt.is_floating(kind)]
    if floats and not typed and all(pt.is_floating(kind) or pt.is_integer(kind) for kind in known):
        return floats[0]
    return known.most_common(1)[0][0]


def _fits(found: pa.DataType, usual: pa.DataType, typed: bool) -> bool:
    if found == usual or pt.is_null(found):
        return True
    plain = found.value_type if pt.is_dictionary(found) else found
    wanted = usual.value_type if pt.is_dictionary(usual) else usual
    return plain == wanted or (not typed and pt.is_integer(plain) and pt.is_floating(wanted))
