"""Which of all scored rows are flagged, and the file that lists them, the most anomalous first.

With `fdr` exactly the rows that the Benjamini-Hochberg procedure (1995) over all rows declares discoveries; without
it the `top_k` highest scores, which says nothing about significance.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from genai_core.calibration import benjamini_hochberg
from pipelines.lakes.partitions import folder_of_file
from pipelines.outputs import footer as footers
from pipelines.outputs.sink import Sink
from pipelines.scoring.feedback import Feedback, without
from pipelines.scoring.scored_rows import P_VALUE, order_of
from pipelines.source_rows import FILE as FILE_COLUMN
from pipelines.source_rows import ROW as ROW_COLUMN
from pipelines.stores import storage

FILE = "_anomalies.parquet"
CHUNK_ROWS = 65_536  # flagged rows that are in memory together
TRIM = 4  # candidates kept, as a multiple of top_k, before they are cut down to top_k


class Keys(NamedTuple):
    """Where flagged rows stand: the score, the record's place among the records, the row in its file."""

    score: np.ndarray
    record: np.ndarray
    row: np.ndarray

    def take(self, order: np.ndarray | slice) -> Keys:
        return Keys(self.score[order], self.record[order], self.row[order])

    def ranked(self) -> Keys:
        """Most anomalous first; equal scores in the order of the shards."""
        return self.take(np.lexsort((self.row, self.record, -self.score)))


@dataclass(frozen=True)
class Question:
    """What shall be listed, of rows of which schema."""

    score: str
    fdr: float | None
    top_k: int | None
    schema: pa.Schema
    withheld: frozenset[str] = frozenset()  # partitions that moved as a whole: none of their rows is listed
    feedback: Feedback = field(default_factory=Feedback)
    unique: tuple[str, ...] = ()  # columns whose values together no two rows should share


def list_anomalies(
    sink: Sink, provenance: Mapping[str, Any], asked: Question
) -> tuple[dict[str, Any], Mapping[str, int]]:
    """Write the list; what the manifest says about it, and how many rows of each partition are on it."""
    fdr, top_k, withheld = asked.fdr, asked.top_k, asked.withheld
    summary: dict[str, Any] = {"anomalies": FILE, "score": asked.score}
    threshold = None
    if fdr is not None:
        threshold, ranks = discovery_threshold(sink, fdr, withheld)
        summary |= {"fdr": fdr, "p_threshold": threshold, "smallest_p": 1 / ranks}
    if top_k is not None:
        summary["top_k"] = top_k
    files = [record["file"] for record in sink.records() if folder_of_file(record["file"]) not in withheld]
    if asked.feedback.facts:
        summary["feedback"] = dict(asked.feedback.facts)
    keys = _flagged(sink, files, asked, threshold)
    _write(sink, files, keys, asked.schema, {**provenance, "role": "anomalies", **summary})
    found = Counter(folder_of_file(files[number]) for number in keys.record.tolist())
    return {**summary, "flagged": len(keys.score)}, found


def discovery_threshold(sink: Sink, fdr: float, withheld: Collection[str] = ()) -> tuple[float, int]:
    """The largest p-value that is a discovery (0: none), from the counts in all records; and the number of ranks."""
    small: Counter[int] = Counter()
    rows, ranks = 0, 1
    for record in sink.records():
        if folder_of_file(record["file"]) in withheld:
            continue
        unreadable = sum(record.get("faults", {}).values())
        rows, ranks = rows + record["rows"] - unreadable, record["ranks"]
        small.update(dict(record["p_counts"]))
    counts = np.zeros(ranks, np.int64)
    for rank, count in small.items():
        counts[rank - 1] = count
    counts[-1] += rows - counts.sum()  # larger than fdr, wherever they stand
    return benjamini_hochberg(counts, fdr), ranks


def _flagged(sink: Sink, files: list[str], asked: Question, threshold: float | None) -> Keys:
    """24 bytes for each flagged row; with top_k never many more than that."""
    found = Keys(np.empty(0), np.empty(0, np.int32), np.empty(0, np.int64))
    if threshold == 0:
        return found
    columns = [asked.score, P_VALUE, *((FILE_COLUMN, ROW_COLUMN) if asked.feedback.rejected else ())]
    for number, file in enumerate(files):
        for first, batch in batches_of(sink, file, columns):
            found = _more(found, batch, number, first, threshold, asked.feedback)
            if asked.top_k is not None and len(found.score) > TRIM * asked.top_k:
                found = found.ranked().take(slice(asked.top_k))
    return found.ranked().take(slice(asked.top_k))


def _more(
    found: Keys, batch: pa.RecordBatch, number: int, first: int, threshold: float | None, feedback: Feedback
) -> Keys:
    scores = order_of(batch.column(0).to_numpy(zero_copy_only=False))
    p_values = batch.column(1).to_numpy(zero_copy_only=False)
    # a record that could not be read has no p-value: it is a fault, no anomaly
    chosen = ~np.isnan(p_values) if threshold is None else p_values <= threshold
    if feedback.cut is not None:
        chosen &= scores >= feedback.cut
    rows = np.flatnonzero(chosen)
    if feedback.rejected and len(rows):
        these = batch.take(pa.array(rows))
        names = these.column(2).cast(pa.string()).to_pylist()
        rows = rows[without(feedback.rejected, names, these.column(3).to_numpy())]
    new = Keys(scores[rows], np.full(len(rows), number, np.int32), rows + first)
    return Keys(*(np.concatenate(pair) for pair in zip(found, new, strict=True)))


def batches_of(
    sink: Sink, file: str, columns: list[str] | None = None
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Batches of a data file, each with the number of its first row."""
    first = 0
    with sink.filesystem.open_input_file(sink.path(file)) as stream, pq.ParquetFile(stream) as parquet:
        for batch in parquet.iter_batches(CHUNK_ROWS, columns=columns):
            yield first, batch
            first += batch.num_rows


def _write(sink: Sink, files: list[str], keys: Keys, schema: pa.Schema, footer: Mapping[str, Any]) -> None:
    with (
        storage.explained(sink.uri),
        storage.open_whole(sink.filesystem, sink.path(FILE)) as stream,
        footers.open_writer(stream, schema, footer) as writer,
    ):
        for start in range(0, len(keys.score), CHUNK_ROWS):
            writer.write_table(_gather(sink, files, keys.take(slice(start, start + CHUNK_ROWS)), schema))


def _gather(sink: Sink, files: list[str], keys: Keys, schema: pa.Schema) -> pa.Table:
    """The rows that keys name, in the order of the keys."""
    parts, places = [], []
    for number in np.unique(keys.record):
        of_file = np.flatnonzero(keys.record == number)
        of_file = of_file[np.argsort(keys.row[of_file])]
        rows = keys.row[of_file]
        for first, batch in batches_of(sink, files[number]):
            low, high = np.searchsorted(rows, (first, first + batch.num_rows))
            parts.append(batch.take(pa.array(rows[low:high] - first)))
            places.append(of_file[low:high])
    back = np.argsort(np.concatenate(places))
    return pa.Table.from_batches(parts, schema).unify_dictionaries().take(pa.array(back))
