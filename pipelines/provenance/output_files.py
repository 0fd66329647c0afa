"""What an output says of itself, read byte by byte: its job, its manifest, its records, its run and their signature

A hash of what JSON means would not see a changed blank: every one of these files has to be exactly what is written for
what it says.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from pipelines.outputs.sink import JOB, LISTED, MANIFEST, RECORDS, Sink, written
from pipelines.outputs.sink_files import believed, hash_fits
from pipelines.plan import canonical, job_id
from pipelines.provenance import content_credentials as credentials
from pipelines.provenance.sealing import FOLDER, RUN, read_run
from pipelines.stores import storage

Found = dict[str, Any] | None


def read(sink: Sink, anchors: str) -> tuple[Found, Found, list[str]]:
    """The manifest (None: it is damaged), the run (None: there is none), and what is not as it was written."""
    text, found = _json(sink, MANIFEST)
    manifest = believed("manifest", found)
    if manifest is None:
        return None, None, [f"{MANIFEST} is damaged"]
    faults = []
    if not hash_fits(manifest) or text != written(manifest):
        faults.append(f"{MANIFEST} is not as it was written: its own hash does not fit")
    faults += [*_job_faults(sink, manifest), *_record_faults(sink, manifest)]
    run = read_run(sink)
    (run or {}).pop("trusted", None)  # that is found out here, and for nobody to write
    faults += _run_faults(sink, run, manifest, anchors)
    return manifest, run, faults


def origin(run: Mapping[str, Any] | None, faults: list[str]) -> str:
    """Whose signature the whole output has."""
    if not run or not run.get("certificate"):
        return "not signed"
    if run.get("trusted"):
        return "signed by us"
    return "of unknown origin" if faults else "signed by others"


def _json(sink: Sink, name: str) -> tuple[bytes, Any]:
    try:
        text = storage.read_bytes(sink.filesystem, sink.path(name))
        return text, json.loads(text)
    except (FileNotFoundError, ValueError, RecursionError):
        return b"", None


def _job_faults(sink: Sink, manifest: Mapping[str, Any]) -> Iterator[str]:
    text, found = _json(sink, JOB)
    job = believed("job", found)
    if job is None:
        yield f"{JOB} is missing or damaged"
    elif job["job_id"] != manifest["provenance"].get("job_id") or text != written(job):
        yield f"{JOB} is not as it was written"
    elif job_id(job["verb"], job["parts"]) != job["job_id"]:
        yield f"{JOB} is not as it was written: its id is not that of its parts"


def _record_faults(sink: Sink, manifest: Mapping[str, Any]) -> Iterator[str]:
    for shard in manifest["shards"]:
        name = f"{RECORDS}/{shard['id']:05d}.json"
        text, found = _json(sink, name)
        record = believed("record", found)
        if record is None or text != canonical(record) or any(record[key] != shard[key] for key in LISTED):
            yield f"{name} is missing, or not as the manifest says"


def _run_faults(sink: Sink, run: Found, manifest: Mapping[str, Any], anchors: str) -> Iterator[str]:
    if run is None:
        if manifest["provenance"].get("synthetic"):
            yield f"{RUN} is missing or damaged"
        return
    text, _ = _json(sink, RUN)
    if not hash_fits(run) or text != written(run) or run.get("manifest") != manifest["hash"]:
        yield f"{RUN} is not as it was written, or of another manifest"
    if not run.get("certificate"):
        return
    sidecar, name = _run_sidecar(sink, text)
    if sidecar is None:
        yield f"the signature of {RUN} is missing"
        return
    if not name.endswith(f"-{hashlib.sha256(sidecar).hexdigest()[:12]}.c2pa"):
        yield f"the signature of {RUN} has other bytes"
    found = credentials.read(text, anchors, sidecar)
    if found is None or found.state == credentials.INVALID:
        yield f"the signature of {RUN} does not fit"
    else:
        run["trusted"] = found.state == credentials.TRUSTED


def _run_sidecar(sink: Sink, text: bytes) -> tuple[bytes | None, str]:
    """The one whose name says that it is of this text; earlier ones stay when an output is signed again."""
    start = f"_RUN-{hashlib.sha256(text).hexdigest()[:12]}-"
    names = [info.path for info in storage.list_files(sink.filesystem, sink.path(FOLDER))]
    name = min((name for name in names if name.rpartition("/")[2].startswith(start)), default=None)
    return (None, "") if name is None else (storage.read_bytes(sink.filesystem, name), name)
