"""What may stand in the JSON files of an output: checked before anything in them is believed

Whoever can write into a lake can write these files. A record or a manifest that names files outside of its directory,
negative rows or a digest that does not fit is refused here, in one place, so that no reader has to look again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, NotRequired

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic wants this one below Python 3.12

from genai_core.errors import InvalidData
from pipelines.plan import canonical_hash

MOST = 2**53  # of rows and bytes: beyond it JSON's numbers are not exact everywhere
MAX_RANKS = 10**8  # of a calibration: one number is kept for each
STRICT = ConfigDict(strict=True, extra="allow")


def _inside(file: str) -> str:
    if {"", ".", ".."} & set(file.split("/")):
        raise ValueError("leaves the directory")
    return file


def _writable(text: str) -> str:
    text.encode()  # a lone surrogate raises a ValueError
    return text


Count = Annotated[int, Field(ge=0, le=MOST)]
File = Annotated[
    str, Field(pattern=r"^data/[^\x00\\]*part-\d{1,12}-[0-9a-f]{12}\.parquet$"), AfterValidator(_inside)
]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class _Listed(TypedDict):
    __pydantic_config__ = STRICT  # type: ignore[misc]
    id: Count
    file: File
    rows: Count
    bytes: Count
    sha256: Sha256


class _Record(_Listed):
    faults: NotRequired[dict[str, Count]]
    ranks: NotRequired[Annotated[int, Field(ge=1, le=MAX_RANKS)]]
    p_counts: NotRequired[list[Annotated[list[Count], Field(min_length=2, max_length=2)]]]


class _Planned(TypedDict):
    __pydantic_config__ = STRICT  # type: ignore[misc]
    rows: Count


class _Failed(TypedDict):
    __pydantic_config__ = STRICT  # type: ignore[misc]
    id: Count
    error: Annotated[str, AfterValidator(_writable)]
    shard: _Planned


class _Job(TypedDict):
    __pydantic_config__ = STRICT  # type: ignore[misc]
    job_id: Annotated[str, Field(min_length=1, max_length=300)]
    verb: str
    parts: dict[str, Any]


class _Manifest(TypedDict):
    __pydantic_config__ = STRICT  # type: ignore[misc]
    format: int
    status: str
    plan: str
    provenance: dict[str, Any]
    rows: Count
    bytes: Count
    shards: list[_Listed]
    quarantined: list[dict[str, Any]]
    summary: dict[str, Any]
    hash: Digest


class _Data(TypedDict, total=False):
    __pydantic_config__ = STRICT  # type: ignore[misc]
    path: str | None
    filter: str | None
    rows: Count | None
    digest: str | None


class _Model(TypedDict):
    __pydantic_config__ = STRICT  # type: ignore[misc]
    uri: str
    digest: str
    kind: str


class _Provenance(TypedDict):
    __pydantic_config__ = STRICT  # type: ignore[misc]
    job_id: str
    verb: str
    model: _Model
    synthetic: NotRequired[bool]
    spec: NotRequired[dict[str, Any]]
    source: NotRequired[_Data | None]
    training_data: NotRequired[_Data | None]
    training_job: NotRequired[str | None]


FORMS: Mapping[str, TypeAdapter[Any]] = {
    "job": TypeAdapter(_Job),
    "manifest": TypeAdapter(_Manifest),
    "provenance": TypeAdapter(_Provenance),
    "quarantined": TypeAdapter(_Failed),
    "record": TypeAdapter(_Record),
}


def believed(kind: str, found: Any) -> dict[str, Any] | None:
    """The content of a file, None when it has not the form of its kind."""
    try:
        return dict(FORMS[kind].validate_python(found))
    except (ValidationError, RecursionError):
        return None


def required(kind: str, found: Any, where: str) -> dict[str, Any]:
    """The content of a file. Raises InvalidData when it has not the form of its kind."""
    content = believed(kind, found)
    if content is None:
        raise InvalidData(
            f"{where} is not what a job writes: it was changed, or something else wrote it. Restore it, or remove "
            "the directory and run the job again"
        )
    return content


def hash_fits(manifest: Mapping[str, Any]) -> bool:
    """Whether a manifest's own hash is that of the rest of it."""
    content = {name: value for name, value in manifest.items() if name != "hash"}
    try:
        return bool(canonical_hash(content) == manifest.get("hash"))
    except (UnicodeEncodeError, ValueError):  # a lone surrogate
        return False
