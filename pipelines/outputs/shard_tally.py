"""What a shard's record says of its rows as a whole: histograms, from which drift and the report are made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from genai_core import catalog
from genai_core.drift import p_histogram

if TYPE_CHECKING:
    from genai_core.fitted import FittedModel

SCORE_BINS = 60


class Tally:
    """Counts of one shard; those of several add up."""

    def __init__(self, model: FittedModel, score: str) -> None:
        self.profile, self.unit = model.profile, str(catalog.score(score).UNIT)
        held_out = model.calibrations[score].scores
        self.edges = score_edges(held_out)
        self.held_out = np.histogram(np.clip(held_out, self.edges[0], self.edges[-1]), self.edges)[0]
        self.counts: Counter[str] = Counter()
        self.arrays: dict[str, np.ndarray] = {}

    def add(self, scores: np.ndarray, p_values: np.ndarray, tokens: np.ndarray) -> None:
        """Of readable rows; tokens are those of a table, else whatever."""
        inside = np.clip(np.nan_to_num(scores, nan=np.inf), self.edges[0], self.edges[-1])
        found = {"p": p_histogram(p_values), "scores": np.histogram(inside, self.edges)[0]}
        if self.profile is not None:
            found |= {f"column {name}": counts for name, counts in self.profile.count(tokens).items()}
        for name, counts in found.items():
            self.arrays[name] = self.arrays[name] + counts if name in self.arrays else counts

    def facts(self) -> dict[str, Any]:
        """For the shard's record; see `Totals`."""
        ends = [float(self.edges[0]), float(self.edges[-1])]
        return {
            "tally": {name: counts.tolist() for name, counts in self.arrays.items()},
            "score_range": ends,
            "held_out_scores": self.held_out.tolist(),
            "unit": self.unit,
        }


def score_edges(held_out: np.ndarray) -> np.ndarray:
    """Of the bins of scores: those of normal rows take half of them; the last bins hold what is beyond."""
    low, high = (float(held_out[0]), float(held_out[-1])) if len(held_out) else (0.0, 0.0)
    width = (high - low) or 1.0
    return np.linspace(low - width / 4, high + 3 * width / 4, SCORE_BINS + 1)


class Totals:
    """Sums of the tallies of some shards; `last` is the last record, which says of the model what all say."""

    def __init__(self) -> None:
        self.rows = 0
        self.arrays: dict[str, np.ndarray] = {}
        self.last: Mapping[str, Any] = {}

    def add(self, record: Mapping[str, Any]) -> None:
        """A shard's record."""
        self.last = record
        self.rows += record["rows"]
        for name, counts in record.get("tally", {}).items():
            self.arrays[name] = self.arrays.get(name, 0) + np.asarray(counts, np.int64)

    def columns(self) -> dict[str, np.ndarray]:
        """Column -> rows by bucket."""
        return {n.removeprefix("column "): c for n, c in self.arrays.items() if n.startswith("column ")}
