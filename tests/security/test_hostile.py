"""Inputs that somebody made to do harm, one by one; what the fuzzer has found is here too."""

from __future__ import annotations

import datetime as dt
import io
import json
import resource
import shutil
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
from genai_core import artifact
from genai_core.errors import GenAIError, InvalidArtifact, InvalidData, InvalidSpec, JobFailed, OutputExists
from genai_core.modalities.tabular import TabularCodec
from genai_core.pictures.encoded import MAX_PIXELS, Unreadable, bombs_refused, read
from jobs.outcome import complain, show_traceback
from jobs.slots import Slot
from jobs.spec import entries
from pipelines.lineage import lineage
from pipelines.masking import mask_text
from pipelines.model_uri import locate
from pipelines.plan import canonical_hash, plan_generation
from pipelines.sink import Sink
from pipelines.sources import ParquetSource, open_source
from pipelines.tfrecord import export

JOB = {"job_id": "generate-0", "verb": "generate", "parts": {}}
PLAN = plan_generation(20, 1, rows_per_shard=10)
TABLE = pa.table({"x": list(range(10))})


# -- models ----------------------------------------------------------------------------------------------------


@pytest.fixture
def forged(forgeable_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(forgeable_model, tmp_path / "forged"))


def sign(directory: Path, **changes: Any) -> None:
    """Make every hash fit again, as an attacker would."""
    header = json.loads((directory / artifact.HEADER).read_text()) | changes
    header["files"] = {name: artifact._sha256((directory / name).read_bytes()) for name in artifact.FILES}
    header["digest"] = artifact._digest(header)
    (directory / artifact.HEADER).write_text(json.dumps(header))


@pytest.mark.parametrize("length", [0, 1, 2**31, 2**60, 2**64 - 1])
@pytest.mark.parametrize("name", ["arrays.safetensors", "weights.safetensors"])
def test_a_tensor_header_of_any_length_is_refused(forged: Path, name: str, length: int) -> None:
    (forged / name).write_bytes(length.to_bytes(8, "little") + (forged / name).read_bytes()[8:])
    sign(forged)
    with pytest.raises(InvalidArtifact, match="does not fit together"):
        artifact.load(forged)


def test_shapes_that_the_file_does_not_hold_are_refused_before_they_cost_memory(forged: Path) -> None:
    text = json.dumps({"x": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    (forged / "weights.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)
    sign(forged)
    refused_cheaply(forged)


@pytest.mark.parametrize("kind", ["autoregressive", "gan", "vae"])
def test_settings_of_a_giant_are_refused_before_they_cost_memory(forged: Path, kind: str) -> None:
    giant = {
        "autoregressive": {"context": 4096, "hidden": 4096, "embedding": 512},
        "gan": {"hidden": 8192, "latent": 4096, "embedding": 512, "pac": 64},
        "vae": {"hidden": 8192, "latent": 4096, "embedding": 512, "couplings": 64},
    }
    sign(forged, kind=kind, settings=giant[kind])
    refused_cheaply(forged, "far larger than its weights")


def refused_cheaply(directory: Path, match: str = "does not fit together") -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InvalidArtifact, match=match):
        artifact.load(directory)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000, "kB"


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("cell_rank", np.full(1, 2**40)),
        ("cell_bin", np.full(1, 2**40)),
        ("atom_token", np.full(1, 2**40)),
        ("atom_token", np.full(1, -1)),
        ("edges", np.zeros((3, 3))),
    ],
)
def test_columns_whose_tables_would_fill_the_memory_are_refused(name: str, array: np.ndarray) -> None:
    batch = pa.record_batch({"x": np.random.default_rng(0).normal(size=2000)})
    codec = TabularCodec.fit([batch], batch.schema)
    settings, arrays = codec.state()
    with pytest.raises(ValueError, match=r"do not fit together|more than any"):
        TabularCodec.from_state(settings, arrays | {f"0.0.{name}": array})


@pytest.mark.parametrize(
    "settings",
    [
        {"frame": [3, 10**9, 10**9, "resize"]},
        {"frame": [3, "8", 8, "resize"]},
        {"frame": [3, 8, 8]},
        {"levels": 10**12},
        {"levels": True},
    ],
)
def test_pictures_of_impossible_sizes_are_refused(settings: dict[str, Any]) -> None:
    from genai_core.modalities.image import ImageCodec

    schema = pa.schema({"image": pa.binary()}).serialize().to_pybytes()
    import base64

    state = {"schema": base64.b64encode(schema).decode(), "classes": None, "frame": [1, 8, 8, "resize"],
             "levels": 256, "rows": 10}  # fmt: skip
    assert ImageCodec.from_state(state, {}).frame.shape == (1, 8, 8)
    with pytest.raises(ValueError):
        ImageCodec.from_state(state | settings, {})


def test_the_digest_is_looked_at_before_any_tensor(forged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import safetensors.numpy
    import safetensors.torch

    def reached(*_: Any) -> None:
        raise AssertionError("tensors were read")

    monkeypatch.setattr(safetensors.numpy, "load", reached)
    monkeypatch.setattr(safetensors.torch, "load", reached)
    (forged / "weights.safetensors").write_bytes(b"")
    with pytest.raises(InvalidArtifact, match="sha256 does not fit"):
        artifact.load(forged)


def test_a_link_out_of_a_model_shows_nothing(forged: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hunter2")
    (forged / "codec.json").unlink()
    (forged / "codec.json").symlink_to(tmp_path / "secret")
    with pytest.raises(InvalidArtifact) as caught:
        artifact.load(forged)
    assert "hunter2" not in str(caught.value)


# -- outputs ---------------------------------------------------------------------------------------------------


@pytest.fixture
def output(tmp_path: Path) -> Sink:
    """Finished, with two shards."""
    sink = Sink(str(tmp_path / "out"))
    sink.prepare(JOB)
    for shard in PLAN.shards:
        sink.write_shard(shard, TABLE, {"job_id": "generate-0"})
    sink.finish(PLAN, {"job_id": "generate-0"})
    return sink


def forge_manifest(sink: Sink, **changes: Any) -> None:
    path = Path(sink.root) / "_MANIFEST.json"
    manifest = {name: v for name, v in json.loads(path.read_text()).items() if name != "hash"} | changes
    path.write_text(json.dumps(manifest | {"hash": canonical_hash(manifest)}))


NAMES = [
    "../outside.parquet",
    "/etc/passwd",
    "data/../../part-00000-0123456789ab.parquet",
    "data/./x",
    "data\\x",
    "",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_manifest_that_leads_outside_is_not_followed(output: Sink, tmp_path: Path, name: str) -> None:
    shards = [shard | {"file": name} for shard in output.manifest()["shards"]]
    forge_manifest(output, shards=shards)
    before = sorted(tmp_path.rglob("*"))
    for reader in (
        output.manifest,
        lambda: lineage(output.root, verify=True),
        lambda: export(output.root, str(tmp_path / "to")),
    ):
        with pytest.raises(InvalidData, match="not what a job writes"):
            reader()
    assert sorted(tmp_path.rglob("*")) == before


def test_a_manifest_is_believed_only_with_its_own_hash(output: Sink) -> None:
    path = Path(output.root) / "_MANIFEST.json"
    path.write_text(path.read_text().replace('"rows": 20', '"rows": 21'))
    with pytest.raises(InvalidData, match="own hash does not fit"):
        output.manifest()


@pytest.mark.parametrize(
    "change", [{"file": NAMES[0]}, {"rows": -1}, {"id": "0"}, {"sha256": "x"}, {"bytes": 1e400}]
)
def test_a_forged_record_is_as_if_it_were_not_there(output: Sink, change: dict[str, Any]) -> None:
    (path := Path(output.root) / "_shards" / "00000.json").write_text(
        json.dumps(json.loads(path.read_text()) | change)
    )
    assert [record["id"] for record in output.records()] == [1]


def test_two_records_of_one_file_count_its_rows_once(output: Sink) -> None:
    first = Path(output.root) / "_shards" / "00000.json"
    (first.parent / "00001.json").write_text(json.dumps(json.loads(first.read_text()) | {"id": 1}))
    assert [record["id"] for record in output.records()] == [0]


@pytest.mark.parametrize("folder", ["data", "_shards", "_quarantine"])
def test_a_linked_folder_is_neither_written_nor_emptied(tmp_path: Path, folder: str) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "part-00009-0123456789ab.parquet").write_bytes(b"do not touch")
    sink = Sink(str(tmp_path / "out"))
    sink.prepare(JOB)
    for name in ("data", "_shards", "_quarantine"):
        shutil.rmtree(tmp_path / "out" / name, ignore_errors=True)
    (tmp_path / "out" / folder).symlink_to(precious)
    with pytest.raises(OutputExists, match="is a link"):
        sink.prepare(JOB)
    if folder == "data":
        with pytest.raises(OutputExists, match="is a link"):
            sink.write_shard(PLAN.shards[0], TABLE, {})
    assert [path.name for path in precious.iterdir()] == ["part-00009-0123456789ab.parquet"]


def test_a_link_below_the_data_is_not_emptied(output: Sink, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "part-00009-0123456789ab.parquet").write_bytes(b"do not touch")
    (Path(output.root) / "data" / "month=1").symlink_to(precious)
    (Path(output.root) / "_MANIFEST.json").unlink()
    with pytest.raises(OutputExists, match="data/month=1 is a link"):
        output.finish(PLAN, {})
    assert list(precious.iterdir())


def test_an_output_below_a_link_is_an_output(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "linked").symlink_to(tmp_path / "disk")
    sink = Sink(str(tmp_path / "linked" / "out"))
    sink.prepare(JOB)
    for shard in PLAN.shards:
        sink.write_shard(shard, TABLE, {})
    assert sink.finish(PLAN, {})["rows"] == 20


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
    codec = TabularCodec.fit([batch], batch.schema)
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
    with pytest.raises(JobFailed, match="1 of 2 shards are not in"):
        sink.finish(PLAN, {})
