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
    found = {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}
    found.pop("_RUN.json", None)  # run and time: the one file in which equal jobs differ
    return found


def killed(spec: Mapping[str, Any], out: Path, place: str, count: int, **compute: Any) -> None:
    """Run the job, which dies at its place."""
    assert start(spec, out, place, count, **compute).returncode == -signal.SIGKILL, place


def run(spec: Mapping[str, Any], out: Path) -> dict[str, Any]:
    """Run the job to its end; its result."""
    result: dict[str, Any] = json.loads(start(spec, out, "never", 0).stdout)
    return result


def start(
    spec: Mapping[str, Any], out: Path, place: str, count: int, **compute: Any
) -> subprocess.CompletedProcess[str]:
    """The job in a process of its own, with its output in `out`."""
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
    return ended


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


PHASES = {  # where the process dies, and how many shards are done by then
    "_JOB.json": 0,
    "_JOB.json!": 0,
    "data/part-00003": 3,
    "data/part-00003!": 3,  # the data file is there, its record is not
    "_shards/00003.json!": 4,
    "_MANIFEST.json": 6,  # all records are there, the manifest is not
}


@pytest.mark.slow
@pytest.mark.parametrize("spec", ["generate", "score"], indirect=True)
def test_one_interruption_anywhere_leaves_no_trace(spec: dict[str, Any], tmp_path: Path) -> None:
    assert run(spec, tmp_path / "undisturbed")["rows"] == 600
    expected = files(tmp_path / "undisturbed")
    places = list(PHASES) if spec["job"] == "generate" else ["data/part-00003!", "_MANIFEST.json"]
    for number, place in enumerate(places):
        out = tmp_path / f"out{number}"
        killed(spec, out, place, 1)
        assert "_MANIFEST.json" not in files(out)
        assert run(spec, out)["resumed_shards"] == PHASES[place]
        assert files(out) == expected, place


@pytest.mark.slow
@pytest.mark.parametrize("spec", ["generate"], indirect=True)
def test_five_interruptions_leave_no_trace(spec: dict[str, Any], tmp_path: Path) -> None:
    undisturbed, out = run(spec, tmp_path / "undisturbed"), tmp_path / "out"
    for place in ("data/part!", "_shards/", "data/part", "_shards/!", "_MANIFEST.json"):
        killed(spec, out, place, 1)
    assert run(spec, out)["manifest"] == undisturbed["manifest"]
    assert files(out) == files(tmp_path / "undisturbed")
    killed_late = tmp_path / "late"
    killed(spec, killed_late, "_MANIFEST.json!", 1)
    assert run(spec, killed_late)["reused"]
    assert files(killed_late) == files(out)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize("spec", ["score"], indirect=True)
def test_a_driver_that_dies_loses_nothing_on_ray(spec: dict[str, Any], tmp_path: Path) -> None:
    undisturbed, out = run(spec, tmp_path / "undisturbed"), tmp_path / "out"
    killed(spec, out, "record", 2, runner="ray", workers=2)
    assert "_MANIFEST.json" not in files(out)
    result = run(spec, out)
    assert result["resumed_shards"] >= 2
    assert result["manifest"] == undisturbed["manifest"]
    assert files(out) == files(tmp_path / "undisturbed")
