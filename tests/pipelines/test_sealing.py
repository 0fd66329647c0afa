"""Signatures of real outputs: one sidecar a part, the same data bytes with and without, and every way to go wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from genai_core.errors import InvalidInput, OutputExists
from pipelines import generate
from pipelines.context import Context
from pipelines.outputs.sink import Sink
from pipelines.plan import Plan, Shard, job_id
from pipelines.provenance import content_credentials, keys, sealing
from pipelines.provenance.lineage_column import NAME, parse
from pipelines.provenance.verification import verify

OFF = {"enabled": False}


@pytest.fixture(scope="session")
def key_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("keys") / "ours"
    keys.init(directory, "Test Ltd")
    return directory


def make(model: Path, out: str, log: list[str] | None = None, **fields: Any) -> dict[str, Any]:
    """Three shards of synthetic rows; the manifest."""
    job = {
        "model": str(model),
        "rows": 50,
        "rows_per_shard": 20,
        "seed": 7,
        "sink": {"path": out},
        "track": OFF,
    }
    said = [] if log is None else log
    generate.run(generate.GenerateJob.model_validate(job | fields), Context(log=said.append))
    manifest = Sink(out).manifest()
    assert manifest is not None
    return manifest


def test_every_part_is_signed_and_no_byte_of_the_data_differs(
    workplace: Path, small_model: Path, key_directory: Path
) -> None:
    plain = make(small_model, "plain")
    signed = make(small_model, "signed", sign={"key": str(key_directory)})
    assert signed["hash"] == plain["hash"], "signatures stay out of what equal jobs have in common"
    run, anchors = sealing.read_run(Sink("signed")), keys.trust_anchors(str(key_directory))
    assert run is not None and run["certificate"] == keys.load(key_directory).fingerprint
    assert [one["of"] for one in run["signatures"]] == [shard["file"] for shard in signed["shards"]]
    for shard, one in zip(signed["shards"], run["signatures"], strict=True):
        data, sidecar = (Path("signed", one[part]).read_bytes() for part in ("of", "file"))
        found = content_credentials.read(data, anchors, sidecar)
        assert found is not None and found.state == content_credentials.TRUSTED and found.synthetic
        assert found.facts["model"] == signed["provenance"]["model"]
        assert (found.facts["shard"], found.facts["seed"], found.facts["manifest"]) == (
            shard["id"],
            7,
            signed["hash"],
        )
        assert data == Path("plain", shard["file"]).read_bytes()
    assert pq.read_table("signed").num_rows == 50, "readers pass over what is not data"


def test_the_key_of_the_environment_signs_what_was_finished_without(
    workplace: Path, small_model: Path, key_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = make(small_model, "out")
    unsigned = json.loads(Path("out/_RUN.json").read_text())
    assert unsigned["signatures"] == [] and unsigned["finished"].endswith("Z")
    monkeypatch.setenv(keys.VARIABLE, str(key_directory))
    said: list[str] = []
    assert make(small_model, "out", said) == before
    signed = json.loads(Path("out/_RUN.json").read_text())
    assert len(signed["signatures"]) == 3 and signed["finished"] == unsigned["finished"]
    assert any("signed 3 file(s)" in line for line in said)


def test_interrupted_signing_goes_on_with_what_stands(
    workplace: Path, small_model: Path, key_directory: Path
) -> None:
    make(small_model, "out", sign={"key": str(key_directory)})
    first, second, third = sorted(Path("out/_c2pa").glob("part-*"))
    kept = first.read_bytes()
    second.write_bytes(b"torn")
    third.unlink()
    Path("out/_RUN.json").unlink()
    make(small_model, "out", sign={"key": str(key_directory)})
    assert first.read_bytes() == kept and third.exists()
    anchors = keys.trust_anchors(str(key_directory))
    data = next(Path("out/data").glob(second.stem + "*")).read_bytes()
    found = content_credentials.read(data, anchors, second.read_bytes())
    assert found is not None and found.state == content_credentials.TRUSTED


def test_opting_out_of_the_mark_is_logged_and_recorded(workplace: Path, small_model: Path) -> None:
    said: list[str] = []
    manifest = make(small_model, "out", said, mark=False)
    metadata = pq.read_metadata(next(Path("out/data").iterdir())).metadata
    assert b"genai" not in metadata and manifest["provenance"]["marked"] is False
    assert any("do not say that they are synthetic" in line for line in said)
    with pytest.raises(ValueError, match="leave out `mark: false`"):
        make(small_model, "other", mark=False, sign={"key": "keys"})
    marked = make(small_model, "marked")
    assert marked["provenance"]["digital_source_type"] == content_credentials.SYNTHETIC


def test_every_row_says_where_it_was_made_also_after_a_join(workplace: Path, small_model: Path) -> None:
    manifest = make(small_model, "out", lineage=True)
    rows = pq.read_table("out")
    places = [parse(value) for value in rows[NAME].to_pylist()]
    assert len(set(places)) == 50 and {place.job_id for place in places} == {manifest["provenance"]["job_id"]}
    assert [place.row for place in places if place.shard == 2] == list(range(10))
    carriers = pa.table({"carrier": ["AA", "UA"], "name": ["American", "United"]})
    plain = rows.set_column(rows.column_names.index("carrier"), "carrier", rows["carrier"].cast(pa.string()))
    assert plain.join(carriers, "carrier")[NAME].null_count == 0
    with pytest.raises(InvalidInput, match="no value of _lineage"):
        parse("generate-1/2/3; drop")


def test_keys_are_private_never_overwritten_and_checked_before_the_work(
    workplace: Path, small_model: Path, key_directory: Path
) -> None:
    for name in keys.SECRET:
        assert (key_directory / name).stat().st_mode & 0o777 == 0o600
    with pytest.raises(OutputExists, match="never overwritten"):
        keys.init(key_directory, "Another")
    secret = (key_directory / keys.SIGNING_KEY).read_text()
    assert secret.splitlines()[1] not in repr(keys.load(key_directory)) + repr(keys.show(key_directory))
    shutil.copytree(key_directory, "open")
    Path("open", keys.SIGNING_KEY).chmod(0o644)
    with pytest.raises(InvalidInput, match="chmod 600"):
        make(small_model, "out", sign={"key": "open"})
    keys.init(Path("another"), "Another")
    shutil.copy(Path("another", keys.SIGNING), Path("open", keys.SIGNING))
    Path("open", keys.SIGNING_KEY).chmod(0o600)
    with pytest.raises(InvalidInput, match="does not belong"):
        make(small_model, "out", sign={"key": "open"})
    with pytest.raises(InvalidInput, match="genai keys init"):
        make(small_model, "out", sign={"key": "nowhere"})
    assert not Path("out").exists(), "refused before anything is written"


def test_no_secret_of_a_key_is_left_anywhere(workplace: Path, small_model: Path, key_directory: Path) -> None:
    said: list[str] = []
    make(small_model, "out", said, sign={"key": str(key_directory)})
    line = (key_directory / keys.SIGNING_KEY).read_text().splitlines()[1]
    left = [path for path in Path().rglob("*") if path.is_file() and line.encode() in path.read_bytes()]
    assert left == [] and line not in "".join(said)


def test_parts_of_real_rows_are_not_signed_as_synthetic(
    workplace: Path, small_model: Path, key_directory: Path
) -> None:
    manifest = make(small_model, "out")
    sink, shard = Sink("carried"), Shard(0, 7, 5, {"footer": {"synthetic": False}})
    job = {"job_id": job_id("augment", {}), "verb": "augment", "parts": {}}
    sink.prepare(job)
    provenance = manifest["provenance"] | {"job_id": job["job_id"], "verb": "augment"}
    sink.write_shard(shard, pq.read_table("out").slice(0, 5), provenance | {"synthetic": False})
    written = sink.finish(Plan("augment", (shard,)), provenance)
    sealing.seal(sink, written, keys.load(key_directory), None)
    part = next(one for one in verify("carried", str(key_directory)) if one["file"].endswith(".parquet"))
    assert part["ok"] and part["synthetic"] is False
    data, sidecar = (next(Path("carried", name).glob("part-*")).read_bytes() for name in ("data", "_c2pa"))
    found = content_credentials.read(data, keys.trust_anchors(str(key_directory)), sidecar)
    assert found is not None and found.state == content_credentials.TRUSTED and not found.synthetic
