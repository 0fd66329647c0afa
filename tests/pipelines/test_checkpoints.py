"""Checkpoints on a disk and in a store: whole, few, found by the job's id, and never unpickled."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch

from genai_core.errors import InvalidData, Unavailable
from pipelines.stores import storage
from pipelines.training.checkpoints import Checkpoints


@pytest.fixture(params=["disk", pytest.param("store", marks=pytest.mark.s3)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "disk":
        return str(tmp_path / "checkpoints")
    bucket: str = request.getfixturevalue("bucket")
    return f"{bucket}/checkpoints"


def save(kept: Checkpoints, validation: int) -> None:
    shared = torch.arange(6.0)
    history = [{"step": 10 * i, "validation_loss": 1.0} for i in range(validation)]
    tensors = {"model/a": shared[:4], "model/b": shared, "whole": torch.tensor(validation)}
    kept.save(tensors, {"step": 10 * validation, "done": 0.5, "history": history})


def test_the_last_state_is_found_by_the_job_s_id(place: str) -> None:
    kept = Checkpoints(place, "train-1")
    assert kept.load() is kept.facts() is kept.result() is None
    for validation in range(1, 13):
        save(kept, validation)
    files = [file.path for file in storage.list_files(kept.filesystem, kept.folder)]
    assert [Path(path).name for path in files] == [
        "state-000000011.safetensors",
        "state-000000012.safetensors",
    ]
    tensors, facts = Checkpoints(place, "train-1").load() or ({}, {})
    assert tensors["model/a"].tolist() == [0, 1, 2, 3]
    assert tensors["whole"].dtype == torch.int64
    assert facts == kept.facts()
    assert facts["step"] == 120
    assert Checkpoints(place, "train-2").load() is None


def test_a_result_is_kept_beside_and_all_is_removed_together(place: str) -> None:
    kept, other = Checkpoints(place, "train-1"), Checkpoints(place, "train-2")
    save(kept, 1)
    save(other, 1)
    kept.announce()
    kept.save_result({"best/a": torch.ones(2)}, {"replicas": ["x"]})
    result = kept.result()
    assert result is not None
    assert result[1] == {"replicas": ["x"]}
    assert (kept.facts() or {})["step"] == 10, "a result is no state"
    kept.clear()
    assert storage.list_files(kept.filesystem, kept.folder) == []
    assert other.load() is not None
    kept.clear()


def test_a_worker_that_sees_another_disk_says_so(place: str) -> None:
    kept = Checkpoints(place, "train-1")
    with pytest.raises(Unavailable, match="give a place that all machines reach"):
        kept.require()
    kept.announce()
    Checkpoints(place, "train-1").require()


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:40],
        lambda data: data[:-3],
        lambda data: b"",
        lambda data: struct.pack("<Q", 2**60) + data[8:],
        lambda data: b"\x80\x04" + data,
        lambda data: struct.pack("<Q", 2) + b"{}",
    ],
)
def test_a_damaged_checkpoint_is_named_and_not_skipped_in_silence(damage: Any, tmp_path: Path) -> None:
    kept = Checkpoints(str(tmp_path), "train-1")
    save(kept, 1)
    save(kept, 2)
    last = tmp_path / "train-1" / "state-000000002.safetensors"
    last.write_bytes(damage(last.read_bytes()))
    with pytest.raises(InvalidData, match=r"state-000000002\.safetensors is damaged .* remove it to go on"):
        kept.load()
    last.unlink()
    assert (kept.load() or ({}, {}))[1]["step"] == 10


def test_a_checkpoint_is_numbers_and_json_alone(tmp_path: Path) -> None:
    kept = Checkpoints(str(tmp_path), "train-1")
    save(kept, 1)
    data = next(tmp_path.rglob("*.safetensors")).read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    assert json.loads(header.pop("__metadata__")["facts"])["step"] == 10
    assert {entry["dtype"] for entry in header.values()} == {"F32", "I64"}
