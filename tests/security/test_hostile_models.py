"""Models that somebody forged: refused before they cost memory, and before anything in them is believed."""

from __future__ import annotations

import json
import resource
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from genai_core import artifact
from genai_core.errors import InvalidArtifact
from genai_core.modalities.tabular import TabularCodec


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
