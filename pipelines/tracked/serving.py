"""A fitted model behind MLflow's `predict(DataFrame, params)`: signature, types, answers. Knows pandas, not mlflow."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from genai_core.errors import InvalidInput, SchemaMismatch, nearest

if TYPE_CHECKING:
    import pandas as pd

    from genai_core.fitted import FittedModel

TASKS = ("generate", "score")
MAX_ROWS = 1_000_000
PARAMETERS: dict[str, tuple[str, Any]] = {  # name: (MLflow's type, default)
    "task": ("string", "score"),
    "rows": ("long", 1),
    "seed": ("long", 0),
    "where": ("string", ""),
}


def signature(schema: pa.Schema, score_names: tuple[str, ...]) -> dict[str, str]:
    """MLflow's signature as JSON texts. Every column is optional there: `predict` names all that are missing itself."""
    inputs = [{"type": column_type(f.type), "name": f.name, "required": False} for f in schema]
    outputs = [{"type": "double", "name": name, "required": True} for name in (*score_names, "p_value")]
    params = [{"name": n, "type": t, "default": d, "shape": None} for n, (t, d) in PARAMETERS.items()]
    return {"inputs": json.dumps(inputs), "outputs": json.dumps(outputs), "params": json.dumps(params)}


def column_type(kind: pa.DataType) -> str:
    """MLflow's name for an Arrow type; "any" where its check refuses good data: gaps in integers, categories, zones."""
    if pa.types.is_floating(kind):
        return "double"
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return "string"
    if pa.types.is_timestamp(kind) and kind.tz is None:
        return "datetime"
    return "any"


def predict(model: FittedModel, frame: pd.DataFrame, params: Mapping[str, Any] | None = None) -> pd.DataFrame:
    """Scores of the rows (higher = more anomalous) and the first score's p-value, or generated rows."""
    asked = {name: default for name, (_, default) in PARAMETERS.items()} | dict(params or {})
    if asked["task"] not in TASKS:
        raise InvalidInput(
            f"task {asked['task']!r}; accepted are {', '.join(TASKS)}{nearest(asked['task'], TASKS)}"
        )
    if asked["task"] == "generate":
        return _generated(model, asked)
    return _scored(model, frame)


def _generated(model: FittedModel, asked: Mapping[str, Any]) -> pd.DataFrame:
    rows = int(asked["rows"])
    if not 0 < rows <= MAX_ROWS:
        raise InvalidInput(
            f"rows {rows}; accepted are 1 to {MAX_ROWS:,}: larger tables are made by `genai run`"
        )
    return json_frame(model.sample(rows, seed=int(asked["seed"]), where=_conditions(asked["where"])))


def _conditions(text: str) -> dict[str, Any] | None:
    try:
        where = json.loads(text) if text else None
    except ValueError:
        where = text
    if where is not None and not isinstance(where, dict):
        raise InvalidInput(f'where {text!r}; give a JSON object such as {{"origin": "JFK"}}')
    return where


def _scored(model: FittedModel, frame: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    table = to_table(frame, model.schema)
    model.check_schema(table.schema)
    totals = dict(model.score(table, model.score_names).totals)
    first = next(iter(totals))
    return pd.DataFrame(totals | {"p_value": model.p_values(first, totals[first])})


def json_frame(table: pa.Table) -> pd.DataFrame:
    """Rows as a JSON request or answer carries them: types that JSON lacks become text, which `to_table` reads back."""
    columns = [c if _in_json(c.type) else _text(c) for c in table.columns]
    return pa.table(columns, names=table.column_names).to_pandas()


def _in_json(kind: pa.DataType) -> bool:
    return column_type(kind) != "any" or pa.types.is_integer(kind) or pa.types.is_boolean(kind)


def _text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    plain = column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
    return plain.cast(pa.string())


def to_table(frame: pd.DataFrame, schema: pa.Schema) -> pa.Table:
    """The frame's columns as the schema types them; JSON's and pandas' looser types are cast, never rounded."""
    present = [field for field in schema if field.name in frame.columns]
    return pa.table([_column(frame[f.name], f) for f in present], schema=pa.schema(present))


def _arrow(values: pd.Series) -> pa.Array:
    """pyarrow reads zoned times by a way that pandas 3.1 announces to change."""
    if getattr(values.dtype, "tz", None) is None:
        return pa.array(values, from_pandas=True)
    array = pa.array(values.dt.tz_convert(None), from_pandas=True)
    return array.cast(pa.timestamp(array.type.unit, "UTC"))


def _column(values: pd.Series, field: pa.Field) -> pa.Array:
    try:
        array = _arrow(values)
        if pa.types.is_dictionary(array.type):
            array = array.cast(array.type.value_type)
        if pa.types.is_dictionary(field.type):
            return array.cast(field.type.value_type).dictionary_encode().cast(field.type)
        return array.cast(field.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        reason = str(error).splitlines()[0]
        raise SchemaMismatch(f"column {field.name!r} cannot be read as {field.type}: {reason}") from error
