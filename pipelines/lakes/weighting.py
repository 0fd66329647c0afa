"""p-values of partitions whose columns moved, from held-out rows weighted until they look like the partition.

A shard's p-values are those of the plain calibration. What a partition looks like is known when its last shard is done;
then every p-value has one other that it stands for: how many held-out rows reach a score does not change, what they
weigh does. See `genai_core.covariate_shift`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from genai_core.calibration import Calibration, reaching
from genai_core.covariate_shift import LEAST_EFFECTIVE, effective_rows, raked
from genai_core.drift import BINS, Profile
from genai_core.errors import MissingCapability
from pipelines.lakes.partitions import folder_of_file
from pipelines.outputs.shard_tally import Totals
from pipelines.outputs.sink import Sink
from pipelines.scoring.anomalies import batches_of
from pipelines.scoring.scored_rows import P_VALUE


@dataclass(frozen=True)
class Weighted:
    """What stands in for the p-values of a partition.

    effective  how many of the held-out rows the weighted ones are worth
    p_values   by how many held-out scores reach a row's, ascending (held out + 1,); None: too few are like it
    counts     of rows, likewise
    """

    effective: float
    p_values: np.ndarray | None = None
    counts: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    def instead(self, p_values: np.ndarray) -> np.ndarray:
        """Of rows with these plain p-values; NaN stays."""
        if self.p_values is None:
            return p_values
        known = ~np.isnan(p_values)
        found = np.full(len(p_values), np.nan)
        found[known] = self.p_values[reaching(p_values[known], len(self.p_values) - 1)]
        return found

    def histogram(self) -> np.ndarray | None:
        """Of the p-values, as `drift.p_histogram` gives it."""
        if self.p_values is None:
            return None
        bins = np.clip(np.ceil(self.p_values * BINS).astype(int) - 1, 0, BINS - 1)
        return np.bincount(bins, weights=self.counts, minlength=BINS).astype(np.int64)


def weigh(
    sink: Sink, totals: Mapping[str, Totals], profile: Profile | None, calibration: Calibration
) -> dict[str, Weighted]:
    """Of every partition whose columns moved. MissingCapability for a model that keeps no held-out rows."""
    if profile is None or profile.rows is None:
        raise MissingCapability(
            "this model keeps no held-out rows that could be weighted (calibration: weighted); train it again, or "
            "ask for calibration: plain"
        )
    rows = profile.rows[-len(calibration) :]
    found: dict[str, Weighted] = {}
    for name, total in totals.items():
        counts = total.columns()
        shifts = profile.shifts(counts)
        if not any(shift.moved(len(totals) * len(shifts)) for shift in shifts.values()):
            continue
        weights = raked(rows, [counts[column] for column in profile.names])
        effective = effective_rows(weights)
        if effective < LEAST_EFFECTIVE:
            found[name] = Weighted(effective)
        else:
            found[name] = Weighted(
                effective, calibration.weighted(weights), np.zeros(len(rows) + 1, np.int64)
            )
    _count(sink, found)
    return found


def _count(sink: Sink, found: Mapping[str, Weighted]) -> None:
    """How many rows of the weighted partitions each number of held-out scores reaches."""
    for file in (record["file"] for record in sink.records()):
        one = found.get(folder_of_file(file))
        if one is None or one.p_values is None:
            continue
        for _, batch in batches_of(sink, file, [P_VALUE]):
            p_values = batch.column(0).to_numpy(zero_copy_only=False)
            reached = reaching(p_values[~np.isnan(p_values)], len(one.counts) - 1)
            one.counts[:] += np.bincount(reached, minlength=len(one.counts))
