"""Exactly-once output: every shard's rows stand in the finished output once, whatever was interrupted when.

    data/part-00000-<hash12>.parquet   a shard's rows, named by the hash of the file's bytes
    _shards/00000.json                 the shard's record: writing it is the commit
    _quarantine/00000.json             a shard that failed for good, with its error
    _JOB.json                          whose output this is; written first
    _MANIFEST.json                     what the output consists of; written once, last

A data file without a record is as if it had not been written: the shard is done again, and what the manifest
does not list is removed. Nothing here holds a time or a host name, so that equal jobs leave equal bytes: who ran a job
and when stands in _RUN.json beside it (pipelines/provenance/sealing.py).

Two runs of one job may work here at once, and none needs a lock: the job file, each record and the manifest are
written only where there is none yet, by one request that the disk or the store decides; who comes second takes what
stands there (docs/decisions/0015).
"""

from __future__ import annotations

import hashlib
import json
import re
import traceback
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa

from genai_core.errors import InvalidData, JobFailed, OutputExists
from pipelines.masking import mask_text
from pipelines.outputs import footer as footers
from pipelines.outputs import sink_files as files
from pipelines.plan import Plan, Shard, canonical, canonical_hash
from pipelines.stores import storage

FORMAT = 1
JOB, MANIFEST = "_JOB.json", "_MANIFEST.json"
DATA, RECORDS, QUARANTINE = "data", "_shards", "_quarantine"
PART = re.compile(r"part-(\d+)-[0-9a-f]{12}\.parquet")
RECORDS_AT_ONCE = 16  # a store answers each in milliseconds, and there may be thousands
LISTED = ("id", "file", "rows", "bytes", "sha256")  # of a record, in the manifest


class Sink:
    """One job's output directory, local or on a store."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.filesystem, self.root = storage.resolve(uri)

    def path(self, *parts: str) -> str:
        return storage.join(self.root, *parts)

    def prepare(self, job: Mapping[str, Any]) -> set[int]:
        """Take the directory for a job, or resume it: the ids of the shards that are done.

        `job` is {"job_id", "verb", "parts"}. OutputExists when the directory is another job's, or not empty.
        """
        with storage.explained(self.uri):
            if self.job() is None:
                self.refuse_strangers()
                self._put_new(JOB, written({"format": FORMAT, **job}))
            self._refuse_other(job)  # also when another job was faster by a moment
            for folder in (DATA, RECORDS, QUARANTINE):
                self._refuse_link(self.path(folder, "x"))
            return {record["id"] for record in self.records()}

    def check(self, job: Mapping[str, Any]) -> None:
        """What `prepare` would refuse, without writing anything."""
        with storage.explained(self.uri):
            if self.job() is None:
                self.refuse_strangers()
            else:
                self._refuse_other(job)

    def job(self) -> dict[str, Any] | None:
        """What _JOB.json says; None when there is none. Raises InvalidData when no job wrote it."""
        found = self._read_json(JOB)
        return None if found is None else files.required("job", found, f"{storage.mask(self.uri)}/{JOB}")

    def manifest(self) -> dict[str, Any] | None:
        """The manifest of a finished job; None before. Raises InvalidData unless its hash fits what it says."""
        found = self.manifest_as_found()
        if found is not None and not files.hash_fits(found):
            raise InvalidData(
                f"{storage.mask(self.uri)}/{MANIFEST} was changed after it was written: its own hash does not fit. "
                "Restore it, or remove it and run the job again"
            )
        return found

    def manifest_as_found(self) -> dict[str, Any] | None:
        """The same, whatever its hash says."""
        found = self._read_json(MANIFEST)
        where = f"{storage.mask(self.uri)}/{MANIFEST}"
        return None if found is None else files.required("manifest", found, where)

    def write_shard(
        self,
        shard: Shard,
        table: pa.Table,
        footer: Mapping[str, Any] | None,
        extra: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Write the data file, then the record that commits it. `extra` goes into the record; no footer: no mark."""
        known = None if footer is None else {**footer, "shard": shard.id, "seed": shard.seed}
        data = footers.encode(table, known)
        digest = hashlib.sha256(data).hexdigest()
        file = storage.join(DATA, shard.folder, f"part-{shard.name}-{digest[:12]}.parquet")
        record = {
            "id": shard.id,
            "file": file,
            "rows": table.num_rows,
            "bytes": len(data),
            "sha256": digest,
            **(extra or {}),
        }
        self._refuse_link(self.path(file))
        with storage.explained(self.uri):
            # the name is made durable by `finish`: one that a power cut takes, or a record, costs the time of its
            # shard, and no more; a flush for each of them halved the rate of commits
            storage.put_bytes(self.filesystem, self.path(file), data, named=False)
            if self._put_new(_record_of(shard), canonical(record), durable=False):
                return record
            return self._second(shard, record)

    def _second(self, shard: Shard, record: dict[str, Any]) -> dict[str, Any]:
        """Another run has committed the shard: its record holds, unless its data is gone or damaged."""
        standing = self.committed(shard)
        if standing is None:
            name = self.path(_record_of(shard))
            storage.put_bytes(self.filesystem, name, canonical(record), durable=False)
            return record
        if standing["file"] != record["file"]:  # another kind of CPU may round differently
            storage.delete(self.filesystem, self.path(record["file"]))
        return standing

    def committed(self, shard: Shard) -> dict[str, Any] | None:
        """The shard's record, if its data file is there with the size that it says."""
        record = files.believed("record", self._read_json(_record_of(shard)))
        if record is None or record["id"] != shard.id:
            return None
        with storage.explained(self.uri):
            size = self.filesystem.get_file_info(self.path(record["file"])).size
        return record if size == record["bytes"] else None

    def quarantine(self, shard: Shard, error: BaseException, attempts: int) -> dict[str, Any]:
        """Keep why a shard failed for good."""
        record = {
            "id": shard.id,
            "error": mask_text(f"{type(error).__name__}: {error}"),
            "attempts": attempts,
            "shard": shard.to_json(),
            "traceback": mask_text("".join(traceback.format_exception(error))),
        }
        with storage.explained(self.uri):
            storage.put_bytes(self.filesystem, self.path(QUARANTINE, f"{shard.name}.json"), written(record))
        return record

    def records(self) -> Iterator[dict[str, Any]]:
        """The records whose data file is there with the size that they say, by shard id; a few at a time."""
        sizes = {info.path: info.size for info in self._list(DATA)}
        for record in self._stored(RECORDS, "record"):
            # taken out, so that no file is listed twice whatever records say
            if sizes.pop(self.path(record["file"]), None) == record["bytes"]:
                yield record

    def finish(
        self, plan: Plan, provenance: Mapping[str, Any], summary: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Write the manifest, once, and remove what it does not list. JobFailed when shards are missing.

        Returns the manifest that stands: another run of the job may have been faster.
        """
        done = self.manifest()
        if done is not None:
            return done
        with storage.explained(self.uri):
            shards = [{key: record[key] for key in LISTED} for record in self.records()]
            failed = self._failed({shard["id"] for shard in shards})
            self._refuse_gaps(plan, shards, failed)
            # what another run writes just now for a shard that failed here may yet be listed, by its manifest
            self._remove_unlisted(shards, spared={record["id"] for record in failed})
            storage.sync_folders(self.filesystem, self.root, {self.path(shard["file"]) for shard in shards})
            manifest = _manifest(plan, provenance, shards, failed, dict(summary or {}))
            if not self._put_new(MANIFEST, written(manifest)):
                manifest = self.manifest() or manifest
            if failed:
                self._remove_unlisted(manifest["shards"])
        return manifest

    def adopt(self, other: Sink, record: Mapping[str, Any]) -> None:
        """Take over a shard that another directory of the same store holds: its record first, then its data.

        Interrupted between the two, the shard is still the other's, and is taken over by the next attempt.
        """
        name = f"{RECORDS}/{record['id']:05d}.json"
        self._refuse_link(self.path(record["file"]))
        self._put_new(name, canonical(dict(record)), durable=False)
        storage.move(self.filesystem, other.path(record["file"]), self.path(record["file"]))

    def adopt_quarantined(self, other: Sink) -> None:
        """Take over why shards failed for good."""
        for record in other._stored(QUARANTINE, "quarantined"):
            name = self.path(QUARANTINE, f"{record['id']:05d}.json")
            storage.put_bytes(self.filesystem, name, written(record))

    def refuse_strangers(self) -> None:
        """OutputExists when there is something here that no job of ours wrote."""
        found = [info.path[len(self.root) + 1 :] for info in self._list()]
        found = [name for name in found if not storage.is_temporary(name.rpartition("/")[2])]
        if found and self.job() is None:  # asked again: another run may have begun meanwhile
            raise OutputExists(
                f"{storage.mask(self.uri)} is not empty ({', '.join(found[:3])}{', ...' * (len(found) > 3)}) and is "
                "no output of a job; choose another sink.path, or empty it"
            )

    def _refuse_other(self, job: Mapping[str, Any]) -> None:
        known = self.job() or {}
        if known.get("job_id") == job["job_id"]:
            return
        state = "finished" if self.manifest() else "unfinished"
        raise OutputExists(
            f"{storage.mask(self.uri)} holds the {state} output of another job ({known.get('job_id')}); "
            f"different are: {_differences(known.get('parts', {}), job['parts'])}. "
            "Choose another sink.path, or remove that directory"
        )

    def _refuse_gaps(self, plan: Plan, shards: list[dict[str, Any]], failed: list[dict[str, Any]]) -> None:
        there = {shard["id"] for shard in shards} | {record["id"] for record in failed}
        missing = [shard.id for shard in plan.shards if shard.id not in there]
        if missing:
            raise JobFailed(
                f"{storage.mask(self.uri)}: {len(missing)} of {len(plan.shards)} shards are not there, or could not be "
                f"read (the first is {missing[0]}). Is the path shared by all machines of the cluster? Run the job "
                "again to make them"
            )

    def _failed(self, done: set[int]) -> list[dict[str, Any]]:
        """What is quarantined still; the notes about shards that succeeded later are removed."""
        failed = []
        for record in self._stored(QUARANTINE, "quarantined"):
            if record["id"] in done:
                storage.delete(self.filesystem, self.path(QUARANTINE, f"{record['id']:05d}.json"))
            else:
                failed.append({"id": record["id"], "error": record["error"], "rows": record["shard"]["rows"]})
        return failed

    def _remove_unlisted(
        self, shards: Iterable[Mapping[str, Any]], spared: Collection[int] = frozenset()
    ) -> None:
        """Data files that no shard lists, except those of the spared ids, and what dead writers left half written."""
        listed = {self.path(shard["file"]) for shard in shards}
        for info in self._list():
            name = info.path.rpartition("/")[2]
            part = PART.fullmatch(name)
            if part and info.path not in listed and int(part[1]) not in spared:
                self._refuse_link(info.path)
                storage.delete(self.filesystem, info.path)
            elif storage.is_temporary(name):
                storage.remove_abandoned(self.filesystem, info.path)
        storage.abandon_uploads(self.filesystem, self.root)

    def _refuse_link(self, path: str) -> None:
        """OutputExists when a folder of this output is a link to somewhere else, whose files are not ours to touch."""
        if self.filesystem.type_name != "local":
            return
        folder = Path(path).parent
        inside = folder.relative_to(self.root)
        if any(Path(self.root, part).is_symlink() for part in (inside, *inside.parents) if part.parts):
            raise OutputExists(
                f"{storage.mask(self.uri)}: {inside} is a link to another directory; a job "
                "writes and removes files in its own directory alone. Remove the link, or choose another sink.path"
            )

    def _list(self, *folder: str) -> list[Any]:
        with storage.explained(self.uri):
            return storage.list_files(self.filesystem, self.path(*folder))

    def _stored(self, folder: str, kind: str) -> Iterator[dict[str, Any]]:
        """The JSON files of a folder in order; torn ones (an interrupted PUT) and forged ones count as absent."""
        paths = [info.path for info in self._list(folder) if info.path.endswith(".json")]
        paths.sort(key=lambda path: (len(path), path))  # 100000.json after 99999.json
        with ThreadPoolExecutor(RECORDS_AT_ONCE) as pool:
            for start in range(0, len(paths), 4 * RECORDS_AT_ONCE):
                found = pool.map(self._read_path, paths[start : start + 4 * RECORDS_AT_ONCE])
                believed = (files.believed(kind, record) for record in found if record is not None)
                yield from (record for record in believed if record is not None)

    def _read_json(self, name: str) -> Any:
        return self._read_path(self.path(name))

    def _read_path(self, path: str) -> Any:
        """The content of a JSON file; None when it is not there, or torn."""
        try:
            with storage.explained(self.uri):
                return json.loads(storage.read_bytes(self.filesystem, path))
        except (FileNotFoundError, ValueError, RecursionError):
            return None

    def _put_new(self, name: str, data: bytes, durable: bool = True) -> bool:
        """Write a JSON file where there is none, or a torn one; False when there is one."""
        if storage.put_bytes(self.filesystem, self.path(name), data, durable=durable, replace=False):
            return True
        if self._read_json(name) is not None:
            return False
        storage.put_bytes(self.filesystem, self.path(name), data, durable=durable)
        return True


def _record_of(shard: Shard) -> str:
    return f"{RECORDS}/{shard.name}.json"


def written(content: Mapping[str, Any]) -> bytes:
    """JSON as it stands in an output: for people too, and with one spelling."""
    return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def _manifest(
    plan: Plan,
    provenance: Mapping[str, Any],
    shards: list[dict[str, Any]],
    failed: list[dict[str, Any]],
    summary: dict[str, Any],
) -> dict[str, Any]:
    manifest = {
        "format": FORMAT,
        "status": "partial" if failed else "complete",
        "plan": plan.hash,
        "provenance": dict(provenance),
        "rows": sum(shard["rows"] for shard in shards),
        "bytes": sum(shard["bytes"] for shard in shards),
        "shards": shards,
        "quarantined": failed,
        "summary": summary,
    }
    return {**manifest, "hash": canonical_hash(manifest)}


def _differences(known: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    """`seed (7 there, 8 asked)`, for the innermost parts that differ."""
    found = list(_unequal(known, asked, ""))
    return ", ".join(found[:6]) + (", ..." if len(found) > 6 else "") or "its format"


def _unequal(known: Any, asked: Any, name: str) -> Iterator[str]:
    if known == asked:
        return
    if isinstance(known, Mapping) and isinstance(asked, Mapping):
        for key in sorted({*known, *asked}):
            yield from _unequal(known.get(key), asked.get(key), f"{name}.{key}" if name else key)
    else:
        yield f"{name} ({_short(known)} there, {_short(asked)} asked)"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else text[:37] + "..."
