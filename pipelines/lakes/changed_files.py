"""What a run of a lake job has to do: the files that are new, changed, gone, or have to be left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs

from genai_core.errors import InvalidData
from pipelines.lakes.lake_log import DELETED, SCORED, SKIPPED, Entry, schema_of
from pipelines.lakes.schema_drift import Policy, SchemaDrift, differences, usual_schema
from pipelines.sources import Fragment, Reader, Source
from pipelines.sources.files import Piece, folder_of, relative
from pipelines.sources.source import HEADS_AT_ONCE, not_ruled_out, read_head
from pipelines.stores import storage

SHOWN = 5  # files in a message


@dataclass(frozen=True)
class Survey:
    """The lake as it is now, held against what was scored.

    entries  every file of the lake; those to be scored have no run yet; with those that are gone since
    drift    file -> how its columns differ, of the files looked at, taken or not
    """

    reader: Reader
    columns: pa.Schema  # that files of the lake usually have, without partition columns
    fragments: tuple[Fragment, ...]  # to be scored
    entries: tuple[Entry, ...]
    drift: Mapping[str, SchemaDrift]
    news: bool  # anything to be written down

    @property
    def source(self) -> Source | None:
        """What is to be scored; None when there are no rows to."""
        rows = sum(fragment.rows for fragment in self.fragments)
        return Source(self.reader, self.fragments) if rows else None

    def folder(self, path: str) -> str:
        """Where a file's scores lie below the data of a run."""
        return folder_of(self.reader.keys(path))

    def counts(self) -> dict[str, int]:
        """Files by what becomes of them."""
        taken = {fragment.path for fragment in self.fragments}
        kinds = ("new" if entry.path in taken else entry.state for entry in self.entries)
        names = {"new": "files", SCORED: "unchanged", SKIPPED: SKIPPED, DELETED: DELETED}
        found = dict.fromkeys(names.values(), 0)
        for kind in kinds:
            found[names[kind]] += 1
        return found

    def skipped(self) -> dict[str, str]:
        """File -> why it is left out."""
        return {entry.path: entry.note or "" for entry in self.entries if entry.state == SKIPPED}


def survey(
    settings: Any,
    reader_class: type[Reader],
    policy: Policy,
    known: Mapping[str, Entry],
    columns: str | None,
) -> Survey:
    """Look at a lake; opened are only the files that are new, changed, or were left out or failed before.

    known    the files as they were when last scored; empty when all have to be scored again
    columns  the lake's usual ones as text, see `lake_log.schema_text`; None: to be found from the files
    Raises InvalidData under the policy `fail` when a file differs or cannot be read.
    """
    blank, infos = reader_class.listed(settings)
    lake = {relative(info.path, blank.root): info for info in infos}
    keys = blank.key_columns(list(lake))
    changed = _changed(blank, lake, known)
    if columns is not None:
        usual = schema_of(columns)
        reader = blank.with_schema(usual, keys)
        inside = not_ruled_out(reader, list(lake))
        looked = _look(blank, [lake[path] for path in changed if path in inside])
    else:
        looked = _look(blank, [lake[path] for path in changed])
        usual = _usual(blank, looked)
        reader = blank.with_schema(usual, keys)
        inside = not_ruled_out(reader, list(lake))
    found = [_judged(reader, usual, policy, one) for one in looked if one.path in inside]
    if policy == "fail":
        _refuse(settings.path, found)
    gone = [replace(entry, state=DELETED, run=None) for path, entry in known.items() if path not in inside]
    again = set(changed)
    kept = [entry for path, entry in known.items() if path in inside and path not in again]
    entries = [*(one.entry for one in found), *kept, *gone]
    taken = tuple(one.fragment for one in found if one.entry.state == SCORED)
    news = bool(taken or gone) or any(known.get(one.path) != one.entry for one in found)
    drift = {one.path: one.drift for one in found if one.drift}
    return Survey(reader, usual, taken, tuple(entries), drift, news)


@dataclass(frozen=True)
class _Looked:
    """A file that was opened, or could not be."""

    path: str
    fragment: Fragment
    schema: pa.Schema | None
    fault: str = ""


@dataclass(frozen=True)
class _Judged:
    path: str
    fragment: Fragment
    entry: Entry
    drift: SchemaDrift


def _changed(reader: Reader, lake: Mapping[str, pafs.FileInfo], known: Mapping[str, Entry]) -> list[str]:
    """Files to be looked at: all but those that are as they were when they were scored."""
    scored = {path for path in lake if path in known and known[path].state == SCORED}
    same_size = [path for path in sorted(scored) if known[path].size == lake[path].size]
    with ThreadPoolExecutor(HEADS_AT_ONCE) as pool:  # a store is asked for every ETag
        etags = pool.map(lambda path: storage.etag(reader.filesystem, lake[path]), same_size)
        same = {path for path, etag in zip(same_size, etags, strict=True) if etag == known[path].etag}
    return sorted(set(lake) - same)


def _look(reader: Reader, infos: Sequence[pafs.FileInfo]) -> list[_Looked]:
    with ThreadPoolExecutor(HEADS_AT_ONCE) as pool:
        return list(pool.map(lambda info: _look_at(reader, info), infos))


def _look_at(reader: Reader, info: pafs.FileInfo) -> _Looked:
    path = relative(info.path, reader.root)
    try:
        fragment, head = read_head(reader, info)
    except InvalidData as error:
        with storage.explained(path):
            etag = storage.etag(reader.filesystem, info)
        return _Looked(path, Fragment(path, info.size, etag, 0, ()), None, str(error))
    return _Looked(path, fragment, head.schema)


def _usual(reader: Reader, looked: Sequence[_Looked]) -> pa.Schema:
    shapes = [one.schema for one in looked if one.schema is not None]
    if not shapes:
        raise InvalidData(
            f"{storage.mask(reader.settings.path)}: none of {len(looked)} file(s) can be read: {looked[0].fault}"
        )
    return usual_schema(shapes, reader.typed)


def _judged(reader: Reader, usual: pa.Schema, policy: Policy, one: _Looked) -> _Judged:
    fragment, drift, note = one.fragment, SchemaDrift(), one.fault
    if one.schema is not None:
        own = pa.schema([field for field in one.schema if field.name not in reader.partitions])
        drift = differences(own, usual, reader.typed)
        note = str(drift) if drift else ""
    left_out = bool(one.fault) or bool(drift and policy != "cast")
    if drift.retyped and not left_out and (fault := _cast_fault(reader, fragment, drift)):
        left_out, note = True, fault
    folder = folder_of(reader.keys(one.path))
    state = SKIPPED if left_out else SCORED
    entry = Entry(one.path, fragment.size, fragment.etag, fragment.rows, folder, state, None, note or None)
    return _Judged(one.path, fragment, entry, drift)


def _cast_fault(reader: Reader, fragment: Fragment, drift: SchemaDrift) -> str:
    """Why a column of another type cannot be read as the lake's; tried on every value, since one may not fit."""
    whole = Piece(fragment.path, fragment.size, fragment.etag, 0, fragment.rows)
    try:
        for _ in reader.stream(whole, [name for name, _, _ in drift.retyped]):
            pass
    except InvalidData as error:
        return str(error)
    return ""


def _refuse(path: str, found: Sequence[_Judged]) -> None:
    odd = [one for one in found if one.entry.state == SKIPPED]
    if odd:
        shown = "; ".join(_shown(one) for one in odd[:SHOWN])
        raise InvalidData(
            f"{storage.mask(path)}: {len(odd)} file(s) are not like the others: {shown}{'; ...' * (len(odd) > SHOWN)}. "
            "Write them anew, or set schema_drift: skip (leaves them out and reports them) or cast (reads what "
            "can be read: missing columns as nulls, added ones not at all)"
        )


def _shown(one: _Judged) -> str:
    note = one.entry.note or ""
    return note if note.startswith(one.path) else f"{one.path}: {note}"
