"""The main jobs over a hostile lake, in one process that unpickles nothing: what they write, say and leave behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from jobs.cli import main
from tests.security.without_pickle import LOADERS

pytestmark = [pytest.mark.mlflow, pytest.mark.s3]
ROOT = Path(__file__).parents[2]
SECRET = "wJalrXUtnFEMI7K7MDENGbPxRfiCYEXAMPLEKEY"
NAME = "town\x1b[2J<img src=x onerror=alert(1)>"
VALUES = [
    "\x1b]0;owned\x07",
    "<script>alert(1)</script>",
    "{0.__class__}",
    "=cmd|'/c calc'!A0",
    "\u202egnp",
    "%s%n",
]
JOBS = """\
job: train
name: towns
source: {{kind: parquet, path: "{store}/lake"}}
model: {{kind: autoregressive, hidden: 8, context: 16, embedding: 4}}
fit: {{seed: 1, max_epochs: 1}}
track: {{experiment: towns, register: towns}}
---
job: generate
model: models:/towns@latest
rows: 60
sink: {{path: "{store}/synthetic"}}
---
job: score
model: models:/towns@latest
source: {{kind: parquet, path: "{store}/lake"}}
top_k: 3
sink: {{path: out/scores}}
---
job: train
name: digits
source: {{kind: images, path: digits}}
modality: {{kind: image, label: label}}
model: {{kind: vae, channels: 4, hidden: 16, latent: 4, importance_samples: 2}}
fit: {{seed: 1, max_epochs: 1}}
track: {{enabled: false}}
sink: {{path: out/digits}}
---
job: generate
model: out/digits
rows: 8
track: {{enabled: false}}
sink: {{path: out/more-digits}}
---
job: score
model: out/digits
source: {{kind: images, path: digits}}
top_k: 3
track: {{enabled: false}}
sink: {{path: out/odd-digits}}
"""


@dataclass
class Ran:
    """What a run left: its folder, what it said, its files on the store."""

    folder: Path
    environment: dict[str, str]
    code: int
    out: str
    error: str
    stored: dict[str, bytes]


def _lake(filesystem: pafs.FileSystem, bucket: str, folder: Path) -> None:
    random = np.random.default_rng(0)
    table = pa.table({NAME: random.choice(VALUES, 80), "size": random.normal(size=80)})
    filesystem.create_dir(bucket)
    with filesystem.open_output_stream(f"{bucket}/lake/a.parquet") as stream:
        pq.write_table(table, stream)
    digits = load_digits()
    for number, (pixels, digit) in enumerate(zip(digits.images[:40], digits.target, strict=False)):
        (folder / "digits" / str(digit)).mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * (255 / 16)).astype(np.uint8)).save(folder / f"digits/{digit}/{number}.png")
    (folder / "digits/0/\x1b[31m<script>.png").write_bytes(b"\x1b[31mno picture")


@pytest.fixture(scope="module")
def ran(s3_endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder, bucket = tmp_path_factory.mktemp("hostile"), f"bucket-{uuid.uuid4().hex[:12]}"
    filesystem = pafs.S3FileSystem(
        access_key="testing", secret_key="testing", endpoint_override=s3_endpoint, allow_bucket_creation=True
    )
    _lake(filesystem, bucket, folder)
    (folder / "x").write_bytes(b"cposix\nsystem\n(S'true'\ntR.")
    (folder / "m").write_bytes(b"N")
    (folder / "jobs.yaml").write_text(JOBS.format(store=f"s3://AKIAIOSFODNN7EXAMPLE:{SECRET}@{bucket}"))
    kept = {name: v for name, v in os.environ.items() if not name.startswith(("MLFLOW_", "GENAI_", "AWS_"))}
    environment = kept | {
        "PYTHONPATH": str(ROOT), "MLFLOW_DISABLE_TELEMETRY": "true", "AWS_ENDPOINT_URL": s3_endpoint,
        "AWS_DEFAULT_REGION": "us-east-1", "GENAI_CACHE": str(folder / "cache"), "GENAI_SPOOL": str(folder / "spool"),
    }  # fmt: skip
    done = _python(
        folder, environment, str(Path(__file__).with_name("without_pickle.py")), "run", "jobs.yaml"
    )
    found = filesystem.get_file_info(pafs.FileSelector(bucket, recursive=True))
    stored = {i.path: filesystem.open_input_stream(i.path).read() for i in found if i.is_file}
    return Ran(folder, environment, done.returncode, done.stdout, done.stderr, stored)


def _python(folder: Path, environment: dict[str, str], *command: str) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, *command)
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_all_jobs_end_well_though_nothing_can_be_unpickled(ran: Ran) -> None:
    assert ran.code == 0, ran.error
    assert [job["status"] for job in json.loads(ran.out.splitlines()[-1])["jobs"]] == ["done"] * 6
    assert json.loads(ran.error.splitlines()[-1])["copies"] == 0, "not even in memory"


def test_every_way_to_unpickle_would_have_been_seen(ran: Ran) -> None:
    assert json.loads(ran.error.splitlines()[-1])["seen"] == [*LOADERS, "a copy in memory is none"]


def test_a_secret_in_a_uri_is_written_nowhere(ran: Ran) -> None:
    files = [path for path in ran.folder.rglob("*") if path.is_file() and path.name != "jobs.yaml"]
    assert any(path.name == "mlflow.db" for path in files) and any(
        "synthetic/_MANIFEST" in name for name in ran.stored
    )
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []
    assert [name for name, data in ran.stored.items() if SECRET.encode() in data] == []
    assert SECRET not in ran.out + ran.error


@pytest.fixture
def here(ran: Ran, monkeypatch: pytest.MonkeyPatch) -> Ran:
    """This process as the one that ran: its folder, its environment."""
    monkeypatch.chdir(ran.folder)
    for name in [name for name in os.environ if name.startswith(("MLFLOW_", "GENAI_", "AWS_"))]:
        monkeypatch.delenv(name)
    for name, value in ran.environment.items():
        monkeypatch.setenv(name, value)
    return ran


def test_a_secret_in_a_uri_stays_out_of_errors(here: Ran, capfd: pytest.CaptureFixture[str]) -> None:
    text = JOBS.format(store=f"s3://AKIAIOSFODNN7EXAMPLE:{SECRET}@nosuchbucket")
    Path("wrong.yaml").write_text(text.partition("---")[0])
    for command in ("check", "run"):
        assert main([command, "wrong.yaml", "--debug"]) == 2
        said = "".join(capfd.readouterr())
        assert "nosuchbucket" in said and SECRET not in said


ODD = """job: score
model: models:/towns
source: {kind: images, path: digits}
keep: ["\\e[31mx"]
sink: {path: o}
"""


def test_no_terminal_escape_of_the_data_reaches_a_terminal(
    here: Ran, capfd: pytest.CaptureFixture[str]
) -> None:
    Path("odd.yaml").write_text(ODD)
    main(["lineage", "out/scores"])
    main(["lineage", "out/odd-digits"])
    main(["check", "jobs.yaml"])
    main(["check", "odd.yaml", "--debug"])
    said = "".join(capfd.readouterr()) + here.out + here.error
    assert "\\x1b" in said and not any(escape in said for escape in ("\x1b", "\x07", "\u202e"))


def test_pages_quote_what_the_data_says(ran: Ran) -> None:
    pages = [path for path in ran.folder.rglob("*") if path.suffix in (".html", ".svg", ".md")]
    assert pages, "scoring writes a report"
    for page in pages:
        text = page.read_text()
        assert "<script>alert" not in text and "<img src=x" not in text
        assert not any(escape in text for escape in ("\x1b", "\x07")), page.name


def test_the_hostile_values_survive_as_data(ran: Ran) -> None:
    (name,) = [name for name in ran.stored if name.endswith(".parquet") and "/synthetic/" in name]
    table = pq.read_table(pa.BufferReader(ran.stored[name]))
    assert table.column_names[0] == NAME and set(table[NAME].to_pylist()) <= set(VALUES)
