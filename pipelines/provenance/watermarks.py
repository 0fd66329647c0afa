"""Keys of watermarks from the environment, and looking for their marks in files; genai_core/watermark.py does both ends

The key is in an environment variable and nowhere else: a job file names the variable, and outputs hold the key's id,
from which the key cannot be found.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as pt
from pydantic import Field

from genai_core.errors import InvalidInput
from pipelines.settings import Settings
from pipelines.stores import storage

if TYPE_CHECKING:
    from genai_core.watermark import Watermark

ROWS = 20_000  # of a file, in which a mark is looked for
SYNTHETIC = "_synthetic"  # column of an augmented output: whether a row was made


class WatermarkSettings(Settings):
    """Where the key of a watermark is."""

    key_env: str = Field(
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="environment variable that holds the key, 16 bytes or more",
    )

    @property
    def key_id(self) -> str:
        """What outputs call the key. Raises InvalidInput when there is none."""
        return of_variable(self.key_env).key_id


def of_variable(name: str) -> Watermark:
    """The watermark whose key a variable holds. Raises InvalidInput."""
    from genai_core.watermark import Watermark

    value = os.environ.get(name, "")
    if not value:
        raise InvalidInput(
            f"the environment variable {name} is empty; it shall hold the watermark's key, on every machine that "
            "works. `openssl rand -hex 32` makes one"
        )
    return Watermark(value.encode())


def of_option(name: str | None) -> Watermark | None:
    """The same for a job that may have none."""
    return None if name is None else of_variable(name)


def option(settings: WatermarkSettings | None) -> str | None:
    """What workers are told: the variable's name, never the key."""
    return settings.key_env if settings else None


def require(settings: WatermarkSettings | None, kind: str, modality: str) -> None:
    """Of a job that asks for a watermark: InvalidInput without a key, MissingCapability for models that carry none."""
    from genai_core.watermark import check

    if settings is not None:
        of_variable(settings.key_env)
        check(kind, modality)


def require_room(settings: WatermarkSettings | None, codec: Any) -> None:
    """Of a job that asks for a watermark: InvalidInput for tables whose columns leave no room for it."""
    from genai_core.watermark import KeyedGenerator

    if settings is not None:
        KeyedGenerator.of(of_variable(settings.key_env), codec.space)


class Detector:
    """Looks for one key's mark in Parquet files. The model that made them is needed: its codec knows the tokens."""

    def __init__(self, variable: str, model: str | None) -> None:
        self.mark, self.model = of_variable(variable), model
        self.loaded: dict[str, Any] = {}

    def __call__(self, path: str, provenance: Mapping[str, Any]) -> dict[str, Any]:
        """{"z", "rows", "found", "key_id"} of a file."""
        from genai_core.watermark import detect

        uri = self.model or (provenance.get("model") or {}).get("uri")
        if not uri:
            raise InvalidInput(
                f"{storage.mask(path)} does not say which model made it; name it: --model MODEL looks for the watermark"
            )
        found = detect(self._fitted(uri), drawn_rows(_rows(path)), self.mark)
        return {"z": round(found.z, 2), "rows": found.rows, "found": found.found, "key_id": self.mark.key_id}

    def _fitted(self, uri: str) -> Any:
        if uri not in self.loaded:
            from genai_core import artifact
            from pipelines.tracking import resolve_model

            self.loaded[uri] = artifact.load(resolve_model(uri, None).directory)
        return self.loaded[uri]


def drawn_rows(table: pa.Table) -> pa.Table:
    """Those that a model has drawn, where a column says so: an augmented output has real ones too."""
    if SYNTHETIC not in table.column_names or not pt.is_boolean(table[SYNTHETIC].type):
        return table
    return table.filter(table[SYNTHETIC])


def _rows(path: str) -> pa.Table:
    filesystem, inside = storage.resolve(path)
    parts: list[pa.RecordBatch] = []
    with (
        storage.explained(path),
        filesystem.open_input_file(inside) as stream,
        pq.ParquetFile(stream) as file,
    ):
        for batch in file.iter_batches(ROWS):
            parts.append(batch)
            if sum(part.num_rows for part in parts) >= ROWS:
                break
        return pa.Table.from_batches(parts, file.schema_arrow).slice(0, ROWS)
