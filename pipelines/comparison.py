"""Real, held-out and synthetic records of a job that judges: what is compared, sampled from sources of any length."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pydantic import Field

from genai_core.errors import InvalidData, SchemaMismatch
from pipelines.context import Context
from pipelines.settings import Settings
from pipelines.sources import Source, SourceSettings, open_source
from pipelines.sources.random_rows import random_rows
from pipelines.stores import storage

if TYPE_CHECKING:
    from genai_core.evaluation import Evaluation

LINEAGE = "_lineage"


class Comparison(Settings):
    """Real records to judge synthetic ones by."""

    real: SourceSettings = Field(description="records that the model was trained on")
    holdout: SourceSettings = Field(description="real records that it was not trained on, nor tuned by")
    target: str | None = Field(
        None, min_length=1, description="a column to predict: what do synthetic rows teach about it?"
    )
    rows: int = Field(20_000, ge=50, le=10_000_000, description="rows of each kind that are compared")
    sample: int = Field(
        100_000,
        ge=50,
        le=10_000_000,
        description="rows drawn at random of each source, of which these are a part",
    )
    searched: int = Field(
        5_000_000, ge=50, le=10**12, description="training records among which exact copies are looked for"
    )
    seed: int = Field(0, ge=0, lt=2**63)


def opened(asked: Comparison, context: Context) -> dict[str, Source]:
    """The sources that are there by now, by name; those that a job above will write are left out."""
    found = {}
    for name in ("real", "holdout"):
        settings = getattr(asked, name)
        if context.promised_output(settings.path) is None:
            found[name] = open_source(settings)
    if asked.real == asked.holdout:
        raise InvalidData(
            "real and holdout are the same records; give records that the model was not trained on as holdout: "
            "another file, or another filter"
        )
    return found


def check_columns(asked: Comparison, names: Sequence[str], sources: dict[str, Source]) -> None:
    """Raises SchemaMismatch: a column that is to be compared, or predicted, is not there."""
    require_columns(names, sources)
    if asked.target is not None and asked.target not in names:
        raise SchemaMismatch(f"target: no column {asked.target!r} is compared; there are: {', '.join(names)}")


def require_columns(names: Sequence[str], sources: dict[str, Source]) -> None:
    """Raises SchemaMismatch: a source lacks one of the columns."""
    for label, source in sources.items():
        missing = [name for name in names if name not in source.schema.names]
        if missing:
            raise SchemaMismatch(
                f"{label}: {storage.mask(source.settings.path)} has no column {missing[0]!r}; "
                f"it has: {', '.join(source.schema.names)}"
            )


def evaluation_of(
    asked: Comparison,
    sources: dict[str, Source],
    kind: str,
    names: Sequence[str],
    model: Path | None,
    log: Callable[[str], None],
) -> Evaluation:
    """Draw and compare; sources: real, holdout, synthetic. names: columns; of other modalities than tables, the one
    with the payload."""
    from genai_core.artifact import load
    from genai_core.evaluation import evaluate

    drawn = {}
    for label, source in sources.items():
        columns = list(names) if model is None or label == "synthetic" else None  # a model may read others
        drawn[label] = random_rows(source, asked.sample, asked.seed, columns)
        log(f"{label}: {drawn[label].num_rows:,} of {source.rows:,} records drawn")
    fitted = load(model) if model is not None else None
    tabular = kind == "tabular"
    return evaluate(
        drawn["real"],
        drawn["holdout"],
        drawn["synthetic"],
        modality=kind,
        column=None if tabular else names[0],
        columns=names,
        target=asked.target,
        model=fitted,
        all_real=_pieces(sources["real"], names, asked.searched) if tabular else None,
        rows=asked.rows,
        seed=asked.seed,
    )


def _pieces(source: Source, names: Sequence[str], most: int) -> Iterator[pa.Table]:
    """The first rows of a source, as they lie."""
    left = most
    for batch in source.batches(list(names)):
        if left <= 0:
            return
        yield pa.Table.from_batches([batch.slice(0, left)])
        left -= batch.num_rows


def facts_of(sources: dict[str, Source]) -> dict[str, Any]:
    """Digests, for a job's identity and for what an evaluation says of its sources."""
    return {
        label: {
            "path": storage.mask(s.settings.path),
            "filter": s.settings.filter,
            "rows": s.rows,
            "digest": s.digest,
        }
        for label, s in sources.items()
    }
