"""Job files: the union of job kinds, and `load(path)`, whose errors name file, line and the nearest valid word."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from genai_core.errors import InvalidSpec, nearest
from jobs.documents import MAX_BYTES, Document, parse
from jobs.faults import found_faults, show, wrong_word
from jobs.overrides import apply
from jobs.shape import child
from jobs.slots import Slot, fill_documents
from pipelines.augment import AugmentJob
from pipelines.evaluate import EvaluateJob
from pipelines.generate import GenerateJob
from pipelines.impute import ImputeJob
from pipelines.judge import JudgeJob
from pipelines.lake import LakeJob
from pipelines.progress import printable
from pipelines.score import ScoreJob
from pipelines.train import TrainJob
from pipelines.translate import TranslateJob

Job = (
    TrainJob
    | AugmentJob
    | EvaluateJob
    | GenerateJob
    | ImputeJob
    | JudgeJob
    | LakeJob
    | ScoreJob
    | TranslateJob
)
KINDS: dict[str, type[Job]] = {
    "augment": AugmentJob,
    "evaluate": EvaluateJob,
    "generate": GenerateJob,
    "impute": ImputeJob,
    "judge": JudgeJob,
    "lake": LakeJob,
    "score": ScoreJob,
    "train": TrainJob,
    "translate": TranslateJob,
}
STDIN = "-"


@dataclass(frozen=True)
class Entry:
    """A job with the text of its document and the place where it starts (`file.yaml:12`)."""

    job: Job
    text: str
    place: str


def load(path: str | Path, overrides: Sequence[str] = (), slot: Slot | None = None) -> list[Job]:
    """The jobs of a file, validated; InvalidSpec lists every fault of every document at once."""
    return [entry.job for entry in entries(path, overrides, slot)]


def entries(path: str | Path, overrides: Sequence[str] = (), slot: Slot | None = None) -> list[Entry]:
    """As `load`, with each job's text and place. `-` reads standard input; `slot` fills `{slot}` templates."""
    name = "<stdin>" if str(path) == STDIN else printable(path)
    documents = parse(_read(path, name), name)
    if not documents:
        raise InvalidSpec(f"{name}: holds no job; start with `job: train` (accepted are {', '.join(KINDS)})")
    faults = apply(documents, KINDS, overrides) + fill_documents(documents, slot)
    found = [_validate(document, faults) for document in documents]
    jobs = [entry for entry in found if entry is not None]
    faults += _shared_sinks(jobs)
    if faults:
        raise InvalidSpec("\n".join(dict.fromkeys(map(printable, faults))))
    return jobs


def schema() -> dict[str, Any]:
    """The JSON schema of one document, for editors."""
    union: TypeAdapter[Any] = TypeAdapter(Annotated[Job, Field(discriminator="job")])
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "A job of genai-core"}
    return head | union.json_schema(by_alias=True)


def schema_text() -> str:
    """The schema as `genai schema` prints it and `jobs/schema.json` holds it."""
    return json.dumps(schema(), indent=1, sort_keys=True) + "\n"


def _read(path: str | Path, name: str) -> str:
    try:
        data = sys.stdin.buffer.read(MAX_BYTES + 1) if str(path) == STDIN else _file_bytes(Path(path))
    except FileNotFoundError:
        raise InvalidSpec(f"{name}: there is no such file{_similar_file(Path(path))}") from None
    except OSError as error:
        raise InvalidSpec(f"{name}: cannot be read: {(error.strerror or str(error)).lower()}") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InvalidSpec(f"{name}:{line}: not UTF-8 text; save the file as UTF-8") from None


def _file_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)


def _similar_file(path: Path) -> str:
    try:
        return nearest(path.name, [str(other.name) for other in path.parent.iterdir()])
    except OSError:
        return f"; the folder {printable(path.parent)!r} does not exist either"


def _validate(document: Document, faults: list[str]) -> Entry | None:
    model = _job_model(document, faults)
    if model is None:
        return None
    try:
        return Entry(model.model_validate(document.value), document.full_text(), document.place(()))
    except ValidationError as error:
        faults += found_faults(error, model, document)
        return None


def _job_model(document: Document, faults: list[str]) -> type[Job] | None:
    value, accepted = document.value, ", ".join(KINDS)
    if not isinstance(value, dict):
        faults.append(
            f"{document.place(())}: a job is a mapping that starts with `job: train`; found {show(value)}"
        )
    elif "job" not in value:
        close = [key for key in value if nearest(key, ["job"])]
        found = f" (found {close[0]!r})" if close else ""
        faults.append(f"{document.place(())}: the key 'job' is missing{found}; accepted are {accepted}")
    elif (word := child(value, "job")) in tuple(KINDS):
        return KINDS[word]
    else:
        faults.append(f"{document.place(('job',))}: {wrong_word('job', word, KINDS)}")
    return None


def _shared_sinks(jobs: Sequence[Entry]) -> Iterator[str]:
    """Two jobs of one file that write to one place: the second would be refused after the first has run."""
    first: dict[str, str] = {}
    for entry in jobs:
        sink = getattr(getattr(entry.job, "sink", None), "path", None)
        if sink is None:
            continue
        key = sink.rstrip("/")
        if key in first:
            yield f"{entry.place}: sink.path {sink!r} is already the sink of the job at {first[key]}; give each its own"
        first.setdefault(key, entry.place)
