"""A shard of rows with their scores: the table that scoring writes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from genai_core import catalog
from pipelines.outputs.shard_tally import Tally
from pipelines.plan import Shard
from pipelines.scoring.explanations import WHY, explain
from pipelines.source_rows import FAULT, FILE, PLACE, ROW, Chunk, chunks, joined, rows_together, with_kept
from pipelines.sources import Reader

if TYPE_CHECKING:
    from genai_core.fitted import FittedModel, Scored

P_VALUE, REASONS = "p_value", "why"


def output_schema(reader: Reader, keep: Sequence[str], names: Sequence[str], modality: str) -> pa.Schema:
    """Of the scored rows; InvalidInput for columns to keep that are not there or have taken names."""
    details = catalog.codec_class(modality).details
    made = [
        *PLACE,
        *(pa.field(name, pa.float64()) for name in names),
        pa.field(P_VALUE, pa.float64()),
        pa.field(REASONS, WHY),
        *([] if details is None else [*details, pa.field(FAULT, pa.string())]),
    ]
    return with_kept(reader, keep, made)


class Scorer:
    """Scores the pieces of a shard, chunk by chunk."""

    def __init__(self, options: Mapping[str, Any], reader: Reader, model: FittedModel) -> None:
        self.model, self.reader = model, reader
        self.names: list[str] = options["scores"]
        self.fdr: float | None = options["fdr"]
        self.top_k: int | None = options["top_k"]
        self.schema = output_schema(reader, options["keep"], self.names, model.modality)
        self.chunk_rows = rows_together(model.codec)
        kept = [name for name in self.schema.names if name in options["keep"]]
        self.columns = list(dict.fromkeys([*model.schema.names, *kept]))
        self.ranks = model.calibration_size(self.names[0]) + 1  # p-values are 1, 2, ... ranks of these

    def __call__(self, shard: Shard) -> tuple[pa.Table, dict[str, Any]]:
        """The table, and how often each small p-value occurs: what false-discovery control needs of a shard."""
        counts: Counter[int] = Counter()
        self.faults: Counter[str] = Counter()
        self.tally = Tally(self.model, self.names[0])
        found = chunks(self.reader, shard, self.columns, self.chunk_rows)
        return joined((self._scored(chunk, counts) for chunk in found), self.schema), {
            "ranks": self.ranks,
            "p_counts": [[rank, count] for rank, count in sorted(counts.items())],
            **self.tally.facts(),
            **({"faults": dict(self.faults)} if self.faults else {}),
        }

    def _scored(self, chunk: Chunk, counts: Counter[int]) -> pa.Table:
        explained_by = None if self.model.codec.details is None else self.names[0]
        records = self.model.codec.encode(chunk.table)
        scored = self.model.score_records(records, self.names, explained_by)
        first = scored.totals[self.names[0]]
        p_values = self.model.p_values(self.names[0], first)
        unreadable = np.zeros(len(first), bool)
        unreadable[list(scored.faults)] = True
        self.faults.update(reason.partition(":")[0] for reason in scored.faults.values())
        self._count(p_values[~unreadable], counts)
        readable = np.flatnonzero(~unreadable)
        self.tally.add(first[readable], p_values[readable], records.tokens[readable])
        standing_out = readable[self._stands_out(first[readable], p_values[readable])]
        made = {
            FILE: chunk.files,
            ROW: pa.array(chunk.rows),
            **{name: pa.array(scored.totals[name], mask=unreadable) for name in self.names},
            P_VALUE: pa.array(p_values, mask=unreadable),
            FAULT: pa.array([scored.faults.get(i) for i in range(len(first))], pa.string()),
            **self._explained(chunk.table, scored, standing_out),
        }
        columns = [made[name] if name in made else chunk.table.column(name) for name in self.schema.names]
        return pa.Table.from_arrays(columns, schema=self.schema)

    def _explained(self, table: pa.Table, scored: Scored, chosen: np.ndarray) -> dict[str, pa.Array]:
        """`why` and the details of the modality, for the rows that stand out."""
        details = self.model.codec.details
        if details is None:
            shares = scored.per_column.get(self.names[0])
            return {REASONS: explain(table, shares, scored.columns, chosen, self.model.expected)}
        rows = table.take(pa.array(chosen))
        own = scored.entries
        entries = self.model.entries(rows, self.names[0]) if own is None else own[chosen]
        found = self.model.codec.explain(rows, entries)
        columns = {}
        for field in (pa.field(REASONS, WHY), *details):
            values: list[Any] = [None] * table.num_rows
            for row, value in zip(chosen.tolist(), found[field.name], strict=True):
                values[row] = value
            columns[field.name] = pa.array(values, field.type)
        return columns

    def _count(self, p_values: np.ndarray, counts: Counter[int]) -> None:
        """A discovery at a false-discovery rate has a p-value of at most that rate, so only those are counted."""
        if self.fdr is not None:
            ranks = np.rint(p_values[p_values <= self.fdr] * self.ranks).astype(np.int64)
            counts.update(
                dict(zip(*(found.tolist() for found in np.unique(ranks, return_counts=True)), strict=True))
            )

    def _stands_out(self, scores: np.ndarray, p_values: np.ndarray) -> np.ndarray:
        """Rows that may be flagged in the end: only they are explained."""
        chosen = np.zeros(len(scores), bool)
        if self.fdr is not None:
            chosen |= p_values <= self.fdr
        elif self.top_k is not None:
            chosen[np.argsort(-order_of(scores), kind="stable")[: self.top_k]] = True
        return chosen


def order_of(scores: np.ndarray) -> np.ndarray:
    """Scores that sort: what is no number is the most anomalous."""
    return np.where(np.isnan(scores), np.inf, scores)
