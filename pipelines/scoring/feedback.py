"""Feedback: what people said of flagged rows, accepted or rejected as false alarms, sharpens the threshold.

A labels file is a table (CSV or Parquet) with the columns source_file, source_row and label: the list of anomalies
itself with a `label` column added, or those three alone. Labelled rows are read from the source and scored again, so
that labels outlive a model.

Rule: of the labelled rows at or above the cut at most the job's `fdr` were rejected; the cut is the lowest such score.
Rows are then flagged when Benjamini-Hochberg flags them and they reach the cut, so labels only ever make a job
stricter. A rejected row is never listed again.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from genai_core.errors import InvalidData
from pipelines.source_rows import FILE, ROW
from pipelines.sources.some_rows import SomeFiles
from pipelines.stores import storage

if TYPE_CHECKING:
    from genai_core.fitted import FittedModel

LABEL, ACCEPT, REJECT = "label", "accept", "reject"
Key = tuple[str, int]


@dataclass(frozen=True)
class Labels:
    """What people said: (file, row) -> whether it was accepted as an anomaly."""

    said: Mapping[Key, bool]
    digest: str

    @property
    def rejected(self) -> frozenset[Key]:
        return frozenset(key for key, accepted in self.said.items() if not accepted)


@dataclass(frozen=True)
class Feedback:
    """What follows from labels for a job.

    cut  the lowest score that may be flagged; None: labels set none
    """

    rejected: frozenset[Key] = frozenset()
    cut: float | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)  # for the manifest


def digest_of(path: str) -> str:
    """sha256 of a labels file. Raises InvalidData."""
    return "sha256:" + hashlib.sha256(_bytes(path)).hexdigest()


def read_labels(path: str) -> Labels:
    """Raises InvalidData: no such file, other columns, a label that is neither accept nor reject."""
    data = _bytes(path)
    table = _table(path, data)
    lacking = [name for name in (FILE, ROW, LABEL) if name not in table.column_names]
    if lacking:
        raise InvalidData(
            f"labels {storage.mask(path)}: no column {', '.join(lacking)}; needed are {FILE}, {ROW} and {LABEL}"
        )
    files, rows, labels = (table[name].to_pylist() for name in (FILE, ROW, LABEL))
    said: dict[Key, bool] = {}
    for number, (file, row, label) in enumerate(zip(files, rows, labels, strict=True), 1):
        if label in (None, ""):  # not judged yet
            continue
        if label not in (ACCEPT, REJECT) or not isinstance(row, int):
            raise InvalidData(
                f"labels {storage.mask(path)}: row {number} says {label!r} of {file} row {row}; accepted are "
                f"{ACCEPT}, {REJECT} and nothing"
            )
        said[str(file), row] = label == ACCEPT
    return Labels(said, "sha256:" + hashlib.sha256(data).hexdigest())


def weigh(path: str, settings: Any, model: FittedModel, score: str, fdr: float | None) -> Feedback:
    """The cut that the labels at `path` ask for; settings: of the source that the labelled rows come from."""
    labels = read_labels(path)
    scores, accepted = _scored(labels, settings, model, score)
    cut = None if fdr is None else sharpened(scores, accepted, fdr)
    facts = {
        "labels": storage.mask(path),
        "digest": labels.digest,
        "accepted": sum(labels.said.values()),
        "rejected": len(labels.rejected),
        "no_longer_there": len(labels.said) - len(scores),
        "cut": cut,
    }
    return Feedback(labels.rejected, cut, facts)


def sharpened(scores: np.ndarray, accepted: np.ndarray, fdr: float) -> float | None:
    """The lowest score from which on at most a share `fdr` of the labelled rows was rejected; None: nothing to cut.

    When even the highest was rejected, the cut lies just above all that were.
    """
    if accepted.all():
        return None
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    shares = np.cumsum(~accepted[order]) / np.arange(1, len(order) + 1)
    last = np.r_[ranked[1:] != ranked[:-1], True]  # of equal scores all are above a cut, or none
    fine = np.flatnonzero((shares <= fdr) & last)
    if not len(fine):
        return float(np.nextafter(scores[~accepted].max(), np.inf))
    return None if fine[-1] == len(order) - 1 else float(ranked[fine[-1]])


def _scored(labels: Labels, settings: Any, model: FittedModel, score: str) -> tuple[np.ndarray, np.ndarray]:
    """Scores of the labelled rows that are there still, and whether they were accepted."""
    by_file: dict[str, list[int]] = {}
    for file, row in sorted(labels.said):
        by_file.setdefault(file, []).append(row)
    found = SomeFiles.of(settings, list(by_file), missing_ok=True)
    scores: list[float] = []
    accepted: list[bool] = []
    for file, rows in by_file.items():
        inside = found.numbers_inside(file, rows)
        if inside:
            table = found.rows(file, inside, model.schema.names)
            scores += model.score(table, [score]).totals[score].tolist()
            accepted += [labels.said[file, row] for row in inside]
    return np.asarray(scores), np.asarray(accepted, bool)


def _table(path: str, data: bytes) -> pa.Table:
    try:
        if data[:4] == b"PAR1":
            table = pq.read_table(io.BytesIO(data))
            return (
                table.set_column(table.column_names.index(FILE), FILE, table[FILE].cast(pa.string()))
                if FILE in table.column_names
                else table
            )
        types = {FILE: pa.string(), LABEL: pa.string(), ROW: pa.int64()}
        return pacsv.read_csv(io.BytesIO(data), convert_options=pacsv.ConvertOptions(column_types=types))
    except (pa.ArrowException, OSError) as error:
        raise InvalidData(
            f"labels {storage.mask(path)} cannot be read as CSV or Parquet: {str(error).splitlines()[0][:200]}"
        ) from error


def _bytes(path: str) -> bytes:
    filesystem, inside = storage.resolve(path)
    try:
        with storage.explained(path):
            return storage.read_bytes(filesystem, inside)
    except FileNotFoundError as error:
        raise InvalidData(f"labels {storage.mask(path)} does not exist") from error


def without(rejected: frozenset[Key], files: Sequence[str], rows: np.ndarray) -> np.ndarray:
    """Which of some rows were not rejected, bool."""
    return np.array(
        [(file, row) not in rejected for file, row in zip(files, rows.tolist(), strict=True)], bool
    )
