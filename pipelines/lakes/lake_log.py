"""What a lake job has scored so far: below `_runs` one record and one list of files a run; the newest is the state.

    run=000001-<id8>/            the output of one run, a finished batch that never changes again
    _runs/000001-<hash12>.parquet   every file of the lake as it was then, and the run that holds its scores
    _runs/000001.json            the record: writing it, once, is the commit of the run

A row of `run=R` counts when the newest list says that its file's scores are in R. Files that have changed since, or
are gone, so leave rows behind that nothing refers to; no output is ever changed.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from genai_core.errors import JobFailed, OutputExists
from pipelines.plan import canonical
from pipelines.stores import storage

FORMAT = 1
RUNS = "_runs"
RECORD = re.compile(r"(\d{6,})\.json")
SCORED, SKIPPED, FAILED, DELETED = "scored", "skipped", "failed", "deleted"
LIST = pa.schema(
    [
        ("source_file", pa.string()),
        ("size", pa.int64()),
        ("etag", pa.string()),
        ("rows", pa.int64()),  # before the filter
        ("folder", pa.string()),  # of its scores below the data of the run, such as month=1
        ("state", pa.string()),
        ("run", pa.string()),  # the directory that holds its scores; null unless it is scored
        ("note", pa.string()),  # why it is skipped, or how its schema differs
    ]
)


@dataclass(frozen=True)
class Entry:
    """One file of the lake, in the order of LIST."""

    path: str
    size: int
    etag: str
    rows: int
    folder: str
    state: str = SCORED
    run: str | None = None
    note: str | None = None

    def same(self, size: int, etag: str) -> bool:
        """Whether a file is as it was."""
        return (self.size, self.etag) == (size, etag)

    def in_run(self, run: str) -> Entry:
        """The same, with its scores in a run."""
        return replace(self, run=run) if self.state == SCORED and self.run is None else self

    def without_scores(self) -> Entry:
        """The same after a shard of it failed for good."""
        return replace(self, state=FAILED, run=None)


class LakeLog:
    """The output directory of a lake job, local or on a store."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.filesystem, self.root = storage.resolve(uri)

    def records(self) -> list[dict[str, Any]]:
        """What every committed run says of itself, the oldest first."""
        return [self._record(name) for name in self._names()]

    def newest(self) -> dict[str, Any] | None:
        """The record of the last committed run; None before the first."""
        names = self._names()
        return self._record(names[-1]) if names else None

    def _names(self) -> list[str]:
        """Paths of the records, the oldest first."""
        with storage.explained(self.uri):
            infos = storage.list_files(self.filesystem, storage.join(self.root, RUNS))
        found = [
            (int(match[1]), info.path)
            for info in infos
            if (match := RECORD.fullmatch(info.path.rpartition("/")[2]))
        ]
        return [path for _, path in sorted(found)]

    def _record(self, path: str) -> dict[str, Any]:
        with storage.explained(self.uri):
            return dict(json.loads(storage.read_bytes(self.filesystem, path)))

    def entries(self, record: Mapping[str, Any] | None) -> dict[str, Entry]:
        """Every file as it was when a run was committed, by path; those that were deleted are left out."""
        if record is None:
            return {}
        with (
            storage.explained(self.uri),
            self.filesystem.open_input_file(storage.join(self.root, record["files"])) as stream,
        ):
            columns = pq.read_table(stream).to_pydict()
        found = (Entry(*values) for values in zip(*columns.values(), strict=True))
        return {entry.path: entry for entry in found if entry.state != DELETED}

    def commit(self, sequence: int, facts: Mapping[str, Any], entries: Iterable[Entry]) -> dict[str, Any]:
        """Make a run count. JobFailed when another one has taken its number meanwhile."""
        data = _encoded(entries)
        files = f"{RUNS}/{sequence:06d}-{hashlib.sha256(data).hexdigest()[:12]}.parquet"
        record = {"format": FORMAT, "sequence": sequence, "files": files, **facts}
        with storage.explained(self.uri):
            storage.put_bytes(self.filesystem, storage.join(self.root, files), data)
            won = self._claim(f"{RUNS}/{sequence:06d}.json", canonical(record))
            self._remove_abandoned()
        if not won:
            raise overtaken(self.uri)
        return record

    def refuse_strangers(self) -> None:
        """OutputExists when there is something here that no lake job wrote."""
        odd = [
            name
            for info in self._top()
            if not (name := info.path[len(self.root) + 1 :]).startswith((".", "run=", RUNS, "_report"))
        ]
        if odd:
            raise OutputExists(
                f"{storage.mask(self.uri)} holds {', '.join(odd[:3])}{', ...' * (len(odd) > 3)}, which no lake job "
                "wrote; choose another sink.path, or empty it"
            )

    def _claim(self, name: str, data: bytes) -> bool:
        """Write a file that must not be there yet; False when it is there with other bytes."""
        path = storage.join(self.root, name)
        if storage.put_bytes(self.filesystem, path, data, replace=False):
            return True
        return storage.read_bytes(self.filesystem, path) == data

    def _remove_abandoned(self) -> None:
        """Outputs of runs that were interrupted and then overtaken: nothing refers to them."""
        known = {record["run"] for record in self.records()}
        for info in self._top():
            name = info.path.rpartition("/")[2]
            if info.type == pafs.FileType.Directory and name.startswith("run=") and name not in known:
                self.filesystem.delete_dir(info.path)

    def _top(self) -> list[pafs.FileInfo]:
        """What lies directly in the directory."""
        with storage.explained(self.uri):
            return list(self.filesystem.get_file_info(pafs.FileSelector(self.root, allow_not_found=True)))


def overtaken(uri: str) -> JobFailed:
    """What a run gets that another one was faster than."""
    return JobFailed(
        f"{storage.mask(uri)}: another run was committed meanwhile; what this one has scored does not count. "
        "Run the job again: it scores what is still missing"
    )


def run_name(sequence: int, job_id: str) -> str:
    """The directory of a run: the same work has the same name, so that it is resumed."""
    return f"run={sequence:06d}-{job_id[-8:]}"


def schema_text(schema: pa.Schema) -> str:
    """A schema for a JSON record."""
    return base64.b64encode(schema.remove_metadata().serialize().to_pybytes()).decode()


def schema_of(text: str) -> pa.Schema:
    """The inverse of `schema_text`."""
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text)))


def _encoded(entries: Iterable[Entry]) -> bytes:
    rows = sorted(entries, key=lambda entry: entry.path)
    names = [field.name for field in fields(Entry)]
    columns = ([getattr(row, name) for row in rows] for name in names)
    arrays = [pa.array(values, field.type) for values, field in zip(columns, LIST, strict=True)]
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_arrays(arrays, schema=LIST), buffer, compression="zstd")
    return bytes(buffer.getvalue().to_pybytes())
