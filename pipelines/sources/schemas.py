"""One schema for many files, and batches brought to it."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from genai_core.errors import InvalidData

FOREIGN_METADATA = (b"pandas", b"genai", b"ARROW:schema", b"org.apache.spark")  # true of one file alone


def unify(schemas: Sequence[tuple[str, pa.Schema]]) -> pa.Schema:
    """The schema that every file's rows fit into: columns of all, in order of appearance, types widened.

    Widened are null -> any, narrow -> wide numbers, dictionary -> its plain values where files disagree.
    """
    merged: dict[str, tuple[str, pa.Field]] = {}
    for path, schema in schemas:
        _refuse_duplicates(path, schema)
        for field in schema:
            first_path, known = merged.get(field.name, (path, field))
            merged[field.name] = (first_path, _wider(known, field, first_path, path))
    fields = [_nullable_where_absent(field, schemas) for _, field in merged.values()]
    return pa.schema(fields, metadata=_common_metadata([schema for _, schema in schemas]))


def _refuse_duplicates(path: str, schema: pa.Schema) -> None:
    doubled = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if doubled:
        raise InvalidData(f"{path} has columns of the same name: {', '.join(doubled)}; rename them")


def _wider(known: pa.Field, field: pa.Field, known_path: str, path: str) -> pa.Field:
    if known.type == field.type:
        return known.with_nullable(known.nullable or field.nullable)
    for one, other in ((known, field), (_plain(known), _plain(field))):
        try:
            return pa.unify_schemas(
                [pa.schema([one]), pa.schema([other])], promote_options="permissive"
            ).field(0)
        except pa.ArrowTypeError:
            continue
    raise InvalidData(
        f"column {field.name!r} is {known.type} in {known_path} but {field.type} in {path}; "
        "write the files with one type, or read them as two sources"
    )


def _plain(field: pa.Field) -> pa.Field:
    return field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field


def _nullable_where_absent(field: pa.Field, schemas: Sequence[tuple[str, pa.Schema]]) -> pa.Field:
    if field.nullable or all(field.name in schema.names for _, schema in schemas):
        return field
    return field.with_nullable(True)


def _common_metadata(schemas: Sequence[pa.Schema]) -> dict[bytes, bytes]:
    """Metadata on which all files agree; a library's notes about one file are left out."""
    first = schemas[0].metadata or {}
    others = [schema.metadata or {} for schema in schemas[1:]]
    return {
        key: value
        for key, value in first.items()
        if not key.startswith(FOREIGN_METADATA) and all(other.get(key) == value for other in others)
    }


def cast(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """The values as another type; raises pa.ArrowException where one of them would change."""
    if array.type == kind:
        return array
    if not pa.types.is_dictionary(kind):
        return array.cast(kind)
    plain = array.dictionary_decode() if pa.types.is_dictionary(array.type) else array
    encoded = plain.cast(kind.value_type).dictionary_encode()
    return pa.DictionaryArray.from_arrays(
        encoded.indices.cast(kind.index_type), encoded.dictionary, ordered=kind.ordered
    )
