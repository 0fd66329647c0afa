"""What signing costs beside generation: python -m benchmarks.signing --data DIR

generation   CPU-seconds of a generate job of 200,000 rows of flights in four parts, unsigned
signing      CPU-seconds of signing that output: four sidecars and the run's file; share: of generation
verifying    CPU-seconds of `genai verify` on it, every byte read
records      a 28 x 28 PNG and a second of sound at 8 kHz, signed inside: milliseconds and bytes more of each
DIR          holds flights/
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.record import save
from benchmarks.tabular_tables import flights
from genai_core import fit
from pipelines import generate
from pipelines.context import Context
from pipelines.outputs.sink import Sink
from pipelines.provenance import content_credentials, keys, sealing
from pipelines.provenance.verification import verify

ROWS, PER_SHARD, RECORDS, SEED = 200_000, 50_000, 200, 0


def main() -> None:
    """Fit, generate, sign, verify, and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument(
        "--seconds", type=float, default=30, help="of the fit: how good the model is does not matter"
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        figures = measured(given.data, Path(scratch), given.seconds)
    save("signing", figures, rows=ROWS, rows_per_shard=PER_SHARD, records=RECORDS, seed=SEED)


def measured(data: Path, scratch: Path, seconds: float) -> dict[str, Any]:
    """All figures."""
    model, out, directory = scratch / "model", scratch / "out", scratch / "keys"
    fit(flights(data).train, seed=SEED, max_seconds=seconds).save(model)
    keys.init(directory, "Benchmark")
    job = {
        "model": str(model),
        "rows": ROWS,
        "rows_per_shard": PER_SHARD,
        "seed": SEED,
        "sink": {"path": str(out)},
    }
    generation = cpu(lambda: generate.run(_job(job), Context(log=lambda text: None)))
    sink = Sink(str(out))
    manifest = sink.manifest()
    assert manifest is not None
    signing = cpu(lambda: sealing.seal(sink, manifest, keys.load(directory), None))
    verifying = cpu(lambda: _all_ok(verify(str(out), str(directory))))
    return {
        "generation": round(generation, 3),
        "signing": round(signing, 4),
        "share": round(signing / generation, 5),
        "verifying": round(verifying, 3),
        "megabytes": round(manifest["bytes"] / 1e6, 1),
        "records": {kind: _record(keys.load(directory), kind, data) for kind, data in _files().items()},
    }


def cpu(work: Callable[[], Any]) -> float:
    """CPU-seconds of this process."""
    started = time.process_time()
    work()
    return time.process_time() - started


def _job(fields: dict[str, Any]) -> generate.GenerateJob:
    return generate.GenerateJob.model_validate(
        fields | {"track": {"enabled": False}, "compute": {"runner": "inline"}}
    )


def _all_ok(found: list[dict[str, Any]]) -> None:
    if not all(one["ok"] for one in found):
        raise SystemExit("the output does not verify")


def _files() -> dict[str, bytes]:
    random = np.random.default_rng(SEED)
    picture, sound = io.BytesIO(), io.BytesIO()
    Image.fromarray(random.integers(0, 255, (28, 28), np.uint8)).save(picture, "png")
    with wave.open(sound, "wb") as file:
        file.setparams((1, 2, 8000, 8000, "NONE", ""))
        file.writeframes(random.integers(-9999, 9999, 8000).astype("<i2").tobytes())
    return {".png": picture.getvalue(), ".wav": sound.getvalue()}


def _record(key: keys.SigningKey, kind: str, data: bytes) -> dict[str, float]:
    signer, made = content_credentials.Signer(key), b""
    started = time.process_time()
    for _ in range(RECORDS):
        made = signer.embedded(data, kind, {"job_id": "x", "row": 1}, "record", "2026-01-01T00:00:00Z")
    spent = time.process_time() - started
    return {
        "milliseconds": round(1000 * spent / RECORDS, 3),
        "bytes": len(data),
        "bytes_more": len(made) - len(data),
    }


if __name__ == "__main__":
    main()
