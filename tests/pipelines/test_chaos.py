"""The short form of benchmarks/chaos.py: drivers die in every phase of a commit, and the same output comes out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.chaos_jobs import phase
from benchmarks.chaos_verdict import Fault, Found, Undisturbed, compare

ROOT = Path(__file__).parents[2]
FAULTS = 12
COMMAND = (sys.executable, "-m", "benchmarks.chaos", "--faults", str(FAULTS))
KINDS = ("driver in a phase", "two drivers", "clock")


@pytest.mark.slow
def test_faults_of_every_kind_leave_what_an_undisturbed_run_leaves(tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    ended = subprocess.run(
        [*COMMAND, "--work", str(tmp_path / "work"), "--out", str(out), "--only", *KINDS],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    figures = json.loads(out.read_text())
    assert figures["violations"] == []
    assert figures["sums"]["jobs"] == figures["sums"]["finished"] == figures["sums"]["equal"] == FAULTS
    assert figures["sums"]["faults"] >= FAULTS - 1
    assert {row["verb"] for row in figures["table"]} == {"generate", "score", "train"}


FAULT = Fault(0, "driver", "train", 0.5, 0.5)
UNDISTURBED = Undisturbed({"model_digest": "sha256:1", "rows": 3}, {"out/weights": "x"}, 1.0, [])


def judged(home: Path, note: str = '{"model_digest": "sha256:1"}') -> Found:
    (home / "out").mkdir()
    (home / "out" / "weights").write_text("weights")
    return compare(UNDISTURBED, FAULT, home, Found("any moment", finished=True, note=note))


def test_what_is_as_it_would_be_without_the_fault_is_fine(tmp_path: Path) -> None:
    assert judged(tmp_path).fine


def test_a_file_too_many_is_an_orphan(tmp_path: Path) -> None:
    (tmp_path / ".out.tmp").write_text("half")
    found = judged(tmp_path)
    assert (found.orphans, found.fine) == (1, False)
    assert ".out.tmp" in found.note


def test_another_result_is_not_equal(tmp_path: Path) -> None:
    assert not judged(tmp_path, '{"model_digest": "sha256:2"}').fine


@pytest.mark.parametrize(
    ("step", "name"),
    [
        ("open out/data/.part-00003-0123456789ab.parquet.00.tmp", "before data"),
        ("os.rename out/data/part-00003-0123456789ab.parquet", "data written, not in place"),
        ("open out/_shards/.00003.json.00.tmp", "between data and record"),
        ("open out/._MANIFEST.json.00.tmp", "between records and manifest"),
        ("open checkpoints/train-1/.state-000000001.safetensors.00.tmp", "writing a checkpoint"),
        ("open .out.00.tmp/weights.safetensors", "publishing the model"),
    ],
)
def test_a_step_is_told_by_its_phase(step: str, name: str) -> None:
    assert phase(step) == name
