"""What a batch job will do, cut into shards with stable names and seeds; and the id under which it may resume."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property, lru_cache
from importlib.metadata import PackageNotFoundError, version
from itertools import groupby
from pathlib import Path
from typing import Any

import genai_core
from genai_core.errors import InvalidInput
from pipelines.sources.files import Piece
from pipelines.sources.source import Source

ROWS_PER_SHARD = 65_536
MAX_SHARDS = 1_000_000  # benchmarks/scale.py measures what so many cost the driver
PACKED = 1.25  # a shard may grow to this multiple of its rows rather than leave a small piece to the next
CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)
LIBRARIES = ("numpy", "pillow", "pyarrow", "torch")  # those whose version can change an output's bytes


@dataclass(frozen=True)
class Shard:
    """The unit of seed, retry, commit, resume and progress."""

    id: int
    seed: int
    rows: int  # to be made, or to be read before the filter
    payload: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Such as 00042: sorts by id in any listing."""
        return f"{self.id:05d}"

    @property
    def folder(self) -> str:
        """Where its rows lie below the data of an output, such as `month=1`; empty: with all others."""
        return str(self.payload.get("folder", ""))

    @property
    def pieces(self) -> list[Piece]:
        """Of a scoring shard, what to read."""
        return [Piece.from_json(fields) for fields in self.payload.get("pieces", ())]

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))  # asdict copies the payload too: half the time of a plan's hash

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Shard:
        return cls(**fields)


@dataclass(frozen=True)
class Plan:
    """All shards of a job."""

    kind: str
    shards: tuple[Shard, ...]

    @property
    def rows(self) -> int:
        return sum(shard.rows for shard in self.shards)

    @cached_property
    def hash(self) -> str:
        """Of what each shard is; not of who works on it."""
        digest = hashlib.sha256(self.kind.encode())
        for shard in self.shards:
            digest.update(canonical(shard.to_json()))
        return "sha256:" + digest.hexdigest()


@lru_cache(
    maxsize=1
)  # a command checks its job before it runs it, and a hundred thousand shards take a while
def plan_generation(rows: int, seed: int, rows_per_shard: int = ROWS_PER_SHARD) -> Plan:
    """Shard k makes rows [k R, (k + 1) R)."""
    count = -(-rows // rows_per_shard)
    if count > MAX_SHARDS:
        raise InvalidInput(
            f"{rows:,} rows in shards of {rows_per_shard:,} are {count:,} shards; at most {MAX_SHARDS:,} are accepted: "
            f"set rows_per_shard to {-(-rows // MAX_SHARDS):,} or more"
        )
    starts = enumerate(range(0, rows, rows_per_shard))
    shards = (
        Shard(i, shard_seed(seed, i), min(rows_per_shard, rows - first), {"first": first})
        for i, first in starts
    )
    return Plan("generate", tuple(shards))


def plan_scoring(
    source: Source, rows_per_shard: int = ROWS_PER_SHARD, folder: Callable[[str], str] | None = None
) -> Plan:
    """Each shard reads pieces of files, together about `rows_per_shard` rows before the filter.

    folder  of a file; with it no shard has files of two folders, and its rows lie in a folder of that name
    """
    pieces = _joined(source.pieces(rows_per_shard), rows_per_shard)
    groups = groupby(pieces, lambda piece: folder(piece.path) if folder else "")
    packed = ((where, found) for where, group in groups for found in _pack(group, rows_per_shard))
    shards = (
        Shard(i, shard_seed(0, i), sum(p.rows for p in found), _payload(where, found))
        for i, (where, found) in enumerate(packed)
    )
    return Plan("score", tuple(shards))


def _payload(folder: str, pieces: Iterable[Piece]) -> dict[str, Any]:
    return {"pieces": [p.to_json() for p in pieces], **({"folder": folder} if folder else {})}


def _joined(pieces: Iterable[Piece], limit: int) -> Iterator[Piece]:
    """Small row groups that follow each other become one piece."""
    waiting: Piece | None = None
    for piece in pieces:
        if waiting is None:
            waiting = piece
        elif _follows(waiting, piece) and waiting.rows + piece.rows <= limit:
            waiting = Piece(piece.path, piece.size, piece.etag, waiting.start, piece.stop)
        else:
            yield waiting
            waiting = piece
    if waiting is not None:
        yield waiting


def _follows(first: Piece, second: Piece) -> bool:
    return first.path == second.path and first.stop == second.start


def _pack(pieces: Iterable[Piece], rows_per_shard: int) -> Iterator[list[Piece]]:
    shard: list[Piece] = []
    rows = 0
    for piece in pieces:
        if shard and (rows >= rows_per_shard or rows + piece.rows > PACKED * rows_per_shard):
            yield shard
            shard, rows = [], 0
        shard.append(piece)
        rows += piece.rows
    if shard:
        yield shard


def shard_seed(job_seed: int, shard_id: int) -> int:
    """63 bits: every library's generator takes them, and so does a signed integer column."""
    digest = hashlib.blake2b(f"{job_seed}/{shard_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def job_id(verb: str, parts: Mapping[str, Any]) -> str:
    """Equal parts, equal bytes: a run with the same id continues where an earlier one stopped."""
    return f"{verb}-{canonical_hash(dict(parts)).removeprefix('sha256:')[:20]}"


def canonical_hash(value: Any) -> str:
    """sha256 of a JSON-able value."""
    return "sha256:" + hashlib.sha256(canonical(value)).hexdigest()


def canonical(value: Any) -> bytes:
    """JSON with one spelling: sorted keys, no spaces."""
    return CANONICAL.encode(value).encode()


@cache
def code_fingerprint() -> str:
    """Of the source files that decide what a shard's bytes are."""
    digest = hashlib.sha256()
    for package in (Path(genai_core.__file__).parent, Path(__file__).parent):
        for file in sorted(package.rglob("*.py")):
            digest.update(file.relative_to(package).as_posix().encode() + b"\0" + file.read_bytes())
    return "sha256:" + digest.hexdigest()


@cache
def versions() -> dict[str, str]:
    """What must be the same for the same bytes: this package, the libraries below it, the kind of CPU."""
    return {
        "genai-core": _version("genai-core"),
        "python": platform.python_version(),
        "machine": platform.machine(),
        **{name: _version(name) for name in LIBRARIES},
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
