"""What of an output differs from run to run, written after its manifest: who ran it, when, and the signatures.

    _RUN.json                            run, time, and the sidecars with their hashes; written last
    _c2pa/part-00000-<hash12>.c2pa       a part's signed manifest: same stem as the part in data/
    _c2pa/_RUN-<hash12>-<hash12>.c2pa    the signed manifest of _RUN.json, named by the hashes of that and of itself

Data, records and manifest hold no time and no signature, so that equal jobs leave equal bytes: ECDSA signatures differ
each time. The driver signs, so that no worker ever sees a key. Interrupted, the same command goes on: sidecars that
stand and fit are taken, as another run's are. Folders that begin with `_` are passed over by readers of Parquet.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pipelines.outputs import footer as footers
from pipelines.outputs.sink import Sink, written
from pipelines.plan import canonical_hash
from pipelines.provenance import content_credentials
from pipelines.provenance.content_credentials import INVALID, Signer
from pipelines.provenance.keys import SigningKey
from pipelines.stores import storage

RUN, FOLDER = "_RUN.json", "_c2pa"
# of the provenance, what a signed manifest says of a file
SIGNED = (
    "job_id",
    "verb",
    "synthetic",
    "model",
    "training_data",
    "training_job",
    "source",
    "rights",
    "privacy",
    "spec_hash",
)


def seal(
    sink: Sink, manifest: Mapping[str, Any], key: SigningKey | None, run_id: str | None
) -> dict[str, Any] | None:
    """Sign what is not signed yet, and say who ran the job when; None when all of that was done before."""
    standing = read_run(sink)
    wanted = key.fingerprint if key else None
    fits = standing is not None and standing.get("manifest") == manifest["hash"]
    if fits and wanted in (None, (standing or {}).get("certificate")):
        return None
    when = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    run = {
        "format": 1,
        "job_id": manifest["provenance"]["job_id"],
        "manifest": manifest["hash"],
        "run_id": run_id or (standing or {}).get("run_id"),
        "finished": (standing or {}).get("finished", when),
        "certificate": wanted,
        "signatures": [],
    }
    with storage.explained(sink.uri):
        signer = Signer(key) if key else None
        if signer is not None:
            run["signatures"] = [
                _sign_part(sink, shard, signer, manifest, run, when) for shard in manifest["shards"]
            ]
        run["hash"] = canonical_hash(run)
        text = written(run)
        if signer is not None:
            sidecar = signer.sidecar(text, {"manifest": manifest["hash"], "job_id": run["job_id"]}, RUN, when)
            name = f"_RUN-{_short_hash(text)}-{_short_hash(sidecar)}.c2pa"
            storage.put_bytes(sink.filesystem, sink.path(FOLDER, name), sidecar)
        # where there is none yet, the first of two runs of the job wins: its signature lies beside it already
        storage.put_bytes(sink.filesystem, sink.path(RUN), text, replace=standing is not None)
    return run


def _short_hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]


def facts_of(shard: Mapping[str, Any], manifest: Mapping[str, Any], run_id: str | None) -> dict[str, Any]:
    """What the signed manifest of a part says."""
    provenance = manifest["provenance"]
    facts = {name: provenance[name] for name in SIGNED if provenance.get(name) is not None}
    seed = provenance.get("spec", {}).get("seed")
    place = {"shard": shard["id"], "rows": shard["rows"], "sha256": shard["sha256"], "seed": seed}
    return {**facts, **place, "run_id": run_id, "manifest": manifest["hash"]}


def sidecar_of(file: str) -> str:
    """Where the sidecar of a data file of an output lies: part names are unique in an output."""
    return f"{FOLDER}/{file.rpartition('/')[2].removesuffix('.parquet')}.c2pa"


def read_run(sink: Sink) -> dict[str, Any] | None:
    """What _RUN.json says; None when there is none that fits its form."""
    try:
        found = json.loads(storage.read_bytes(sink.filesystem, sink.path(RUN)))
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    listed = found.get("signatures") if isinstance(found, dict) else None
    fits = isinstance(listed, list) and all(_is_signature(one) for one in listed)
    return found if fits else None


def _is_signature(found: Any) -> bool:
    return isinstance(found, dict) and all(
        isinstance(found.get(name), str) for name in ("file", "of", "sha256")
    )


def _sign_part(
    sink: Sink,
    shard: Mapping[str, Any],
    signer: Signer,
    manifest: Mapping[str, Any],
    run: Mapping[str, Any],
    when: str,
) -> dict[str, Any]:
    name = sidecar_of(shard["file"])
    sidecar = _standing(sink, name, shard, signer)
    if sidecar is None:
        data = storage.read_bytes(sink.filesystem, sink.path(shard["file"]))
        synthetic = bool(
            footers.of_bytes(data).get("synthetic", True)
        )  # an augmented output has parts of real rows
        facts = facts_of(shard, manifest, run["run_id"]) | {"synthetic": synthetic}
        sidecar = signer.sidecar(data, facts, shard["file"].rpartition("/")[2], when, synthetic)
        if not storage.put_bytes(sink.filesystem, sink.path(name), sidecar, replace=False):
            # another run of the job was faster: its signature holds, unless it does not fit
            other = _standing(sink, name, shard, signer)
            if other is None:
                storage.put_bytes(sink.filesystem, sink.path(name), sidecar)
            sidecar = other or sidecar
    return {
        "file": name,
        "of": shard["file"],
        "sha256": hashlib.sha256(sidecar).hexdigest(),
        "bytes": len(sidecar),
    }


def _standing(sink: Sink, name: str, shard: Mapping[str, Any], signer: Signer) -> bytes | None:
    """The sidecar that lies there, if this key signed it for this part."""
    try:
        found = storage.read_bytes(sink.filesystem, sink.path(name))
    except FileNotFoundError:
        return None
    # without the data: only that its hash does not match may be wrong
    credential = content_credentials.read(b"", signer.key.authority, found)
    fits = credential is not None and credential.facts.get("sha256") == shard["sha256"]
    mismatch = ("assertion.dataHash.mismatch",)
    return (
        found
        if fits and credential and credential.state == INVALID and credential.faults == mismatch
        else None
    )
