"""Judge: pages on which people say whether synthetic records look real, and see the real record most like each.

    blind.html       pairs of a real and a synthetic record; answers are saved as a file
    neighbours.html  synthetic records beside their nearest real ones
    key.json         which side was real: not to be given to those who judge; written last

`genai judge OUTPUT ANSWERS...` compares the answers with the key.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from genai_core import catalog
from genai_core.errors import InvalidData, InvalidInput
from genai_core.evaluation.fooling import Answers, Fooling, fooling
from genai_core.hyperparameters import ModalitySettings, TabularSettings
from pipelines.batch_job import check_space, masked
from pipelines.context import Context
from pipelines.outputs.sink import Sink
from pipelines.pages import blind_page, neighbour_sheet
from pipelines.pages.records_as_html import shown
from pipelines.plan import job_id
from pipelines.settings import Settings, SinkSettings
from pipelines.sources import Source, SourceSettings, open_source
from pipelines.sources.random_rows import random_rows
from pipelines.stores import storage

BLIND, NEIGHBOURS, KEY = "blind.html", "neighbours.html", "key.json"
UNITS = {
    "audio": "root mean square of the differences of log spectrograms, nats",
    "image": "root mean square of the differences of levels (0 to 1), at 16 x 16 pixels",
    "image_codes": "root mean square of the differences of levels (0 to 1), at 16 x 16 pixels",
    "tabular": "Gower's, the mean over the columns of their differences (0 to 1)",
    "text": "1 - cosine of the weighted counts of three letters in a row",
}


class JudgeJob(Settings):
    """Make pages on which people judge synthetic records."""

    job: Literal["judge"] = "judge"
    name: str | None = Field(None, min_length=1, max_length=200)
    real: SourceSettings = Field(
        description="real records; of the training data for neighbours that tell copies"
    )
    synthetic: SourceSettings = Field(description="synthetic records, such as the output of a generate job")
    modality: ModalitySettings = Field(
        TabularSettings(), description="how records are read, as for the training"
    )
    pairs: int = Field(40, ge=1, le=500, description="of the blind test")
    neighbours: int = Field(48, ge=1, le=500, description="synthetic records shown with their nearest")
    searched: int = Field(
        20_000, ge=1, le=1_000_000, description="real records among which the nearest is looked for"
    )
    seed: int = Field(0, ge=0, lt=2**63)
    sink: SinkSettings


def check(job: JudgeJob, context: Context) -> list[str]:
    """Facts about a job that can run; raises InvalidInput for one that cannot."""
    facts = [f"output: {storage.mask(job.sink.path)}", f"{job.pairs} pairs, {job.neighbours} neighbours"]
    check_space(job.sink.path, 0, pa.schema([]))
    for label, settings in (("real", job.real), ("synthetic", job.synthetic)):
        if context.promised_output(settings.path) is not None:
            return [*facts, f"{label}: {settings.path}, which a job above will write"]
    real, synthetic = open_source(job.real), open_source(job.synthetic)
    columns_of(job, real, synthetic)
    Sink(job.sink.path).check(_identity(job, real, synthetic))
    return [*facts, f"real: {real.rows:,} rows", f"synthetic: {synthetic.rows:,} rows"]


def run(job: JudgeJob, context: Context) -> dict[str, Any]:
    """Write the pages and the key; a job that is done is not done again."""
    started = time.monotonic()
    real, synthetic = open_source(job.real), open_source(job.synthetic)
    columns, payload = columns_of(job, real, synthetic)
    sink, known = Sink(job.sink.path), _identity(job, real, synthetic)
    sink.prepare(known)
    if (done := _json(sink, KEY)) is not None and done.get("job_id") == known["job_id"]:
        return {"output": job.sink.path, "pairs": len(done["real_is"]), "reused": True}
    context.log(f"drawing records of {storage.mask(job.real.path)} and {storage.mask(job.synthetic.path)}")
    theirs = random_rows(real, max(job.searched, job.pairs), job.seed, columns)
    ours = random_rows(synthetic, max(job.neighbours, job.pairs), job.seed, columns)
    pairs = min(job.pairs, theirs.num_rows, ours.num_rows)
    if pairs == 0:
        raise InvalidData("no row passes the filter of one of the sources; there is nothing to judge")
    sheet = _neighbours(job, ours.slice(0, job.neighbours), theirs.slice(0, job.searched), payload)
    page, sides = _blind(job, ours.slice(0, pairs), theirs.slice(0, pairs), payload, known["job_id"])
    key = {
        "job_id": known["job_id"],
        "page": _page_name(known["job_id"]),
        "real_is": sides,
        "spec": _spec(job),
    }
    with storage.explained(sink.uri):
        for name, data in ((NEIGHBOURS, sheet), (BLIND, page), (KEY, json.dumps(key, indent=1).encode())):
            storage.put_bytes(sink.filesystem, sink.path(name), data)
    context.log(f"give {BLIND} to people, not {KEY}; then: genai judge {job.sink.path} ANSWERS...")
    return {"output": job.sink.path, "pairs": pairs, "seconds": round(time.monotonic() - started, 1)}


def judged(output: str, answers: Sequence[str]) -> Fooling:
    """What people said of a job's pages. Raises InvalidInput: no key there, answers to other pages, broken ones."""
    sink = Sink(output)
    key = _json(sink, KEY)
    if key is None or not isinstance(key.get("real_is"), list):
        raise InvalidInput(f"{storage.mask(output)} holds no {KEY}; give the output of a judge job")
    return fooling([_answers(path, key["page"]) for path in answers], key["real_is"])


def columns_of(job: JudgeJob, real: Source, synthetic: Source) -> tuple[list[str], str | None]:
    """The columns that are shown, and the one with the payload (None of tables). Raises InvalidData."""
    codec = catalog.codec_class(job.modality.kind)
    names = codec.learnt_columns(synthetic.schema, job.modality).names
    if job.modality.kind == "tabular":
        names = [name for name in names if name in real.schema.names]
        if not names:
            raise InvalidData("the two sources have no column in common; nothing could be compared")
        return names, None
    lacking = [name for name in names[:1] if name not in real.schema.names]
    if lacking:
        raise InvalidData(
            f"real: no column {lacking[0]!r}, which the synthetic records have; name it alike in both "
            f"(columns: {', '.join(real.schema.names)})"
        )
    return names[:1], names[0]


def _neighbours(job: JudgeJob, ours: pa.Table, theirs: pa.Table, payload: str | None) -> bytes:
    from genai_core.evaluation.record_distance import nearest

    kind = job.modality.kind
    best, distances = nearest(kind, ours, theirs, payload)
    order = np.argsort(distances, kind="stable")
    return neighbour_sheet.page(
        shown(kind, ours.take(pa.array(order)), payload),
        shown(kind, theirs.take(pa.array(best[order])), payload),
        distances[order].tolist(),
        UNITS[kind],
        theirs.num_rows,
    )


def _blind(
    job: JudgeJob, ours: pa.Table, theirs: pa.Table, payload: str | None, identity: str
) -> tuple[bytes, list[str]]:
    """The page, and the side of the real record of every pair."""
    seed = hashlib.blake2b(f"{identity}/sides".encode(), digest_size=8).digest()
    left = np.random.default_rng(int.from_bytes(seed, "big")).random(ours.num_rows) < 0.5
    made, true = shown(job.modality.kind, ours, payload), shown(job.modality.kind, theirs, payload)
    sides = ["left" if real_left else "right" for real_left in left]
    on_left = [t if real_left else m for t, m, real_left in zip(true, made, left, strict=True)]
    on_right = [m if real_left else t for t, m, real_left in zip(true, made, left, strict=True)]
    return blind_page.page(_page_name(identity), on_left, on_right), sides


def _page_name(identity: str) -> str:
    """Tells pages apart; says nothing of the sides, which the job's identity decides."""
    return hashlib.sha256(f"page/{identity}".encode()).hexdigest()[:16]


def _answers(path: str, page: str) -> Answers:
    filesystem, inside = storage.resolve(path)
    try:
        with storage.explained(path):
            found = Answers.model_validate_json(storage.read_bytes(filesystem, inside))
    except FileNotFoundError:
        raise InvalidInput(f"answers {storage.mask(path)} do not exist") from None
    except ValueError as error:
        first = str(error).splitlines()
        raise InvalidInput(
            f"answers {storage.mask(path)} are not what the page saves: {' '.join(first[1:3]) or first[0]}"
        ) from None
    if found.page != page:
        raise InvalidInput(
            f"answers {storage.mask(path)} belong to other pages ({found.page}), not to {page}"
        )
    return found


def _json(sink: Sink, name: str) -> dict[str, Any] | None:
    try:
        with storage.explained(sink.uri):
            found = json.loads(storage.read_bytes(sink.filesystem, sink.path(name)))
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _spec(job: JudgeJob) -> dict[str, Any]:
    found: dict[str, Any] = masked(job.model_dump(mode="json", exclude={"sink", "name"}))
    return found


def _identity(job: JudgeJob, real: Source, synthetic: Source) -> dict[str, Any]:
    parts: Mapping[str, Any] = {"spec": _spec(job), "real": real.digest, "synthetic": synthetic.digest}
    return {"job_id": job_id("judge", dict(parts)), "verb": "judge", "parts": dict(parts)}
