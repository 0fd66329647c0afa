"""Pictures and sounds of a finished output as files of their own, PNG and WAV, signed inside: `genai export --as files`

    data/00000-000017.png    shard 0, row 17
    _EXPORT.json             the files with their hashes, the rows' origin; written last

In an output's Parquet parts the records stay unsigned: the part's own signature covers them, and a manifest inside each
would be three times the size of a small picture.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from genai_core.errors import InvalidData, InvalidInput, OutputExists
from pipelines.outputs.sink import DATA, MANIFEST, Sink, written
from pipelines.provenance import keys
from pipelines.provenance.content_credentials import Signer
from pipelines.provenance.sealing import facts_of, read_run
from pipelines.stores import storage

FORMAT, EXPORT = 1, "_EXPORT.json"
ROWS = 256  # in memory at a time
LONGEST = 3600.0  # seconds of a sound
SOUNDS = (b"RIFF", b"fLaC", b"OggS")


def export(source: str, to: str, key: str | None = None) -> dict[str, Any]:
    """Write the records of the output at `source` into the directory `to`; returns what _EXPORT.json says.

    key  directory of the key that signs; default: that of GENAI_SIGNING_KEY; without one the files are not signed
    Raises InvalidInput for unfinished output, InvalidData without pictures or sounds, OutputExists.
    """
    sink, target = Sink(source), Sink(to)
    manifest = sink.manifest()
    if manifest is None:
        raise InvalidInput(f"{storage.mask(source)} holds no finished output ({MANIFEST}); run its job first")
    directory = keys.directory_for(key)
    loaded = keys.load(directory) if directory else None
    certificate = loaded.fingerprint if loaded else None
    with storage.explained(to):
        if (done := _standing(target, to, manifest["hash"], certificate)) is not None:
            return done
        signer = Signer(loaded) if loaded else None
        files = [one for shard in manifest["shards"] for one in _part(sink, target, shard, manifest, signer)]
        listed = {
            "format": FORMAT,
            "kind": "files",
            "rows": len(files),
            "certificate": certificate,
            "files": files,
            "source": {
                "path": storage.mask(source),
                "manifest": manifest["hash"],
                "status": manifest["status"],
            },
            "provenance": manifest["provenance"],
        }
        storage.put_bytes(target.filesystem, target.path(EXPORT), written(listed))
    return listed


def _standing(target: Sink, to: str, manifest: str, certificate: str | None) -> dict[str, Any] | None:
    """The same export done before; None where there is nothing yet."""
    found = [info.path for info in storage.list_files(target.filesystem, target.root)]
    if target.path(EXPORT) in found:
        kept = dict(json.loads(storage.read_bytes(target.filesystem, target.path(EXPORT))))
        if (kept.get("source", {}).get("manifest"), kept.get("certificate")) == (manifest, certificate):
            return kept
    if found:
        raise OutputExists(
            f"{storage.mask(to)} is not empty; choose another directory, or empty it: an export that was interrupted "
            "begins anew"
        )
    return None


def _part(
    sink: Sink, target: Sink, shard: Mapping[str, Any], manifest: Mapping[str, Any], signer: Signer | None
) -> Iterator[dict[str, Any]]:
    facts = facts_of(shard, manifest, (read_run(sink) or {}).get("run_id"))
    when = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    with sink.filesystem.open_input_file(sink.path(shard["file"])) as stream:
        row = 0
        for batch in pq.ParquetFile(stream).iter_batches(ROWS):
            for kind, data in _records(batch, shard["file"]):
                name = f"{shard['id']:05d}-{row:06d}{kind}"
                if signer is not None and data:
                    data = signer.embedded(data, kind, facts | {"row": row, "sha256": None}, name, when)
                row += 1
                if data:
                    storage.put_bytes(target.filesystem, target.path(DATA, name), data, named=False)
                    yield {
                        "file": f"{DATA}/{name}",
                        "bytes": len(data),
                        "sha256": hashlib.sha256(data).hexdigest(),
                    }


def _records(batch: pa.RecordBatch, file: str) -> Iterator[tuple[str, bytes]]:
    """(".png" or ".wav", the bytes of a file) of every row; empty bytes where nothing can be read."""
    from genai_core.pictures.columns import images, is_encoded, is_struct, tensors_of
    from genai_core.pictures.encoded import Unreadable, bombs_refused, png
    from genai_core.sounds.files import files_in, holds_sounds

    for number, field in enumerate(batch.schema):
        column = batch.column(number)
        if holds_sounds(field.type) and _first(files_in(column)).startswith(SOUNDS):
            yield from ((".wav", _as_wav(data)) for data in files_in(column))
            return
        if is_encoded(field.type) or is_struct(field.type) or tensors_of(field.type) is not None:
            with bombs_refused():
                for image in images(column):
                    yield ".png", b"" if isinstance(image, Unreadable) else png(image)
            return
    raise InvalidData(f"{file} has no column of pictures or sounds: {', '.join(batch.schema.names)}")


def _first(values: Iterator[bytes | None]) -> bytes:
    return next((value for value in values if value), b"")


def _as_wav(data: bytes | None) -> bytes:
    from genai_core.sounds.files import Unreadable, read, wav

    if data is None or data.startswith(SOUNDS[0]):
        return data or b""
    try:
        sound = read(data, None, LONGEST)
    except Unreadable:
        return b""
    return wav(sound.samples, sound.rate)
