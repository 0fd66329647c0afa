"""Data, job files and names that somebody made to do harm; what the fuzzer has found is here too."""

from __future__ import annotations

import datetime as dt
import io
import json
import resource
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from benchmarks import fuzz_data, fuzz_forgeries
from genai_core.errors import GenAIError, InvalidArtifact, InvalidData, InvalidSpec, JobFailed
from genai_core.hyperparameters import TabularSettings
from genai_core.modalities.tabular import TabularCodec
from genai_core.pictures.encoded import MAX_PIXELS, Unreadable, bombs_refused, read
from jobs.outcome import complain, show_traceback
from jobs.slots import Slot
from jobs.spec import entries
from pipelines.masking import mask_text
from pipelines.outputs.sink import Sink
from pipelines.plan import plan_generation
from pipelines.sources import ParquetSource, open_source
from pipelines.tracked.lineage import lineage
from pipelines.tracked.model_uri import locate

JOB = {"job_id": "generate-0", "verb": "generate", "parts": {}}
PLAN = plan_generation(20, 1, rows_per_shard=10)
TABLE = pa.table({"x": list(range(10))})


# -- data ------------------------------------------------------------------------------------------------------


def text_that_is_none() -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"x": ["plain"] * 12}), sink, use_dictionary=False, compression="none")
    return sink.getvalue().replace(b"plain", b"pl\xffin")


def decimal_beyond_its_precision() -> bytes:
    sink = io.BytesIO()
    value = pa.array([12345], pa.int32()).cast(pa.decimal128(10, 0)).cast(pa.decimal128(5, 0))
    pq.write_table(pa.table({"x": value}), sink, use_dictionary=False, compression="none",
                   store_decimal_as_integer=True, write_statistics=False)  # fmt: skip
    return sink.getvalue().replace(struct.pack("<i", 12345), struct.pack("<i", 2**30))


@pytest.mark.parametrize(
    "data", [text_that_is_none(), decimal_beyond_its_precision()], ids=["text", "decimal"]
)
def test_values_that_no_type_allows_are_refused_as_they_are_read(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.parquet").write_bytes(data)
    source = open_source(ParquetSource(path=str(tmp_path)))
    with pytest.raises(InvalidData, match="not a readable parquet file"):
        list(source.batches())


def test_the_whole_range_of_int64_is_learnt() -> None:
    batch = pa.record_batch({"x": pa.array([-(2**62), 2**62, *range(100)] * 3, pa.int64())})
    codec = TabularCodec.fit([batch], batch.schema)
    made = codec.decode(codec.encode(pa.table(batch)).tokens.astype(np.int64), np.random.default_rng(0))
    assert made["x"][0].as_py() == -(2**62) or abs(made["x"][0].as_py()) <= 2**62


def test_a_cell_wider_than_int64_reaches_is_drawn_from() -> None:
    values = pa.array(np.random.default_rng(0).integers(-(2**63), 2**63 - 1, 400))
    batch = pa.record_batch({"x": values})
    codec = TabularCodec.fit([batch], batch.schema, TabularSettings(clip_extremes=0, identifiers="learn"))
    tokens = codec.encode(pa.table(batch)).tokens.astype(np.int64)
    made = codec.decode(tokens, np.random.default_rng(0))
    assert (codec.encode(made).tokens == tokens).all(), "every value was drawn inside its cell"


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_bomb(side: int) -> bytes:
    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(b"\0" * 2**20))
        + chunk(b"IEND", b"")
    )


def text_bomb() -> bytes:
    """A PNG whose comment unpacks to 200 MB."""
    sink = io.BytesIO()
    Image.new("L", (4, 4)).save(sink, "PNG")
    data, squeezed = sink.getvalue(), zlib.compress(b"x" * 200_000_000, 9)
    return data[:33] + chunk(b"zTXt", b"k\0\0" + squeezed) + data[33:]


@pytest.mark.parametrize(
    "data", [png_bomb(2**16), png_bomb(2**31 - 1), text_bomb()], ids=["64k", "2g", "comment"]
)
def test_a_picture_that_unpacks_to_gigabytes_is_a_fault_of_its_row(data: bytes) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with bombs_refused(), pytest.raises(Unreadable):
        read(data)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000 + MAX_PIXELS // 1000


# -- job files and words ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        'source: {kind: parquet, path: "a\\0b"}',
        "source: {kind: parquet, path: ~nosuchuser/x}",
        f"source: {{kind: parquet, path: {'a' * 5000}}}",
        'model: {kind: gan, generator: \'{"class_name": [], "config": {}}\'}',
        f"model: {{kind: gan, generator: {'a' * 300}.json}}",
        f'model: {{kind: gan, generator: \'{{"class_name": "x", "config": {"[" * 900}{"]" * 900}}}\'}}',
        "model: {kind: gan, generator: ~nosuchuser/x.json}",
        'model: {kind: gan, generator: "a\\0b.json"}',
    ],
)
def test_a_job_file_gets_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    monkeypatch.chdir(tmp_path)
    start = "job: train\nname: x\n" + (
        "" if line.startswith("source") else "source: {kind: parquet, path: x}\n"
    )
    Path("job.yaml").write_text(f"{start}{line}\ntrack: {{enabled: false}}\nsink: {{path: out}}\n")
    with pytest.raises(GenAIError):
        for entry in entries("job.yaml"):
            open_source(entry.job.source)


@pytest.mark.parametrize(
    "text", ["{0.__class__}", "{slot.__class__}", "{slot!r}", "{slot:%s}{0}", "{}", "%s"]
)
def test_templates_fill_in_times_alone(text: str) -> None:
    filled = Slot(dt.datetime(2026, 11, 1, tzinfo=dt.UTC)).fill(text)
    assert "class" not in filled or filled == text


def test_a_template_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "j.yaml").write_text('job: generate\nmodel: m\nrows: 1\nsink: {path: "{slot.__class__}"}\n')
    with pytest.raises(InvalidSpec, match="template that cannot be read"):
        entries(tmp_path / "j.yaml")


def test_messages_and_tracebacks_hold_no_escapes_and_no_secrets(capfd: pytest.CaptureFixture[str]) -> None:
    try:
        raise InvalidData("\x1b[2J s3://me:hunter2hunter2@bucket/x")
    except InvalidData as error:
        show_traceback(error)
        complain(str(error))
    said = "".join(capfd.readouterr())
    assert "\\x1b" in said and "\x1b" not in said and "hunter2" not in said


FORMS = [
    "s3://AKIA:{}@bucket/x", "https://me:{}@host/x", "https://x.blob.core.windows.net/y?sv=1&sig={}",
    "AWS_SECRET_ACCESS_KEY={}", "aws_session_token: {}", "AccountKey={};EndpointSuffix=x", '{{"password": "{}"}}',
    "MLFLOW_TRACKING_TOKEN={}", "https://b.s3.amazonaws.com/x?X-Amz-Signature={}", "Authorization: Bearer {}",
    "RAY_AUTH_TOKEN={}", "postgresql://mlflow:{}@db/mlflow",
]  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_secrets_of_every_form_are_masked(form: str) -> None:
    random = Random(0)
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+/"
    for _ in range(50):
        secret = "".join(random.choices(letters, k=random.randrange(12, 60)))
        shown = mask_text(form.format(secret))
        assert secret not in shown and "***" in shown


def test_the_key_that_names_an_account_is_masked_anywhere() -> None:
    assert mask_text("found AKIAIOSFODNN7EXAMPLE in x") == "found *** in x"
    assert mask_text("token ghp_abcdefghijklmnopqrstuvwxyz0123456789") == "token ***"


# -- what the fuzzer found -------------------------------------------------------------------------------------


def _renamed() -> bytes:
    """A Parquet file whose column has a name that is no UTF-8."""
    sink = io.BytesIO()
    pq.write_table(pa.table({"plain": [1]}), sink, store_schema=False)
    return sink.getvalue().replace(b"plain", b"pl\xffin")


@pytest.fixture
def bench(forgeable_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    from benchmarks.fuzz_bench import prepared

    monkeypatch.chdir(tmp_path)
    return prepared(tmp_path / "bench", forgeable_model)


@pytest.mark.parametrize("part", ["header", "codec", "arrays", "weights"])
def test_forged_models_are_refused_or_load(bench: Any, part: str) -> None:
    for seed in range(20):
        try:
            fuzz_forgeries._run_artifact(bench, (part, seed))
        except InvalidArtifact as error:
            assert str(error)


@pytest.mark.parametrize(
    "provenance", ["[1]", "[[" * 50_000, "\xff", "7", '{"job_id": 3}', '{"job_id": "x", "model": {}}']
)
def test_a_footer_may_say_anything(tmp_path: Path, provenance: str) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(TABLE.replace_schema_metadata({"genai": provenance.encode("latin1")}), path)
    with pytest.raises(GenAIError):
        lineage(str(path))


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("csv", b"a,b\xb5\n1,2\n"),
        ("jsonl", b'{"a": 1, "b\xfe": {"c": 2}}\n'),
        ("jsonl", b'{"a": 1, "b": {"c\xfe": 2}}\n'),
        ("jsonl", b'{"a": "x\xfe"}\n'),
        ("parquet", _renamed()),
    ],
)
def test_names_and_values_that_are_no_utf8_are_refused(tmp_path: Path, kind: str, data: bytes) -> None:
    path = tmp_path / f"x.{kind}"
    path.write_bytes(data)
    with pytest.raises(InvalidData, match=r"no UTF-8|Invalid UTF8"):
        list(open_source(fuzz_data.SOURCE.validate_python({"kind": kind, "path": str(path)})).batches())
    if kind == "parquet":
        with pytest.raises(InvalidData, match="no Parquet file, or damaged"):
            lineage(str(path))


@pytest.mark.parametrize(
    "uri", ["a" * 300, "ab/" * 3000, "~nosuchuser/x", "a\0b", "a\ud800", "file:///a%00b"]
)
def test_a_model_or_an_output_may_be_said_to_lie_anywhere(uri: str) -> None:
    with pytest.raises(GenAIError):
        locate(uri)
    with pytest.raises(GenAIError):
        lineage(uri)


def test_half_a_character_in_a_quarantined_error_does_not_stop_the_others(tmp_path: Path) -> None:
    sink = Sink(str(tmp_path / "out"))
    sink.prepare(JOB)
    sink.write_shard(PLAN.shards[0], TABLE, {})
    sink.quarantine(PLAN.shards[1], ValueError("x"), 1)
    path = tmp_path / "out" / "_quarantine" / "00001.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"error": "\ud800"}))
    with pytest.raises(JobFailed, match="1 of 2 shards are not there"):
        sink.finish(PLAN, {})
