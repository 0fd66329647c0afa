"""Which single changed bits are found, and by what: python -m benchmarks.tamper

A small signed output; of each kind of file random bits are flipped, one at a time, and looked for

hashes     by a manifest's hash of the part, as `genai lineage --verify` does
signature  by the part's C2PA sidecar alone, as any C2PA tool does
verify     by `genai verify`, which asks both, and the files that say what belongs together
"""

from __future__ import annotations

import hashlib
import random
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.record import save
from genai_core import fit
from pipelines import generate
from pipelines.context import Context
from pipelines.provenance import content_credentials, keys
from pipelines.provenance.verification import verify

FLIPS, ROWS, SEED = 60, 500, 0
KINDS = {
    "data": "data/*.parquet",
    "footer": "data/*.parquet",
    "sidecar": "_c2pa/part-*.c2pa",
    "run": "_RUN.json",
    "sidecar of the run": "_c2pa/_RUN-*.c2pa",
    "manifest": "_MANIFEST.json",
    "record": "_shards/*.json",
}


def main() -> None:
    """Make the output, change it, and keep what was found."""
    with tempfile.TemporaryDirectory() as scratch:
        found = {kind: flipped(signed_output(Path(scratch)), kind) for kind in KINDS}
    save("tamper", found, flips=FLIPS, rows=ROWS, seed=SEED)


def signed_output(folder: Path) -> Path:
    """One part; made once."""
    out = folder / "out"
    if out.exists():
        return out
    chance = np.random.default_rng(SEED)
    table = pa.table({"x": chance.normal(size=300), "y": chance.choice(["a", "b"], 300)})
    fit(table, max_epochs=1, seed=SEED, model={"context": 16, "hidden": 8}).save(folder / "model")
    keys.init(folder / "keys", "Benchmark")
    job = {"model": str(folder / "model"), "rows": ROWS, "seed": SEED, "sink": {"path": str(out)}}
    fields = job | {"sign": {"key": str(folder / "keys")}, "track": {"enabled": False}}
    generate.run(generate.GenerateJob.model_validate(fields), Context(log=lambda text: None))
    return out


def flipped(out: Path, kind: str) -> dict[str, float]:
    """Shares of the flipped bits that each of the ways finds."""
    chance = random.Random(f"{SEED} {kind}")
    path = next(iter(sorted(out.glob(KINDS[kind]))))
    good = path.read_bytes()
    footer = len(good) - 8 - int.from_bytes(good[-8:-4], "little") if path.suffix == ".parquet" else 0
    start, stop = {"data": (0, footer), "footer": (footer, len(good))}.get(kind, (0, len(good)))
    ways = {"hashes": by_hash, "signature": by_signature, "verify": by_verify}
    counts = dict.fromkeys(ways, 0)
    for _ in range(FLIPS):
        bad = bytearray(good)
        bad[chance.randrange(start, stop)] ^= 1 << chance.randrange(8)
        path.write_bytes(bad)
        for way, finds in ways.items():
            counts[way] += finds(out)
    path.write_bytes(good)
    for way, finds in ways.items():
        if finds(out):
            raise SystemExit(f"{way} finds a change where there is none")
    return {way: round(count / FLIPS, 3) for way, count in counts.items()}


def by_hash(out: Path) -> bool:
    """The bytes of the part against the hash in its name, which is that in the manifest."""
    part = next(out.glob("data/*.parquet"))
    return not part.stem.endswith(hashlib.sha256(part.read_bytes()).hexdigest()[:12])


def by_signature(out: Path) -> bool:
    """The part and its sidecar, and nothing else."""
    part, sidecar = next(out.glob("data/*.parquet")), next(out.glob("_c2pa/part-*.c2pa"))
    anchors = keys.trust_anchors(str(out.parent / "keys"))
    found = content_credentials.read(part.read_bytes(), anchors, sidecar.read_bytes())
    return found is None or found.state != content_credentials.TRUSTED


def by_verify(out: Path) -> bool:
    """The command."""
    return not all(one["ok"] for one in verify(str(out), str(out.parent / "keys")))


if __name__ == "__main__":
    main()
