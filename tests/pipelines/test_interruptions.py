"""Killed with -9 in every phase of a commit, and run again: the same bytes as an undisturbed run, nothing twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

JOB = Path(__file__).parent / "killed_job.py"
ROOT = Path(__file__).parents[2]


def files(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def run(spec: Mapping[str, Any], out: Path, place: str = "never", count: int = 0, **compute: Any) -> int:
    """The exit status of the job run with its output in `out`."""
    job = out.with_suffix(".json")
    job.write_text(json.dumps({**spec, "sink": {"path": str(out)}, "compute": compute}))
    ended = subprocess.run(
        [sys.executable, str(JOB), str(job), place, str(count)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"},
        capture_output=True,
        text=True,
        timeout=250,
        cwd=out.parent,
    )
    assert ended.returncode in (0, -signal.SIGKILL), ended.stderr
    return ended.returncode


@pytest.fixture
def spec(
    request: pytest.FixtureRequest, small_model: Path, small_table: pa.Table, tmp_path: Path
) -> dict[str, Any]:
    """Generating and scoring, each in six shards."""
    common = {
        "job": request.param,
        "model": str(small_model),
        "track": {"enabled": False},
        "rows_per_shard": 100,
    }
    if request.param == "generate":
        return {**common, "rows": 600, "seed": 7}
    pq.write_table(small_table, tmp_path / "rows.parquet", row_group_size=100)
    source = {"kind": "parquet", "path": str(tmp_path / "rows.parquet")}
    return {**common, "source": source, "fdr": 0.3, "keep": ["origin"]}


PHASES = [
    ("_JOB.json", 1),
    ("_JOB.json!", 1),
    ("data/part-00003", 1),
    ("data/part-00003!", 1),  # the data file is there, its record is not
    ("_shards/00003.json!", 1),
    ("_MANIFEST.json", 1),  # all records are there, the manifest is not
    ("_MANIFEST.json!", 1),
]


@pytest.mark.slow
@pytest.mark.parametrize("spec", ["generate", "score"], indirect=True)
def test_one_interruption_anywhere_leaves_no_trace(spec: dict[str, Any], tmp_path: Path) -> None:
    assert run(spec, tmp_path / "undisturbed") == 0
    expected = files(tmp_path / "undisturbed")
    assert json.loads(expected["_MANIFEST.json"])["rows"] == 600
    phases = PHASES if spec["job"] == "generate" else [("data/part-00003!", 1), ("_MANIFEST.json", 1)]
    for number, (place, count) in enumerate(phases):
        out = tmp_path / f"out{number}"
        assert run(spec, out, place, count) == -signal.SIGKILL, place
        assert "_MANIFEST.json" not in files(out) or place == "_MANIFEST.json!"
        assert run(spec, out) == 0
        assert files(out) == expected, place


@pytest.mark.slow
@pytest.mark.parametrize("spec", ["generate"], indirect=True)
def test_five_interruptions_leave_no_trace(spec: dict[str, Any], tmp_path: Path) -> None:
    assert run(spec, tmp_path / "undisturbed") == 0
    out = tmp_path / "out"
    for place in ("data/part!", "_shards/", "data/part", "_shards/!", "_MANIFEST.json"):
        assert run(spec, out, place, 1) == -signal.SIGKILL
    assert run(spec, out) == 0
    assert files(out) == files(tmp_path / "undisturbed")


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize("spec", ["score"], indirect=True)
def test_a_driver_that_dies_loses_nothing_on_ray(spec: dict[str, Any], tmp_path: Path) -> None:
    assert run(spec, tmp_path / "undisturbed") == 0
    out = tmp_path / "out"
    assert run(spec, out, "record", 2, runner="ray", workers=2) == -signal.SIGKILL
    assert "_MANIFEST.json" not in files(out)
    assert sum(name.startswith("_shards/") for name in files(out)) >= 2
    assert run(spec, out) == 0
    assert files(out) == files(tmp_path / "undisturbed")
