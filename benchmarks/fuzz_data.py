"""Fuzz targets: Parquet, CSV, JSON lines and text, schemas, pictures, sounds"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from functools import cache
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from benchmarks import fuzz_inputs as inputs
from benchmarks.fuzz_bench import Bench, Target, all_of
from genai_core import artifact
from genai_core.catalog import codec_class
from genai_core.errors import InvalidInput
from genai_core.hyperparameters import AudioSettings, ImageSettings, TabularSettings, TextSettings
from pipelines.sources import ParquetSource, SourceSettings, open_source
from pipelines.tracked.lineage import lineage

CHUNK = 512
SOURCE = TypeAdapter(SourceSettings)


def read(settings: dict[str, Any]) -> None:
    """As a job reads: look at it, then every piece."""
    source = open_source(SOURCE.validate_python(settings))
    if source.reader.condition is not None:
        source.require_rows()
    for piece in source.pieces(1000):
        for batch, _ in source.reader.stream(piece, None, CHUNK):
            batch.validate(full=True)
    assert source.digest


@cache
def _parquet() -> list[bytes]:
    return inputs.parquet_files(Random(1))


def _mutated_parquet(random: Random) -> bytes:
    data = random.choice(_parquet())
    length = int.from_bytes(data[-8:-4], "little")
    pages, footer = data[4 : -8 - length], data[-8 - length : -8]
    part = random.random()
    if part < 0.6:
        pages = inputs.in_place(pages, random)
    elif part < 0.9:  # the footer, where schemas and sizes stand
        footer = inputs.mutated(footer, random, [footer])
    else:
        return inputs.mutated(data, random, _parquet())
    return data[:4] + pages + footer + len(footer).to_bytes(4, "little") + data[-4:]


def _run_parquet(bench: Bench, data: bytes) -> None:
    path = str(bench.file("x.parquet", data))
    all_of([lambda: _of_others(path), lambda: read({"kind": "parquet", "path": path})])


def _of_others(path: str) -> None:
    """Files of other programs have no lineage, and that is no refusal of the bytes."""
    with contextlib.suppress(InvalidInput):
        lineage(path)


@cache
def _texts() -> dict[str, list[bytes]]:
    return inputs.text_files(Random(2))


def _mutated_text(random: Random) -> tuple[str, bytes]:
    kind = random.choice(("csv", "jsonl", "text"))
    return kind, inputs.mutated(random.choice(_texts()[kind]), random, _texts()[kind])


def _run_text(bench: Bench, given: tuple[str, bytes]) -> None:
    kind, data = given
    ending = {"csv": "csv", "jsonl": "jsonl", "text": "txt"}[kind] + (
        ".gz" if data[:2] == b"\x1f\x8b" else ""
    )
    read({"kind": kind, "path": str(bench.file(f"x.{ending}", data))})


def _odd_schema(random: Random) -> int:
    return random.randrange(2**32)


def _run_schema(bench: Bench, seed: int) -> None:
    """Through Parquet into every codec that takes the schema, and past a model that learnt another."""
    random = Random(seed)
    path = bench.file("x.parquet", b"")
    try:
        table = inputs.odd_table(random)
        pq.write_table(table, path)
    except (pa.ArrowException, ValueError, UnicodeError, OverflowError):
        return  # no Parquet file can hold it
    source = open_source(ParquetSource(path=str(path)))
    kind = random.choice(("tabular", "tabular", "image", "text", "audio"))
    all_of(
        [
            lambda: artifact.check_schema(artifact.read_header(bench.model), source.schema),
            lambda: _fit(kind, source),
        ]
    )


READINGS = {
    "tabular": TabularSettings(),
    "image": ImageSettings(),
    "text": TextSettings(),
    "audio": AudioSettings(view="log_mel"),
}


def _fit(kind: str, source: Any) -> None:
    codec = codec_class(kind).fit(source.batches(), source.schema, READINGS[kind])
    read = pa.Table.from_batches(source.batches(codec.schema.names))
    records = codec.encode(read)
    codec.decode(records.tokens[records.readable()].astype(np.int64), np.random.default_rng(0)).validate(
        full=True
    )
    state, arrays = codec.state()
    codec_class(kind).from_state(json.loads(json.dumps(state)), arrays)


# -- pictures and sounds ---------------------------------------------------------------------------------------


@cache
def _payloads(kind: str) -> list[bytes]:
    return inputs.pictures(Random(3)) if kind == "image" else inputs.sounds(Random(4))


def _payload(kind: str) -> Callable[[Random], bytes]:
    return lambda random: inputs.mutated(random.choice(_payloads(kind)), random, _payloads(kind))


def _run_payload(kind: str) -> Callable[[Bench, bytes], None]:
    """Encoded as a row of a job beside a sound row, which must not suffer."""

    def run(bench: Bench, data: bytes) -> None:
        if kind not in bench.kept:
            table = pa.table({"x": pa.array(_payloads(kind)[:1] * 12, pa.binary())})
            settings = (
                ImageSettings(size=(8, 8)) if kind == "image" else AudioSettings(view="log_mel", rate=8000)
            )
            bench.kept[kind] = codec_class(kind).fit(table.to_batches(), table.schema, settings)
        records = bench.kept[kind].encode(pa.table({"x": pa.array([data, _payloads(kind)[0]], pa.binary())}))
        assert 1 not in records.faults and all(records.faults.values())

    return run


TARGETS = (
    Target("parquet_bytes", 12_000, _mutated_parquet, _run_parquet),
    Target("odd_schemas", 4_000, _odd_schema, _run_schema),
    Target("csv_jsonl_text", 10_000, _mutated_text, _run_text),
    Target("pictures", 10_000, _payload("image"), _run_payload("image")),
    Target("sounds", 4_000, _payload("audio"), _run_payload("audio")),
)
