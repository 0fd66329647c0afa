"""The command line as a person uses it, in a fresh process each time: one file of three jobs, again, interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytestmark = pytest.mark.mlflow

FILE = """\
job: train
name: towns
source: {kind: parquet, path: data}
fit: {seed: 1, max_epochs: 3}
track: {experiment: towns, register: towns}
---
job: generate
model: models:/towns@latest
rows: 300
rows_per_shard: 100
sink: {path: out/synthetic}
---
job: score
model: models:/towns@latest
source: {kind: parquet, path: data}
top_k: 7
keep: [town]
sink: {path: out/scores}
"""
COMMAND = [sys.executable, "-c", "import sys; from jobs.cli import main; sys.exit(main())"]
ROOT = Path(__file__).parents[2]


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "GENAI_"))}
    return kept | {"PYTHONPATH": str(ROOT), "MLFLOW_DISABLE_TELEMETRY": "true"}


def genai(folder: Path, *arguments: str) -> tuple[int, list[dict], str]:
    """Exit code, the JSON lines of standard output, standard error."""
    command = [*COMMAND, *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=240, check=False
    )
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with a table of 400 rows and the job file, which has run once."""
    place = tmp_path_factory.mktemp("newcomer")
    random = np.random.default_rng(3)
    town = random.choice(["Bern", "Köln", "Oslo"], 400)
    table = pa.table({"town": town, "size": random.normal(size=400), "day": random.integers(0, 365, 400)})
    (place / "data").mkdir()
    pq.write_table(table, place / "data" / "towns.parquet")
    (place / "job.yaml").write_text(FILE)
    code, lines, error = genai(place, "run", "job.yaml")
    assert code == 0, error
    (place / "first.json").write_text(json.dumps(lines))
    return place


def test_one_command_trains_generates_and_scores(folder: Path) -> None:
    *parts, last = json.loads((folder / "first.json").read_text())
    assert last["status"] == "done" and last["jobs"] == parts
    assert [part["job"] for part in parts] == ["train", "generate", "score"]
    assert [part["rows"] for part in parts] == [400, 300, 400]
    assert all(part["run_id"] for part in parts) and parts[0]["model"] == "models:/towns/1"
    synthetic = pq.read_table(folder / "out/synthetic/data")
    assert synthetic.num_rows == 300 and synthetic.schema.equals(
        pq.read_schema(folder / "data/towns.parquet")
    )
    scored = pq.read_table(folder / "out/scores/data")
    assert scored.column_names[:4] == ["town", "source_file", "source_row", "ensemble"]
    assert pq.read_table(folder / "out/scores/_anomalies.parquet").num_rows == 7


def test_the_same_command_again_does_nothing_again(folder: Path) -> None:
    first = json.loads((folder / "first.json").read_text())[-1]["jobs"]
    code, lines, _ = genai(folder, "run", "job.yaml")
    assert code == 0
    assert [job["reused"] for job in lines[-1]["jobs"]] == [True] * 3
    assert [job["job_id"] for job in lines[-1]["jobs"]] == [job["job_id"] for job in first]


def test_another_job_is_kept_out_of_the_output(folder: Path) -> None:
    before = sorted(path.name for path in (folder / "out/synthetic").rglob("*"))
    code, lines, error = genai(folder, "run", "job.yaml", "--set", "rows=10")
    assert code == 2 and lines[-1]["status"] == "invalid" and "Traceback" not in error
    assert "out/synthetic" in lines[-1]["error"]
    assert sorted(path.name for path in (folder / "out/synthetic").rglob("*")) == before


def test_lineage_leads_back_to_the_training_data(folder: Path) -> None:
    part = next((folder / "out/synthetic/data").glob("*.parquet"))
    for path in (folder / "out/synthetic", part):
        code, (tree,), error = genai(folder, "lineage", str(path), "--json")
        text = json.dumps(tree)
        assert code == 0, error
        assert "models:/towns/1" in text and '"data"' in text and "sha256:" in text
    code, (line,), error = genai(folder, "lineage", "data/towns.parquet", "--json")
    assert code == 2 and line["status"] == "invalid" and "Traceback" not in error


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_job_is_resumed_by_the_same_command(sent: int, code: int, folder: Path) -> None:
    sink = folder / "out" / f"interrupted-{code}"
    (folder / "long.yaml").write_text(
        f"job: generate\nmodel: models:/towns@latest\nrows: 40000\nrows_per_shard: 1000\nsink: {{path: {sink}}}\n"
    )
    running = subprocess.Popen(
        [*COMMAND, "run", "long.yaml"],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a shell starts what it puts into the background with SIGINT ignored, and children inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while (
        len(list(sink.glob("_shards/*.json"))) < 2 and running.poll() is None and time.monotonic() < deadline
    ):
        time.sleep(0.02)
    running.send_signal(sent)
    out, error = running.communicate(timeout=60)
    assert running.returncode == code, error
    assert json.loads(out.splitlines()[-1])["status"] == "failed"
    assert "the same command resumes" in error and "Traceback" not in error
    assert not (sink / "_MANIFEST.json").exists()
    found, lines, _ = genai(folder, "run", "long.yaml")
    assert found == 0 and lines[-1]["resumed_shards"] >= 2
    assert pq.read_table(sink / "data").num_rows == 40_000
