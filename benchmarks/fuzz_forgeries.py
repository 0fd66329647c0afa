"""Fuzz targets: models, outputs and footers, changed by somebody who can make every hash fit again"""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import fuzz_inputs as inputs
from benchmarks.fuzz_bench import Bench, Target, all_of
from benchmarks.fuzz_data import read
from genai_core import artifact
from pipelines.outputs.sink import Sink
from pipelines.progress import printable
from pipelines.tracked.lineage import lineage, render


def _forgery(random: Random) -> tuple[str, int]:
    return random.choice(("header", "codec", "arrays", "weights", "bytes")), random.randrange(2**32)


def _run_artifact(bench: Bench, given: tuple[str, int]) -> None:
    part, seed = given
    random, copy = Random(seed), bench.copied(bench.model)
    forge(copy, part, random)
    artifact.load_codec(copy)
    artifact.verify(copy)
    artifact.load(copy)


def forge(directory: Path, part: str, random: Random) -> None:
    """Change a model as somebody would who can make every hash fit again."""
    header = json.loads((directory / artifact.HEADER).read_text())
    value = random.choice((*inputs.NASTY_TEXTS, *inputs.INTERESTING, None, -1, 0.5, [], {}, True, [[]]))
    if part == "bytes":
        name = random.choice((artifact.HEADER, *artifact.FILES))
        data = (directory / name).read_bytes()
        (directory / name).write_bytes(inputs.mutated(data, random, [data]))
        return
    if part == "header":
        header = inputs.replaced(header, random, value)
    elif part == "codec":
        codec = json.loads((directory / "codec.json").read_text())
        (directory / "codec.json").write_text(json.dumps(inputs.replaced(codec, random, value)))
    else:
        path = directory / f"{part}.safetensors"
        path.write_bytes(forged_tensors(path.read_bytes(), random, value))
    if isinstance(header, dict):
        if part != "header":
            header["files"] = {n: artifact._sha256((directory / n).read_bytes()) for n in artifact.FILES}
        with contextlib.suppress(UnicodeEncodeError):
            header["digest"] = artifact._digest(header)
    (directory / artifact.HEADER).write_text(json.dumps(header))


def forged_tensors(data: bytes, random: Random, value: Any) -> bytes:
    """Safetensors with another header: shapes, types, offsets, its own length."""
    length = int.from_bytes(data[:8], "little")
    header, rest = json.loads(data[8 : 8 + length]), data[8 + length :]
    if random.random() < 0.2:
        return random.choice(inputs.INTERESTING).to_bytes(8, "little") + data[8:]
    if random.random() < 0.2:
        return data[: 8 + length] + inputs.mutated(rest, random, [rest])
    text = json.dumps(inputs.replaced(header, random, value)).encode()
    return len(text).to_bytes(8, "little") + text + rest


def _record(random: Random) -> tuple[str, int]:
    return random.choice(
        ("_JOB.json", "_MANIFEST.json", "_shards/00000.json", "_quarantine/00001.json")
    ), random.randrange(2**32)


def _run_output(bench: Bench, given: tuple[str, int]) -> None:
    """An output whose JSON was changed is looked at, resumed, finished, read."""
    name, seed = given
    random, copy = Random(seed), bench.copied(bench.folder / "output")
    data = (copy / name).read_bytes()
    value = random.choice((*inputs.NASTY_TEXTS, *inputs.INTERESTING, None, -1, 0.5, [], {}, True, [[]]))
    if random.random() < 0.3:
        data = inputs.mutated(data, random, [data])
    else:
        text = json.dumps(inputs.replaced(json.loads(data), random, value))
        data = text.encode("utf-8", "surrogatepass")
    (copy / name).write_bytes(data)
    if random.random() < 0.5 and name != "_MANIFEST.json":
        (copy / "_MANIFEST.json").unlink()
    steps = [lambda: printable(render(lineage(str(copy), verify=True))), lambda: _resume(bench, copy),
             lambda: read({"kind": "parquet", "path": str(copy)})]  # fmt: skip
    all_of(steps)


def _resume(bench: Bench, copy: Path) -> None:
    job, plan = bench.kept["job"], bench.kept["plan"]
    sink = Sink(str(copy))
    sink.check(job)
    sink.prepare(job)
    sink.finish(plan, {"job_id": job["job_id"]})


def _footer(random: Random) -> tuple[bool, int]:
    return random.random() < 0.3, random.randrange(2**32)


def _run_footer(bench: Bench, given: tuple[bool, int]) -> None:
    """A Parquet file with a forged provenance is asked where it comes from."""
    raw, seed = given
    random = Random(seed)
    value = random.choice((*inputs.NASTY_TEXTS, *inputs.INTERESTING, None, -1, 0.5, [], {}, True, [[]]))
    known = bench.kept["provenance"]
    text = json.dumps(inputs.replaced(known, random, value)).encode()
    text = inputs.mutated(text, random, [text]) if raw else text
    folder = bench.folder / "input"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(bench.folder / "output", folder)
    path = folder / "data" / "part-00000-000000000000.parquet"
    pq.write_table(pa.table({"x": [1]}).replace_schema_metadata({"genai": text}), path)
    printable(render(lineage(str(path))))


TARGETS = (
    Target("artifacts", 5_000, _forgery, _run_artifact),
    Target("outputs", 5_000, _record, _run_output),
    Target("footers", 5_000, _footer, _run_footer),
)
