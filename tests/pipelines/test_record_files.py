"""Pictures and sounds as files of their own: readable by anybody, each signed inside, one changed byte is found."""

from __future__ import annotations

import io
import json
import wave
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from genai_core.errors import InvalidData, InvalidInput, OutputExists
from jobs.cli import main
from pipelines.outputs.record_files import export
from pipelines.outputs.sink import Sink
from pipelines.plan import Plan, Shard, job_id
from pipelines.provenance import keys
from pipelines.provenance.verification import CHANGED, INTACT, OURS, UNKNOWN, verify
from tests.pipelines.conftest import HASH


def sounds(rows: int) -> pa.Table:
    files = []
    for row in range(rows):
        out = io.BytesIO()
        with wave.open(out, "wb") as file:
            file.setparams((1, 2, 8000, 100, "NONE", ""))
            file.writeframes(np.full(100, row, "<i2").tobytes())
        files.append(out.getvalue())
    return pa.table({"sound": pa.array(files, pa.binary())})


def pictures(rows: int) -> pa.Table:
    values = np.arange(rows * 64, dtype=np.uint8).reshape(rows, 8, 8)
    flat = pa.FixedShapeTensorArray.from_numpy_ndarray(values)
    return pa.table({"picture": flat, "label": pa.array([str(i) for i in range(rows)])})


def output(table: pa.Table, path: str = "out") -> None:
    """A finished output that holds the table."""
    parts = {"plan": "x"}
    job = {"job_id": job_id("generate", parts), "verb": "generate", "parts": parts}
    sink, shard = Sink(path), Shard(0, 7, table.num_rows)
    sink.prepare(job)
    model = {"uri": "model", "digest": HASH, "kind": "gan"}
    provenance = {
        "job_id": job["job_id"],
        "verb": "generate",
        "synthetic": True,
        "model": model,
        "spec": {"seed": 7},
    }
    sink.write_shard(shard, table, provenance)
    sink.finish(Plan("generate", (shard,)), provenance)


@pytest.mark.parametrize(
    ("table", "kind"), [(pictures(3), ".png"), (sounds(3), ".wav")], ids=["pictures", "sounds"]
)
def test_each_record_is_a_signed_file(workplace: Path, table: pa.Table, kind: str) -> None:
    output(table)
    keys.init(Path("keys"), "Test Ltd")
    assert main(["export", "out", "--as", "files", "--to", "files", "--key", "keys", "--quiet"]) == 0
    files = sorted(Path("files/data").iterdir())
    assert [path.name for path in files] == [f"00000-00000{row}{kind}" for row in range(3)]
    if kind == ".png":
        with Image.open(files[2]) as image:
            assert np.asarray(image)[0, 0] == 128
    found = verify("files", "keys")
    assert {(one["verdict"], one["origin"], one["synthetic"]) for one in found} == {(INTACT, OURS, True)}
    assert HASH in found[0]["model"] and found[0]["made_by"].startswith("generate-")
    data = bytearray(files[1].read_bytes())
    data[-20] ^= 1
    files[1].write_bytes(data)
    (one,) = verify(str(files[1]), "keys")
    assert one["verdict"] == CHANGED and not one["ok"]
    with pytest.raises(OutputExists, match="not empty"):
        output(table, "second")
        export("second", "files/data")


def test_without_a_key_nothing_is_signed_and_tables_are_refused(workplace: Path) -> None:
    output(pictures(2))
    assert export("out", "files") == export("out", "files"), "done once"
    assert json.loads(Path("files/_EXPORT.json").read_text())["certificate"] is None
    assert {one["verdict"] for one in verify("files")} == {UNKNOWN}
    output(pa.table({"x": [1, 2]}), "table")
    with pytest.raises(InvalidData, match="no column of pictures or sounds: x"):
        export("table", "more")
    with pytest.raises(InvalidInput, match="no finished output"):
        export("files", "more")
