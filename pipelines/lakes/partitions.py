"""The partitions of an output: how many rows, how many flagged, and which of them moved as a whole."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from genai_core.drift import WITHHELD, Profile, Shift, score_shift
from pipelines.outputs.shard_tally import Totals
from pipelines.outputs.sink import DATA, Sink
from pipelines.sources.files import keys_of

if TYPE_CHECKING:
    from pipelines.lakes.weighting import Weighted

WHOLE = ""  # the name of the one partition of rows that lie in no folders


@dataclass(frozen=True)
class Partition:
    """One folder of scores."""

    name: str
    rows: int
    flagged: int = 0
    scores: Shift | None = None  # None: too few rows to tell
    columns: Mapping[str, Shift] | None = None  # those that moved

    withheld: bool = False  # its scores moved upwards: its p-values say nothing about single rows
    weighted: Weighted | None = None  # its own p-values, where they were asked for and its columns moved

    def facts(self) -> dict[str, Any]:
        """For a manifest."""
        found: dict[str, Any] = {"rows": self.rows, "flagged": self.flagged}
        if self.scores is not None:
            found["scores"] = _brief(self.scores)
        if self.columns:
            found["columns"] = {name: _brief(shift) for name, shift in self.columns.items()}
        if self.weighted is not None:
            found["weighted"] = self.weighted.p_values is not None
            found["effective_rows"] = round(self.weighted.effective, 1)
        return found | ({"withheld": True} if self.withheld else {})


def folder_of_file(file: str) -> str:
    """Of a data file's name in a record, such as data/month=1/part-00000-....parquet."""
    return posixpath.dirname(file).removeprefix(DATA).strip("/")


def totals_of(sink: Sink) -> dict[str, Totals]:
    """The tallies of the committed shards by partition, from one reading of their records."""
    totals: dict[str, Totals] = {}
    for record in sink.records():
        totals.setdefault(folder_of_file(record["file"]), Totals()).add(record)
    return totals


def partitions(
    totals: Mapping[str, Totals],
    profile: Profile | None,
    withhold: bool,
    weighted: Mapping[str, Weighted] | None = None,
) -> dict[str, Partition]:
    """All partitions by name, each held against the held-out rows of the training.

    withhold  whether those whose scores moved upwards are kept out of the list of anomalies
    weighted  partitions with p-values of their own: scores moved as little as the calibration says that explains them
              better
    """
    tests = len(totals)
    found = {}
    for name, total in sorted(totals.items()):
        own = (weighted or {}).get(name)
        scores = _scores(total, own)
        keys = keys_of(f"{name}/")  # one value each, whatever the training had
        counts = {column: counts for column, counts in total.columns().items() if column not in keys}
        columns = profile.shifts(counts) if profile else {}
        moved = scores is not None and scores.moved(tests)
        found[name] = Partition(
            name,
            total.rows,
            scores=scores if moved else None,
            columns={c: s for c, s in columns.items() if s.moved(tests * len(columns))},
            withheld=bool(withhold and moved and scores and scores.upwards and scores.size >= WITHHELD),
            weighted=own,
        )
    return found


def _scores(total: Totals, own: Weighted | None) -> Shift | None:
    found = [score_shift(total.arrays["p"], total.last["ranks"] - 1)] if "p" in total.arrays else []
    weighted = None if own is None else own.histogram()
    if own is not None and weighted is not None:
        found.append(score_shift(weighted, int(own.effective)))
    known = [shift for shift in found if shift is not None]
    return min(known, key=lambda shift: shift.size, default=None)


def with_flagged(found: Mapping[str, Partition], flagged: Mapping[str, int]) -> list[Partition]:
    """The same with the number of flagged rows of each."""
    return [replace(one, flagged=flagged.get(name, 0)) for name, one in found.items()]


def drift_facts(found: list[Partition]) -> dict[str, Any]:
    """For a manifest and the last line of standard output."""
    moved = [one for one in found if one.scores is not None or one.columns]
    own = [one.weighted for one in found if one.weighted is not None]
    return {
        "moved_partitions": len(moved),
        "withheld_partitions": sum(one.withheld for one in found),
        "withheld_rows": sum(one.rows for one in found if one.withheld),
        **({} if not own else {"weighted_partitions": sum(one.p_values is not None for one in own)}),
    }


def histogram(totals: Mapping[str, Totals]) -> dict[str, Any] | None:
    """The scores of all rows beside those of the held-out rows; None when there are no rows."""
    counted = [total for total in totals.values() if "scores" in total.arrays]
    if not counted:
        return None
    last, rows = counted[-1].last, np.sum([total.arrays["scores"] for total in counted], axis=0)
    low, high = last["score_range"]
    return {
        "edges": np.linspace(low, high, len(rows) + 1),
        "rows": rows,
        "held_out": np.asarray(last["held_out_scores"]),
        "unit": last["unit"],
    }


def _brief(shift: Shift) -> dict[str, Any]:
    return {"shift": round(shift.size, 4), "p": shift.p, **({"upwards": True} if shift.upwards else {})}
