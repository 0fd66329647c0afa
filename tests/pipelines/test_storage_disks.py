"""Disks that are full or read-only, for real: a tmpfs of a few kilobytes in a mount namespace of the test's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).parent / "full_disk.py"
NAMESPACE = ["unshare", "--map-root-user", "--mount"]
SHARDS = 12


def can_mount() -> bool:
    """Whether this account may have a mount namespace: root, or anyone where user namespaces are allowed."""
    try:
        return (
            subprocess.run(
                [*NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True
            ).returncode
            == 0
        )
    except FileNotFoundError:
        return False


@pytest.fixture(scope="module")
def told(small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What runs on the full, the freed and the read-only disk said."""
    if not can_mount():
        pytest.skip("no mount namespace for this account: run as root, or allow user namespaces")
    home = tmp_path_factory.mktemp("disk")
    (home / "disk").mkdir()
    job = {
        "job": "generate",
        "model": str(small_model),
        "rows": 50 * SHARDS,
        "rows_per_shard": 50,
        "compute": {"retries": 1},
        "track": {"enabled": False},
        "sink": {"path": "out"},
    }
    (home / "job.yaml").write_text(json.dumps(job))
    ended = subprocess.run(
        [*NAMESPACE, sys.executable, str(SCRIPT), str(home / "disk"), str(home / "job.yaml")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=home,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert ended.returncode == 0, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return found


def test_a_disk_that_fills_up_ends_the_job_and_keeps_what_is_committed(told: dict[str, Any]) -> None:
    full = told["full"]
    assert full["code"] == 1
    assert full["answer"]["status"] == "failed"
    assert "no space left" in full["answer"]["error"]
    assert "the same command" in full["answer"]["error"]
    assert "Traceback" not in full["said"]
    records = [name for name in full["files"] if "/_shards/" in name]
    assert 0 < len(records) < SHARDS
    assert not [
        name for name in full["files"] if name.endswith(".tmp") or "_MANIFEST" in name or "_quar" in name
    ]


def test_the_same_command_finishes_when_there_is_space_again(told: dict[str, Any]) -> None:
    freed = told["freed"]
    assert freed["code"] == 0
    records = [name for name in told["full"]["files"] if "/_shards/" in name]
    assert freed["answer"]["resumed_shards"] == len(records)
    assert freed["answer"]["shards"] == len([name for name in freed["files"] if "/data/" in name]) == SHARDS


def test_a_read_only_disk_is_bad_input_unless_the_job_is_done(told: dict[str, Any]) -> None:
    assert told["finished"]["code"] == 0
    assert told["finished"]["answer"]["reused"]
    assert told["read-only"]["code"] == 2
    assert "cannot be written" in told["read-only"]["answer"]["error"]
    assert "Traceback" not in told["read-only"]["said"]
    assert told["read-only"]["files"] == told["freed"]["files"]
