"""Why one row of a scored output is odd, what would be normal in its place, and the normal row that is most like it.

The row is read from its source again, as is the part of its shard that it is compared with: an output carries only
the columns that its job was asked to keep.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from genai_core import artifact
from genai_core.errors import InvalidInput, nearest
from genai_core.fitted import FittedModel
from genai_core.tables.nearest import distances
from pipelines.lakes.lake_log import SCORED, LakeLog
from pipelines.outputs.sink import Sink
from pipelines.scoring.explanations import as_text
from pipelines.scoring.scored_rows import P_VALUE
from pipelines.source_rows import FILE, ROW
from pipelines.sources import SourceSettings
from pipelines.sources.some_rows import SomeFiles
from pipelines.stores import storage
from pipelines.tracking import resolve_model

MOST = 20  # rows that one question may mean
NORMAL = 0.2  # p-value from which on a row may stand for what is normal
COMPARED = 20_000  # rows, at most


@dataclass(frozen=True)
class Place:
    """Where a row's scores stand: in which run, in which data file of it, at which place there."""

    sink: Sink
    manifest: Mapping[str, Any]
    file: str
    row: dict[str, Any]


def explain_rows(path: str, wanted: Mapping[str, str]) -> list[dict[str, Any]]:
    """Every row of an output in which all the columns have these values, explained; JSON-able.

    path  directory of a score or lake job. Raises InvalidInput: no such row or column, or too many rows.
    """
    found = _found(path, wanted)
    models: dict[str, FittedModel] = {}
    answers = []
    for place in found:
        made_by = place.manifest["provenance"]["model"]
        uri, digest = made_by["uri"], made_by["digest"]
        if digest not in models:
            models[digest] = _model(uri, digest)
        answers.append(_explained(place, models[digest]))
    return answers


Output = tuple[Sink, Mapping[str, Any], set[str] | None]


def outputs(path: str) -> Iterator[Output]:
    """The finished outputs at a path, each with its manifest and the source files whose rows count there; None: all."""
    log = LakeLog(path)
    newest = log.newest()
    if newest is None:
        sink = Sink(path)
        manifest = sink.manifest()
        if manifest is None:
            raise InvalidInput(f"{storage.mask(path)} is no finished output of a score or lake job")
        yield sink, manifest, None
        return
    runs: dict[str, set[str]] = {}
    for entry in log.entries(newest).values():
        if entry.state == SCORED and entry.run is not None:
            runs.setdefault(entry.run, set()).add(entry.path)
    for run, files in sorted(runs.items()):
        sink = Sink(storage.join(path, run))
        yield sink, sink.manifest() or {}, files


def _found(path: str, wanted: Mapping[str, str]) -> list[Place]:
    found: list[Place] = []
    for sink, manifest, files in outputs(path):
        for shard in manifest["shards"]:
            for row in _matching(sink, shard["file"], wanted):
                if files is None or row[FILE] in files:
                    found.append(Place(sink, manifest, shard["file"], row))
                if len(found) > MOST:
                    raise InvalidInput(f"more than {MOST} rows match; say more, such as --row {ROW}=7")
    if not found:
        said = " and ".join(f"{name} = {value}" for name, value in wanted.items())
        raise InvalidInput(f"no row of {storage.mask(path)} has {said}")
    return found


def _matching(sink: Sink, file: str, wanted: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    with sink.filesystem.open_input_file(sink.path(file)) as stream, pq.ParquetFile(stream) as parquet:
        for name in wanted:
            if name not in parquet.schema_arrow.names:
                known = ", ".join(parquet.schema_arrow.names)
                raise InvalidInput(
                    f"the output has no column {name!r}{nearest(name, parquet.schema_arrow.names)} (columns: {known}); "
                    "a job's `keep` decides which there are"
                )
        masks = [np.zeros(0, bool)]
        for batch in parquet.iter_batches(columns=list(wanted)):
            mask = np.ones(batch.num_rows, bool)
            for name, value in wanted.items():
                same = pc.fill_null(pc.equal(as_text(batch.column(name)), value), False)
                mask &= same.to_numpy(zero_copy_only=False)
            masks.append(mask)
        chosen = np.concatenate(masks)
        if chosen.any():
            yield from parquet.read().filter(pa.array(chosen)).to_pylist()


def _model(uri: str, digest: str) -> FittedModel:
    fitted = artifact.load(resolve_model(uri).directory)
    if fitted.digest != digest:
        raise InvalidInput(f"the model {uri} is another than the one that made these scores ({digest[:19]})")
    return fitted


def _explained(place: Place, model: FittedModel) -> dict[str, Any]:
    score = place.manifest["summary"]["score"]
    row = place.row
    facts: dict[str, Any] = {
        "row": {name: _plain(value) for name, value in row.items() if name not in ("why", P_VALUE, score)},
        "score": {"name": score, "value": row[score], P_VALUE: row[P_VALUE]},
        "run": place.sink.uri,
    }
    table = _files(place.manifest, [row[FILE]]).rows(row[FILE], [row[ROW]], model.schema.names)
    scored = model.score(table, [score])
    shares = scored.per_column.get(score)
    if shares is not None:
        usual = {name: as_text(values) for name, values in model.expected(table, scored.columns).items()}
        facts["why"] = [
            {
                "column": scored.columns[i],
                "nats": float(shares[0, i]),
                "value": as_text(table.column(scored.columns[i]))[0].as_py(),
                "expected": usual[scored.columns[i]][0].as_py() if scored.columns[i] in usual else None,
            }
            for i in np.argsort(-shares[0], kind="stable")
        ]
    normal = _most_alike(place, model, table)
    return facts | ({"nearest": normal} if normal else {})


def _most_alike(place: Place, model: FittedModel, table: pa.Table) -> dict[str, Any] | None:
    """The row with an ordinary p-value of the same data file that differs least."""
    if model.profile is None:
        return None
    sink, columns = place.sink, [FILE, ROW, P_VALUE]
    with sink.filesystem.open_input_file(sink.path(place.file)) as stream, pq.ParquetFile(stream) as parquet:
        scored = parquet.read(columns)
    normal = scored.filter(pc.field(P_VALUE) >= NORMAL).slice(0, COMPARED)
    if not normal.num_rows:
        return None
    files = normal.column(FILE).cast(pa.string()).to_numpy()
    rows = normal.column(ROW).to_numpy()
    some = _files(place.manifest, list(dict.fromkeys(files)))
    parts = [(file, np.sort(rows[files == file])) for file in dict.fromkeys(files)]
    pool = pa.concat_tables(
        some.rows(file, own.tolist(), model.schema.names).unify_dictionaries() for file, own in parts
    )
    one, others = (model.codec.encode(each).tokens for each in (table, pool))
    apart = distances(model.codec.space, model.profile, one[0], others)  # type: ignore[arg-type]
    at = int(apart.sum(1).argmin())
    places = [(file, row) for file, own in parts for row in own.tolist()]
    different = {
        name: {
            "here": as_text(table.column(name))[0].as_py(),
            "there": as_text(pool.column(name).slice(at, 1))[0].as_py(),
        }
        for name, far in zip(model.schema.names, apart[at], strict=True)
        if far > 0
    }
    return {FILE: places[at][0], ROW: places[at][1], "different": different}


def _files(manifest: Mapping[str, Any], files: Sequence[str]) -> SomeFiles:
    settings = TypeAdapter(SourceSettings).validate_python(manifest["provenance"]["spec"]["source"])
    return SomeFiles.of(settings, files)


def _plain(value: Any) -> Any:
    return value if isinstance(value, (str, int, float, bool)) or value is None else str(value)
