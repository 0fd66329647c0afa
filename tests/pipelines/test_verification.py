"""What `verify` says of real outputs: one changed byte anywhere is found, and others' signatures are not ours."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from genai_core.errors import InvalidInput
from jobs.cli import main
from pipelines import generate
from pipelines.context import Context
from pipelines.outputs.sink import written
from pipelines.plan import canonical_hash
from pipelines.provenance import keys, verification
from pipelines.provenance.verification import verify
from pipelines.provenance.watermarks import Detector

OFF = {"enabled": False}


@pytest.fixture(scope="module")
def key_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("keys") / "ours"
    keys.init(directory, "Test Ltd")
    return directory


@pytest.fixture(scope="module")
def signed(small_model: Path, key_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A signed output of two parts; tests copy it."""
    out = tmp_path_factory.mktemp("signed") / "out"
    job = {"model": str(small_model), "rows": 30, "rows_per_shard": 20, "seed": 7, "sink": {"path": str(out)}}
    fields = {"track": OFF, "sign": {"key": str(key_directory)}}
    generate.run(generate.GenerateJob.model_validate(job | fields), Context(log=lambda text: None))
    return out


@pytest.fixture
def out(workplace: Path, signed: Path) -> Path:
    return Path(shutil.copytree(signed, "out"))


def verdicts(path: Path | str, trust: Path | None) -> dict[str, Any]:
    return {one["file"].rpartition("/")[2]: one for one in verify(str(path), str(trust) if trust else None)}


def test_an_intact_signed_output_is_ours_and_says_what_it_is(out: Path, key_directory: Path) -> None:
    found = verdicts(out, key_directory)
    assert len(found) == 3 and all(one["ok"] and one["synthetic"] for one in found.values())
    assert {one["origin"] for one in found.values()} == {verification.OURS}
    (part,) = verify(str(min((out / "data").iterdir())), str(key_directory))
    assert (
        part["ok"]
        and "lake/flights" in part["training_data"]
        and part["rights"] == "subjects, licence, purpose not stated"
    )
    assert part["made_by"].startswith("generate-") and "autoregressive" in part["model"]


def test_one_changed_byte_anywhere_is_found(out: Path, key_directory: Path) -> None:
    chance = random.Random(0)
    files = [path for path in out.rglob("*") if path.is_file()]
    assert {path.parent.name for path in files} == {"out", "data", "_c2pa", "_shards"}
    for path in files:
        good = path.read_bytes()
        edges = [0, len(good) - 1]
        for place in [*edges, *(chance.randrange(len(good)) for _ in range(8))]:
            bad = bytearray(good)
            bad[place] ^= 1 << chance.randrange(8)
            path.write_bytes(bad)
            found = verdicts(out, key_directory)
            assert not all(one["ok"] for one in found.values()), f"{path.name}, byte {place} of {len(good)}"
        path.write_bytes(good)
    assert all(one["ok"] for one in verdicts(out, key_directory).values())


def test_a_part_and_its_sidecar_are_enough_when_they_have_left_the_output(
    out: Path, key_directory: Path
) -> None:
    part, sidecar = min((out / "data").iterdir()), min((out / "_c2pa").glob("part-*"))
    alone = Path(shutil.copy(part, "alone.parquet"))
    found = verdicts(alone, key_directory)["alone.parquet"]
    assert found["verdict"] == verification.NOT_VERIFIED and "sidecar" in found["faults"][0]
    shutil.copy(sidecar, "alone.c2pa")
    found = verdicts(alone, key_directory)["alone.parquet"]
    assert found["ok"] and found["origin"] == verification.OURS and "lake/flights" in found["training_data"]
    data = alone.read_bytes()
    for place in (10, len(data) // 2, len(data) - 30, len(data) - 9):
        bad = bytearray(data)
        bad[place] ^= 4
        alone.write_bytes(bad)
        assert verdicts(alone, key_directory)["alone.parquet"]["verdict"] == verification.CHANGED
    alone.write_bytes(data)
    said = sidecar.read_bytes()
    Path("alone.c2pa").write_bytes(said.replace(b"lake/flights", b"lake/heights"))
    assert verdicts(alone, key_directory)["alone.parquet"]["verdict"] == verification.CHANGED
    Path("alone.c2pa").write_bytes(said)
    assert verdicts(alone, key_directory)["alone.parquet"]["ok"]


def test_others_are_told_from_us_and_strangers_from_both(
    out: Path, key_directory: Path, small_table: pa.Table
) -> None:
    keys.init(Path("theirs"), "Theirs")
    assert {one["origin"] for one in verdicts(out, Path("theirs")).values()} == {verification.OTHERS}
    assert not any(one["ok"] for one in verdicts(out, Path("theirs")).values())
    pq.write_table(small_table, "real.parquet")
    (real,) = verify("real.parquet", str(key_directory))
    assert (real["verdict"], real["synthetic"], real["ok"]) == (verification.UNKNOWN, None, False)
    shutil.copy("real.parquet", out / "data" / "more.parquet")
    assert verdicts(out, key_directory)["more.parquet"]["verdict"] == verification.UNLISTED
    min((out / "data").glob("part-*")).unlink()
    assert verification.MISSING in {one["verdict"] for one in verdicts(out, key_directory).values()}


def test_a_run_file_cannot_say_that_it_is_trusted(out: Path, key_directory: Path) -> None:
    run = json.loads((out / "_RUN.json").read_text()) | {"trusted": True}
    del run["hash"]
    (out / "_RUN.json").write_bytes(written({**run, "hash": canonical_hash(run)}))
    found = verdicts(out, key_directory)["_MANIFEST.json"]
    assert found["origin"] != verification.OURS and found["verdict"] == verification.CHANGED


def test_who_asks_for_a_signature_is_not_content_with_hashes(
    workplace: Path, small_model: Path, key_directory: Path
) -> None:
    job = {"model": str(small_model), "rows": 5, "sink": {"path": "plain"}, "track": OFF}
    generate.run(generate.GenerateJob.model_validate(job), Context(log=lambda text: None))
    plain = verdicts("plain", None)
    assert {one["origin"] for one in plain.values()} == {verification.UNSIGNED}
    assert all(one["ok"] for one in plain.values())
    assert not any(one["ok"] for one in verdicts("plain", key_directory).values())
    (part,) = Path("plain/data").iterdir()
    good = part.read_bytes()
    for place in (100, len(good) // 2, len(good) - 20):  # found by hashes alone
        part.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        assert verdicts("plain", None)[part.name]["verdict"] == verification.CHANGED


def test_the_command_answers_with_lines_json_and_a_code(
    out: Path, key_directory: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(out), "--trust", str(key_directory)]) == 0
    done = capfd.readouterr()
    assert "intact, synthetic, signed by us" in done.err and '"not_ok": 0' in done.out.splitlines()[-1]
    part = min((out / "data").iterdir())
    part.write_bytes(part.read_bytes()[:-1] + b"\0")
    assert main(["verify", str(out), "--trust", str(key_directory)]) == 1
    assert "changed, synthetic" in capfd.readouterr().err
    assert main(["verify", "nowhere"]) == 2
    Path("notes.txt").write_text("x")
    with pytest.raises(InvalidInput, match="accepted is"):
        verify("notes.txt")
    assert main(["keys", "init", "--to", "made"]) == 0 and main(["keys", "show", "--in", "made"]) == 0
    assert main(["keys", "init", "--to", "made"]) == 2
    assert "PRIVATE" not in "".join(capfd.readouterr())


def test_a_watermark_is_found_in_the_files_and_its_key_nowhere(
    workplace: Path, small_model: Path, small_table: pa.Table, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    secret = "a key for tests only, of 32 bytes"
    job = {"model": str(small_model), "rows": 4000, "sink": {"path": "out"}, "track": OFF}
    marked = generate.GenerateJob.model_validate(job | {"watermark": {"key_env": "MARK"}})
    with pytest.raises(InvalidInput, match="MARK is empty"):
        generate.check(marked, Context(log=lambda text: None))
    monkeypatch.setenv("MARK", secret)
    generate.run(marked, Context(log=lambda text: None))
    assert main(["verify", "out", "--watermark-key-env", "MARK"]) == 0
    said = capfd.readouterr()
    assert "watermark: found, z " in said.err and secret not in said.err + said.out
    left = [
        path for path in Path("out").rglob("*") if path.is_file() and secret.encode() in path.read_bytes()
    ]
    assert left == []
    monkeypatch.setenv("MARK", secret + "!")
    (found,) = (one["watermark"] for one in verify("out", None, Detector("MARK", None)) if one["watermark"])
    assert not found["found"] and abs(found["z"]) < 4
    pq.write_table(small_table, "real.parquet")
    with pytest.raises(InvalidInput, match="which model made it"):
        verify("real.parquet", None, Detector("MARK", None))
