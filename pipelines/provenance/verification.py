"""`genai verify`: of every file whether it is synthetic, as it was written, whose it is, and what was said of its use.

| verdict      | what was found                                                                                        |
|--------------|-------------------------------------------------------------------------------------------------------|
| intact       | every byte is as the manifest beside it says, or as its signature does                                |
| changed      | a byte differs: of the data, the footer, the sidecar, a record, the manifest or the run's file        |
| missing      | a manifest lists it, and it is not there                                                              |
| unlisted     | it lies in an output whose manifest does not list it                                                  |
| not verified | it says where it comes from, but neither a manifest nor a signature lies beside it                    |
| unknown      | it carries nothing: real, somebody else's, or stripped                                                |
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs

from genai_core.errors import InvalidInput
from pipelines.outputs import footer as footers
from pipelines.outputs.sink import DATA, MANIFEST, Sink
from pipelines.outputs.sink_files import believed
from pipelines.provenance import content_credentials as credentials
from pipelines.provenance import keys, output_files
from pipelines.provenance.rights import RightsSettings
from pipelines.provenance.sealing import sidecar_of
from pipelines.stores import storage

ACCEPTED = "a Parquet, PNG or WAV file, or a directory that holds some"
INTACT, CHANGED, MISSING, UNLISTED = "intact", "changed", "missing", "unlisted"
NOT_VERIFIED, UNKNOWN = "not verified", "unknown"
OURS, OTHERS, UNSIGNED, NOBODY = "signed by us", "signed by others", "not signed", "of unknown origin"
UNCONFIRMED = (
    "its footer says what follows, and nothing beside it confirms that: put its sidecar (.c2pa, of the same name) "
    "beside it, or verify it in its output"
)
NOTHING = "it carries nothing: real, made by others, or stripped of what it carried"
KINDS = (".parquet", *credentials.EMBEDDED)
Watermark = Callable[[str, Mapping[str, Any]], Mapping[str, Any]]  # (file, provenance) -> z and what it means


@dataclass
class Verdict:
    """What is known of a file. `ok`: intact, and of a trusted signer or, where none is asked for, unsigned."""

    file: str
    verdict: str
    origin: str = NOBODY
    faults: list[str] = field(default_factory=list)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    synthetic: bool | None = None
    watermark: Mapping[str, Any] | None = None

    def facts(self, strict: bool) -> dict[str, Any]:
        """JSON-able; strict: a file that nobody signed is not ok."""
        known = self.provenance
        model, data = known.get("model") or {}, known.get("training_data") or {}
        rights = known.get("rights")
        return {
            "file": self.file,
            "ok": self.verdict == INTACT and self.origin in ((OURS,) if strict else (OURS, UNSIGNED)),
            "verdict": self.verdict,
            "synthetic": self.synthetic,
            "origin": self.origin,
            "faults": self.faults,
            "made_by": known.get("job_id"),
            "model": " ".join(str(model[name]) for name in ("kind", "uri", "digest") if model.get(name))
            or None,
            "training_data": " ".join(str(data[name]) for name in ("path", "digest") if data.get(name))
            or None,
            "rights": _said(rights) if known else None,
            "watermark": dict(self.watermark) if self.watermark else None,
        }


def verify(path: str, trust: str | None = None, watermark: Watermark | None = None) -> list[dict[str, Any]]:
    """A verdict for every file at `path`, as plain values, sorted by name; see `Verdict.facts`.

    trust  authorities to believe, see `keys.trust_anchors`; when it is given, unsigned files are not ok
    Raises InvalidInput when there is nothing of the kind there.
    """
    anchors = keys.trust_anchors(trust)
    filesystem, inside = storage.resolve(path)
    with storage.explained(path):
        kind = filesystem.get_file_info(inside).type
    if kind == pafs.FileType.NotFound:
        raise InvalidInput(f"{storage.mask(path)} does not exist; accepted is {ACCEPTED}")
    if kind == pafs.FileType.Directory:
        found = list(_directory(path, anchors))
    elif path.endswith(KINDS):
        found = [_file(path, anchors)]
    else:
        raise InvalidInput(f"{storage.mask(path)} is not a file that can be verified; accepted is {ACCEPTED}")
    if not found:
        raise InvalidInput(f"{storage.mask(path)} holds nothing to verify; accepted is {ACCEPTED}")
    for one in found:
        if watermark is not None and one.file.endswith(".parquet") and one.verdict != MISSING:
            one.watermark = watermark(one.file, one.provenance)
    return [one.facts(strict=trust is not None) for one in found]


def _directory(path: str, anchors: str) -> Iterator[Verdict]:
    """Outputs below it as a whole, and every other file by itself."""
    filesystem, root = storage.resolve(path)
    names = sorted(info.path[len(root) + 1 :] for info in storage.list_files(filesystem, root))
    outputs = [
        name.removesuffix(MANIFEST).rstrip("/") for name in names if name.rpartition("/")[2] == MANIFEST
    ]
    for output in outputs:
        yield from _output(storage.join(path, output) if output else path, anchors)
    inside = tuple(f"{output}/" if output else "" for output in outputs)
    for name in names:
        if name.endswith(KINDS) and not name.startswith(inside or ("\0",)):
            yield _file(storage.join(path, name), anchors)


def _output(path: str, anchors: str) -> Iterator[Verdict]:
    """What the manifest of an output lists, what lies beside that, and what it says of itself."""
    sink = Sink(path)
    manifest, run, own = output_files.read(sink, anchors)
    if manifest is None:
        yield Verdict(storage.join(path, MANIFEST), CHANGED, faults=own)
        return
    provenance = manifest["provenance"]
    origin = output_files.origin(run, own)
    yield Verdict(
        storage.join(path, MANIFEST),
        CHANGED if own else INTACT,
        origin,
        own,
        provenance,
        provenance.get("synthetic"),
    )
    there = {
        info.path.removeprefix(sink.root + "/")
        for info in storage.list_files(sink.filesystem, sink.path(DATA))
    }
    for shard in manifest["shards"]:
        name = storage.join(path, shard["file"])
        if shard["file"] not in there:
            yield Verdict(name, MISSING, faults=["the manifest lists it"], provenance=provenance)
        else:
            there.remove(shard["file"])
            yield _part(sink, name, shard, manifest, run, anchors)
    for file in sorted(there):
        if not storage.is_temporary(file.rpartition("/")[2]):
            yield Verdict(storage.join(path, file), UNLISTED, faults=["the manifest does not list it"])


def _part(
    sink: Sink,
    name: str,
    shard: Mapping[str, Any],
    manifest: Mapping[str, Any],
    run: Mapping[str, Any] | None,
    anchors: str,
) -> Verdict:
    """A data file of an output, by its manifest and its signature."""
    faults, origin = [], UNSIGNED
    with sink.filesystem.open_input_file(sink.path(shard["file"])) as stream:
        if _sha256(stream) != shard["sha256"]:
            faults.append("its bytes are not those that the manifest lists")
        listed = {one["of"]: one for one in (run or {}).get("signatures", ())}.get(shard["file"])
        sidecar = _sidecar(sink.filesystem, sink.path(sidecar_of(shard["file"])))
        if listed is not None and (
            sidecar is None or hashlib.sha256(sidecar).hexdigest() != listed["sha256"]
        ):
            faults.append("its sidecar is missing" if sidecar is None else "its sidecar has other bytes")
        if sidecar is not None:
            origin, more = _signed(credentials.read(stream, anchors, sidecar), shard["sha256"])
            faults += more
    # an augmented output has parts of real rows; a footer that was changed counts for nothing
    own = {} if faults else footers.read(sink.filesystem, sink.path(shard["file"])) or {}
    synthetic = own.get("synthetic", manifest["provenance"].get("synthetic"))
    return Verdict(name, CHANGED if faults else INTACT, origin, faults, manifest["provenance"], synthetic)


def _file(path: str, anchors: str) -> Verdict:
    """One file, with whatever lies around it."""
    if path.endswith(tuple(credentials.EMBEDDED)):
        return _media(path, anchors)
    folder, _, name = (path if "://" in path else str(Path(path).absolute())).rpartition("/")
    root, inside, below = f"{folder}/".rpartition(f"/{DATA}/")
    sink = Sink(root or "/") if inside else None
    if sink is not None and sink.filesystem.get_file_info(sink.path(MANIFEST)).type == pafs.FileType.File:
        manifest, run, own = output_files.read(sink, anchors)
        listed = {shard["file"]: shard for shard in (manifest or {"shards": []})["shards"]}
        shard = listed.get(f"{DATA}/{below}{name}")
        if manifest is None or shard is None:
            return Verdict(path, UNLISTED, faults=own or ["the manifest does not list it"])
        found = _part(sink, path, shard, manifest, run, anchors)
        found.faults += own
        found.verdict = CHANGED if found.faults else INTACT
        return found
    return _alone(path, anchors)


def _alone(path: str, anchors: str) -> Verdict:
    """A Parquet file that has left its output: what its footer and a sidecar beside it say."""
    filesystem, inside = storage.resolve(path)
    sidecar = _sidecar(filesystem, inside.removesuffix(".parquet") + ".c2pa")
    try:
        footer = footers.read(filesystem, inside)
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        fault = f"it cannot be read as Parquet: {str(error).splitlines()[0][:120]}"
        return Verdict(path, UNKNOWN if sidecar is None else CHANGED, faults=[fault])
    provenance = believed("provenance", footer) or {}
    synthetic = provenance.get("synthetic")
    if sidecar is None:
        verdict, fault = (NOT_VERIFIED, UNCONFIRMED) if provenance else (UNKNOWN, NOTHING)
        return Verdict(path, verdict, NOBODY, [fault], provenance, synthetic)
    with filesystem.open_input_file(inside) as stream:
        digest = _sha256(stream)
        found = credentials.read(stream, anchors, sidecar)
    origin, faults = _signed(found, digest)
    known = dict(found.facts) if found else {}
    verdict = CHANGED if faults else INTACT
    return Verdict(
        path, verdict, origin, faults, {**known, **provenance}, synthetic or bool(found and found.synthetic)
    )


def _media(path: str, anchors: str) -> Verdict:
    filesystem, inside = storage.resolve(path)
    with storage.explained(path), filesystem.open_input_file(inside) as stream:
        found = credentials.read(stream, anchors, None, credentials.EMBEDDED[Path(path).suffix])
    if found is None:
        return Verdict(path, UNKNOWN, faults=[NOTHING])
    origin, faults = _signed(found, None)
    return Verdict(path, CHANGED if faults else INTACT, origin, faults, found.facts, found.synthetic or None)


def _signed(found: credentials.Credential | None, digest: str | None) -> tuple[str, list[str]]:
    """Whose signature it is, and what is wrong with it."""
    if found is None:
        return NOBODY, ["its sidecar holds no signature"]
    if found.state == credentials.INVALID:
        return NOBODY, [f"its signature does not fit: {', '.join(found.faults) or 'damaged'}"]
    if digest is not None and found.facts.get("sha256") not in (None, digest):
        return NOBODY, ["its signature is of another file"]
    return (OURS if found.state == credentials.TRUSTED else OTHERS), []


def _sidecar(filesystem: pafs.FileSystem, path: str) -> bytes | None:
    try:
        return storage.read_bytes(filesystem, path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _sha256(stream: Any) -> str:
    digest = hashlib.sha256()
    stream.seek(0)
    while chunk := stream.read(2**22):
        digest.update(chunk)
    stream.seek(0)
    return digest.hexdigest()


def _said(rights: Any) -> str:
    """What was said of the use of the data, and what was not."""
    found = rights if isinstance(rights, Mapping) else {}
    said = [f"{name}: {found[name]}" for name in RightsSettings.model_fields if found.get(name)]
    open_ = [name for name in ("subjects", "licence", "purpose") if not found.get(name)]
    return "; ".join([*said, *([f"{', '.join(open_)} not stated"] if open_ else [])])
