"""Which of all scored rows are flagged, and the file that lists them, the most anomalous first.

With `fdr` exactly the rows that the Benjamini-Hochberg procedure (1995) over all rows declares discoveries; without
it the `top_k` highest scores, which says nothing about significance.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

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

if TYPE_CHECKING:
    from pipelines.lakes.weighting import Weighted

FILE = "_anomalies.parquet"
WEIGHTED_P_VALUE = "weighted_p_value"
Calibration = Literal["plain", "weighted"]
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
    calibration: Calibration = "plain"
    weighted: Mapping[str, Weighted] = field(default_factory=dict)  # partitions with p-values of their own

    @property
    def listed(self) -> pa.Schema:
        """Of the list: with weighted calibration every row has the p-value that decided, too."""
        if self.calibration == "plain":
            return self.schema
        place = self.schema.get_field_index(P_VALUE) + 1
        return self.schema.insert(place, pa.field(WEIGHTED_P_VALUE, pa.float64()))

    def p_values(self, file: str, batch: pa.RecordBatch) -> np.ndarray:
        """Of some rows of a data file, float64: those that decide."""
        plain = batch.column(P_VALUE).to_numpy(zero_copy_only=False)
        own = self.weighted.get(folder_of_file(file))
        return plain if own is None else own.instead(plain)


def list_anomalies(
    sink: Sink, provenance: Mapping[str, Any], asked: Question
) -> tuple[dict[str, Any], Mapping[str, int]]:
    """Write the list; what the manifest says about it, and how many rows of each partition are on it."""
    fdr, top_k, withheld = asked.fdr, asked.top_k, asked.withheld
    summary: dict[str, Any] = {"anomalies": FILE, "score": asked.score}
    threshold = None
    if fdr is not None:
        threshold, ranks = discovery_threshold(sink, fdr, withheld, asked.weighted)
        summary |= {"fdr": fdr, "p_threshold": threshold, "smallest_p": 1 / ranks}
    if top_k is not None:
        summary["top_k"] = top_k
    files = [record["file"] for record in sink.records() if folder_of_file(record["file"]) not in withheld]
    if asked.feedback.facts:
        summary["feedback"] = dict(asked.feedback.facts)
    keys = _flagged(sink, files, asked, threshold)
    _write(sink, files, keys, asked, {**provenance, "role": "anomalies", **summary})
    found = Counter(folder_of_file(files[number]) for number in keys.record.tolist())
    return {**summary, "flagged": len(keys.score)}, found


def discovery_threshold(
    sink: Sink,
    fdr: float,
    withheld: Collection[str] = (),
    weighted: Mapping[str, Weighted] | None = None,
) -> tuple[float, int]:
    """The largest p-value that is a discovery (0: none), from the counts in all records; and the number of ranks.

    weighted: partitions with p-values of their own, whose counts they hold.
    """
    own = {name: one for name, one in (weighted or {}).items() if one.p_values is not None}
    small: Counter[int] = Counter()
    rows, ranks = 0, 1
    for record in sink.records():
        folder = folder_of_file(record["file"])
        if folder in withheld:
            continue
        unreadable = sum(record.get("faults", {}).values())
        rows, ranks = rows + record["rows"] - unreadable, record["ranks"]
        if folder not in own:
            small.update(dict(record["p_counts"]))
    values = [np.array(sorted(small), np.int64) / ranks]
    counts = [np.array([small[rank] for rank in sorted(small)], np.int64)]
    for name, one in own.items():
        if name not in withheld and one.p_values is not None:
            there = np.flatnonzero((one.counts > 0) & (one.p_values <= fdr))
            values.append(one.p_values[there])
            counts.append(one.counts[there])
    rest = rows - sum(int(part.sum()) for part in counts)  # larger than fdr, wherever they stand
    p, number = np.concatenate([*values, [1.0]]), np.concatenate([*counts, [rest]])
    order = np.argsort(p, kind="stable")
    return benjamini_hochberg(number[order], fdr, p[order]), ranks


def _flagged(sink: Sink, files: list[str], asked: Question, threshold: float | None) -> Keys:
    """24 bytes for each flagged row; with top_k never many more than that."""
    found = Keys(np.empty(0), np.empty(0, np.int32), np.empty(0, np.int64))
    if threshold == 0:
        return found
    columns = [asked.score, P_VALUE, *((FILE_COLUMN, ROW_COLUMN) if asked.feedback.rejected else ())]
    for number, file in enumerate(files):
        for first, batch in batches_of(sink, file, columns):
            found = _more(found, batch, asked.p_values(file, batch), number, first, threshold, asked.feedback)
            if asked.top_k is not None and len(found.score) > TRIM * asked.top_k:
                found = found.ranked().take(slice(asked.top_k))
    return found.ranked().take(slice(asked.top_k))


def _more(
    found: Keys,
    batch: pa.RecordBatch,
    p_values: np.ndarray,
    number: int,
    first: int,
    threshold: float | None,
    feedback: Feedback,
) -> Keys:
    scores = order_of(batch.column(0).to_numpy(zero_copy_only=False))
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


def _write(sink: Sink, files: list[str], keys: Keys, asked: Question, footer: Mapping[str, Any]) -> None:
    with (
        storage.explained(sink.uri),
        storage.open_whole(sink.filesystem, sink.path(FILE)) as stream,
        footers.open_writer(stream, asked.listed, footer) as writer,
    ):
        for start in range(0, len(keys.score), CHUNK_ROWS):
            writer.write_table(_gather(sink, files, keys.take(slice(start, start + CHUNK_ROWS)), asked))


def _gather(sink: Sink, files: list[str], keys: Keys, asked: Question) -> pa.Table:
    """The rows that keys name, in the order of the keys."""
    parts, places = [], []
    for number in np.unique(keys.record):
        of_file = np.flatnonzero(keys.record == number)
        of_file = of_file[np.argsort(keys.row[of_file])]
        rows = keys.row[of_file]
        for first, batch in batches_of(sink, files[number]):
            low, high = np.searchsorted(rows, (first, first + batch.num_rows))
            parts.append(_listed(batch.take(pa.array(rows[low:high] - first)), files[number], asked))
            places.append(of_file[low:high])
    back = np.argsort(np.concatenate(places))
    return pa.Table.from_batches(parts, asked.listed).unify_dictionaries().take(pa.array(back))


def _listed(batch: pa.RecordBatch, file: str, asked: Question) -> pa.RecordBatch:
    """Rows of a data file as they are listed."""
    if asked.calibration == "plain":
        return batch
    made = {WEIGHTED_P_VALUE: pa.array(asked.p_values(file, batch), from_pandas=True)}
    columns = [made[name] if name in made else batch.column(name) for name in asked.listed.names]
    return pa.RecordBatch.from_arrays(columns, names=asked.listed.names)
