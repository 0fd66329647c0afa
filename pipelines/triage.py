"""Triage: a page of an output's anomalies on which people accept or reject each of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from genai_core.artifact import read_header
from genai_core.errors import GenAIError, InvalidInput
from pipelines.explain import outputs
from pipelines.outputs.sink import Sink
from pipelines.pages import triage_page
from pipelines.pages.records_as_html import escaped, shown
from pipelines.scoring.anomalies import FILE as ANOMALIES
from pipelines.scoring.explanations import reason_text
from pipelines.source_rows import FILE, ROW
from pipelines.sources import SourceSettings
from pipelines.sources.some_rows import SomeFiles
from pipelines.stores import storage
from pipelines.tracking import peek_model

PAGE = "_triage.html"
ROWS = 200  # on one page
KNOWN = {
    "why",
    "p_value",
    "weighted_p_value",
    FILE,
    ROW,
    "fault",
}  # columns of a list that are shown in other ways


def write_page(path: str, to: str | None = None) -> dict[str, Any]:
    """Write the page of the output of a score or lake job; where, and how many rows it has.

    to  file or URI; default `_triage.html` in the output. Raises InvalidInput: no such output, or nothing listed.
    """
    found = [(sink, manifest, *_listed(sink)) for sink, manifest, _ in outputs(path)]
    rows = [row for *_, listed, _ in found for row in listed.to_pylist()]
    total = sum(count for *_, count in found)
    if not rows:
        raise InvalidInput(f"{storage.mask(path)} lists no anomaly; there is nothing to judge")
    records = [record for sink, manifest, listed, _ in found for record in _records(manifest, listed)]
    shown_rows = [_shown(row, manifest) for _, manifest, listed, _ in found for row in listed.to_pylist()]
    order = sorted(range(len(rows)), key=lambda i: (-(shown_rows[i]["score"] or 0.0), i))[:ROWS]
    page = triage_page.page(
        "Which of these are anomalies?",
        [shown_rows[i] for i in order],
        [records[i] for i in order],
        total - len(order),
    )
    target = to or storage.join(path, PAGE)
    filesystem, inside = storage.resolve(target)
    with storage.explained(target):
        storage.put_bytes(filesystem, inside, page)
    return {"page": storage.mask(target), "rows": len(order), "listed": total}


def _listed(sink: Sink) -> tuple[pa.Table, int]:
    """The first rows of the list of anomalies, and how many it has."""
    with (
        storage.explained(sink.uri),
        sink.filesystem.open_input_file(sink.path(ANOMALIES)) as stream,
        pq.ParquetFile(stream) as parquet,
    ):
        batches = list(_first(parquet))
        return pa.Table.from_batches(batches, parquet.schema_arrow), parquet.metadata.num_rows


def _first(parquet: pq.ParquetFile) -> Iterator[pa.RecordBatch]:
    if parquet.num_row_groups:
        yield next(parquet.iter_batches(ROWS, row_groups=[0]))


def _shown(row: Mapping[str, Any], manifest: Mapping[str, Any]) -> dict[str, Any]:
    score = manifest["summary"]["score"]
    values = {
        name: value
        for name, value in row.items()
        if name not in KNOWN and name != score and not isinstance(value, bytes | dict | list)
    }
    return {
        FILE: row[FILE],
        ROW: row[ROW],
        "score": row.get(score),
        "p_value": row.get("p_value"),
        "reasons": [reason_text(reason) for reason in row.get("why") or ()],
        "values": values,
    }


def _records(manifest: Mapping[str, Any], listed: pa.Table) -> Sequence[str]:
    """HTML of the pictures, sounds and texts themselves, read from the source again; empty for tables."""
    nothing = [""] * listed.num_rows
    provenance = manifest["provenance"]
    try:
        directory = peek_model(provenance["model"]["uri"], None)
        header = None if directory is None else read_header(directory)
        if header is None:
            return ["<p>the model is out of reach, and with it what its records are</p>"] * listed.num_rows
        if header.modality == "tabular":
            return nothing
        payload = header.schema.names[0]
        settings = TypeAdapter(SourceSettings).validate_python(provenance["spec"]["source"])
        files = SomeFiles.of(settings, list(dict.fromkeys(listed.column(FILE).to_pylist())))
        places = zip(listed.column(FILE).to_pylist(), listed.column(ROW).to_pylist(), strict=True)
        rows = [files.rows(file, [row], [payload]) for file, row in places]
        return shown(header.modality, pa.concat_tables(rows), payload)
    except GenAIError as error:  # a source or a model that has gone costs the pictures only
        return [f"<p>{escaped(error)}</p>"] * listed.num_rows
