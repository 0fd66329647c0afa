"""The artifact: what was written is what is read, and nothing else."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import genai_core as genai
from genai_core import artifact
from genai_core.errors import InvalidArtifact, SchemaMismatch
from tests.contract.spaces import small_table


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("artifact") / "model"
    genai.fit(small_table(), max_epochs=1).save(directory)
    return directory


@pytest.fixture
def copy(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "copy"))


def test_a_loaded_model_is_the_saved_one(written: Path) -> None:
    model, table = genai.load(written), small_table(seed=3)
    original = genai.fit(small_table(), max_epochs=1)
    assert model.sample(300, seed=4).equals(original.sample(300, seed=4))
    assert (model.log_prob(table) == original.log_prob(table)).all()
    assert model.calibration_size("negative_log_likelihood") == original.calibration_size(
        "negative_log_likelihood"
    )
    assert model.provenance == original.provenance
    assert model.digest == genai.read_header(written).digest


def test_saving_again_gives_the_same_digest(written: Path, tmp_path: Path) -> None:
    assert genai.load(written).save(tmp_path / "again") == genai.read_header(written).digest


@pytest.mark.parametrize("name", [artifact.HEADER, *artifact.FILES])
@pytest.mark.parametrize("place", [0.02, 0.5, 0.98])
def test_one_changed_byte_is_refused(copy: Path, name: str, place: float) -> None:
    data = bytearray((copy / name).read_bytes())
    data[int(place * len(data))] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(InvalidArtifact):
        genai.load(copy)


@pytest.mark.parametrize("name", [artifact.HEADER, *artifact.FILES])
def test_a_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(InvalidArtifact, match=name):
        genai.load(copy)


def forged(directory: Path, **changes: object) -> None:
    """Change the header and make its digest fit again, as an attacker could."""
    header = json.loads((directory / artifact.HEADER).read_text()) | changes
    header["digest"] = artifact._digest(header)
    (directory / artifact.HEADER).write_text(json.dumps(header))


def test_a_newer_format_says_upgrade(copy: Path) -> None:
    forged(copy, format=2)
    with pytest.raises(InvalidArtifact, match="Upgrade"):
        genai.read_header(copy)


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "../../etc/passwd"},
        {"modality": "os"},
        {"schema": "AAAA"},
        {"schema": 7},
        {"files": {"../../outside": "0" * 64}},
        {"format": None},
        {"settings": {"hidden": 10**9, "context": 16}},
    ],
)
def test_a_forged_header_is_refused(copy: Path, changes: dict) -> None:
    forged(copy, **changes)
    with pytest.raises(InvalidArtifact):
        genai.load(copy)


def test_nothing_is_unpickled(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("unpickled")

    monkeypatch.setattr(pickle, "load", refuse)
    monkeypatch.setattr(pickle, "loads", refuse)
    monkeypatch.setattr(pickle, "Unpickler", refuse)
    assert genai.load(written).sample(5).num_rows == 5


def test_header_needs_no_torch(written: Path) -> None:
    import subprocess
    import sys

    read = f"from genai_core.artifact import read_header; read_header({str(written)!r})"
    code = f"import sys; {read}; print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert out.stdout.strip() == "False"


def test_schema_is_checked_from_the_header(written: Path) -> None:
    header = genai.read_header(written)
    artifact.check_schema(header, small_table().schema)
    with pytest.raises(SchemaMismatch, match=r"'x'.*missing.*'colour' is int64"):
        artifact.check_schema(
            header, small_table().drop_columns(["x", "colour"]).append_column("colour", [[1] * 400]).schema
        )


def test_the_codec_alone_needs_no_torch_and_knows_what_was_seen(written: Path) -> None:
    code = (
        "import sys; from genai_core.artifact import load_codec; from genai_core.tables.conditions import Where;"
        f"Where(load_codec({str(written)!r}), {{'colour': 'red'}}); print('torch' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == "False\n"
