"""What is written to a run, in the forms and limits of MLflow, built without importing it."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa

from pipelines.masking import mask_text
from pipelines.tracked.serving import column_type

KEY_LENGTH, PARAM_LENGTH, TAG_LENGTH, NAME_LENGTH = 250, 6000, 5000, 500
PARAMS_PER_BATCH = 100
DIGEST_LENGTH = 36
SOURCE_TYPES = {
    "": "local",
    "file": "local",
    "gcs": "gs",
    "s3a": "s3",
    "s3n": "s3",
}  # others: the URI's scheme


def now() -> int:
    """Milliseconds since 1970."""
    return int(time.time() * 1000)


def key(name: str) -> str:
    """A name with the characters that MLflow accepts."""
    return re.sub(r"[^\w\-. :/]", "_", name)[:KEY_LENGTH] or "_"


def short_digest(digest: str) -> str:
    """The form in which MLflow keeps a digest (at most 36 characters): the first 32 hexadecimal digits of a sha256."""
    return digest.removeprefix("sha256:")[:32] if digest.startswith("sha256:") else digest[:DIGEST_LENGTH]


def metrics(values: Mapping[str, Any], step: int, model_id: str | None = None) -> list[list[Any]]:
    """[name, value, time, step, model id] for what is a number."""
    numbers = {
        k: float(v) for k, v in values.items() if isinstance(v, (int, float)) or hasattr(v, "__float__")
    }
    return [[key(k), _finite(v), now(), int(step), model_id] for k, v in numbers.items()]


def _finite(value: float) -> float:
    """MLflow's databases hold no infinity: the largest float stands for it. NaN is kept."""
    return math.copysign(1.7976931348623157e308, value) if math.isinf(value) else value


def params(values: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """Nested settings as dotted names and texts, secrets masked, in batches that MLflow accepts."""
    flat = dict(_flat(values))
    names = list(flat)
    for first in range(0, len(names), PARAMS_PER_BATCH):
        yield {name: flat[name] for name in names[first : first + PARAMS_PER_BATCH]}


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif value is not None:
            text = value if isinstance(value, str) else json.dumps(value, default=str)
            masked = mask_text(f"{name}: {text}").removeprefix(f"{name}: ")
            yield key(prefix + str(name)), masked[:PARAM_LENGTH]


def tags(values: Mapping[str, Any]) -> dict[str, str]:
    """Texts with secrets masked."""
    return {key(name): mask_text(str(value))[:TAG_LENGTH] for name, value in values.items()}


def dataset(
    name: str, uri: str, digest: str, schema: pa.Schema | None, rows: int | None, row_filter: str | None
) -> dict[str, str | None]:
    """A dataset with a source type that every MLflow can load; filter, rows and the full digest travel along."""
    scheme = urlsplit(uri).scheme
    where = mask_text(uri) if scheme else str(Path(uri).absolute())
    specs = [{"type": column_type(f.type), "name": f.name, "required": not f.nullable} for f in schema or ()]
    return {
        "name": name[:NAME_LENGTH],
        "digest": short_digest(digest),
        "source_type": SOURCE_TYPES.get(scheme, scheme),
        "source": json.dumps({"uri": where} | ({"filter": row_filter} if row_filter else {})),
        "schema": json.dumps({"mlflow_colspec": specs}) if specs else None,
        "profile": json.dumps({"num_rows": rows, "digest": digest}),
    }
