"""A fitted model: codec, network, calibration and provenance together; what users and pipelines work with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from genai_core import catalog
from genai_core.calibration import Calibration
from genai_core.codec import Codec
from genai_core.conditions import Where
from genai_core.errors import InvalidInput, MissingCapability, nearest
from genai_core.loop import seed_of
from genai_core.model import Model, capabilities
from genai_core.spaces import Records

SAMPLE_BATCH = 2048  # rows drawn together: fixed, so that the same seed gives the same bytes everywhere
SCORE_BATCH = (
    512  # rows scored together, the last batch padded: a row's score never depends on its neighbours
)


@dataclass
class Scored:
    """Scores of a table, higher = more anomalous.

    totals      score name -> float64 (rows,)
    per_column  score name -> float32 (rows, columns), the columns' shares; absent where a score has none
    columns     names for axis 1
    """

    totals: dict[str, np.ndarray]
    per_column: dict[str, np.ndarray]
    columns: tuple[str, ...]


@dataclass(eq=False)
class FittedModel:
    """Samples tables, gives log-likelihoods and calibrated anomaly scores, as far as its family can."""

    kind: str
    modality: str
    codec: Codec
    model: Model
    calibrations: dict[str, Calibration] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    digest: str | None = None

    @property
    def schema(self) -> pa.Schema:
        """The schema of the training table without excluded columns."""
        return self.codec.schema

    @property
    def capabilities(self) -> tuple[str, ...]:
        """Sorted: what this model can do."""
        return capabilities(self.model)

    @property
    def bound(self) -> str | None:
        """'exact' or 'lower' when there is a likelihood."""
        return getattr(self.model, "bound", None)

    @property
    def score_names(self) -> tuple[str, ...]:
        """The scores that this model can give; the first is the default."""
        return catalog.FAMILIES[self.kind].scores

    def check_schema(self, schema: pa.Schema) -> None:
        """Raise SchemaMismatch unless tables of `schema` can be read."""
        self.codec.check_schema(schema)

    def check_where(self, where: Mapping[str, Any] | None) -> None:
        """Raise InvalidInput unless the conditions can be met."""
        if where:
            Where(self.codec, self._conditional(where))

    def _conditional(self, where: Mapping[str, Any]) -> Mapping[str, Any]:
        if self.kind != "autoregressive":
            raise MissingCapability(
                f"this {self.kind} model cannot be conditioned (where: {sorted(where)}); "
                "train an autoregressive model for conditional sampling"
            )
        return where

    def sample(
        self, rows: int, *, seed: int = 0, where: Mapping[str, Any] | None = None, temperature: float = 1.0
    ) -> pa.Table:
        """Draw `rows` records as a table of exactly `schema`; the same arguments give the same table.

        where: column -> value, or list of values; every row fulfils it, the rest is drawn given it.
        """
        if rows < 0:
            raise InvalidInput(f"found rows = {rows}; accepted is 0 or more")
        given = Where(self.codec, self._conditional(where)) if where else None
        options: dict[str, Any] = {} if temperature == 1.0 else {"temperature": temperature}
        if options and self.kind != "autoregressive":
            raise MissingCapability(f"this {self.kind} model has no sampling temperature")
        parts = []
        for number in range(-(-rows // SAMPLE_BATCH)):
            generator = torch.Generator().manual_seed(seed_of(seed, "draw", number))
            with torch.inference_mode():
                conditions = given.conditions if given else ()
                x = self.model.sample(SAMPLE_BATCH, generator, conditions, **options)  # type: ignore[operator]
            random = np.random.default_rng(seed_of(seed, "place", number))
            # whole batches are decoded and then cut: the first rows are the same however many are asked for
            table = self.codec.decode(x.numpy(), random)
            table = given.write(table, x.numpy(), random) if given else table
            parts.append(table.slice(0, rows - number * SAMPLE_BATCH))
        return pa.concat_tables(parts).combine_chunks() if parts else self.schema.empty_table()

    def check_scores(self, names: Sequence[str]) -> None:
        """Raise MissingCapability for a score that the model cannot give, saying what it can."""
        for name in names:
            if name not in self.score_names:
                raise MissingCapability(
                    f"this {self.kind} model cannot give the score {name!r}{nearest(name, self.score_names)}; "
                    f"it can give: {', '.join(self.score_names)}"
                )

    def score(self, table: pa.Table, names: Sequence[str] | None = None) -> Scored:
        """Score every row; names: the family's first by default. Unseen and missing values are scored, not refused."""
        return self.score_records(self.codec.encode(table), names)

    def score_records(self, records: Records, names: Sequence[str] | None = None) -> Scored:
        """The same for encoded records."""
        names = list(names or self.score_names[:1])
        self.check_scores(names)
        tokens = torch.from_numpy(records.tokens.astype(np.int64))
        measures = torch.from_numpy(records.log_measure)
        parts: dict[str, list[torch.Tensor]] = {name: [] for name in names}
        with torch.inference_mode():
            for start in range(0, len(tokens), SCORE_BATCH):
                x, measure = tokens[start : start + SCORE_BATCH], measures[start : start + SCORE_BATCH]
                for name in names:
                    parts[name].append(self._score_batch(name, x, measure))
        return self._collect(parts)

    def _score_batch(self, name: str, x: torch.Tensor, measure: torch.Tensor) -> torch.Tensor:
        short = SCORE_BATCH - len(x)
        if short:
            x, measure = (
                torch.cat([x, x[:1].expand(short, -1)]),
                torch.cat([measure, measure[:1].expand(short, -1)]),
            )
        return catalog.score(name).score(self.model, x, measure)[: SCORE_BATCH - short]

    def _collect(self, parts: dict[str, list[torch.Tensor]]) -> Scored:
        totals, shares = {}, {}
        for name, found in parts.items():
            values = torch.cat(found).numpy() if found else np.zeros((0, len(self.schema.names)), np.float32)
            totals[name] = values.astype(np.float64).sum(1) if values.ndim == 2 else values.astype(np.float64)
            if values.ndim == 2:
                shares[name] = values
        return Scored(totals, shares, tuple(self.codec.space.fields))

    def calibrate(self, held_out: Records) -> None:
        """Learn the distribution of every score from records that were not trained on."""
        scored = self.score_records(held_out, self.score_names)
        self.calibrations = {name: Calibration.fit(values) for name, values in scored.totals.items()}

    def calibration_size(self, name: str) -> int:
        """Number of held-out scores behind the p-values; the smallest p-value is 1 / (size + 1)."""
        return len(self.calibrations[name]) if name in self.calibrations else 0

    def p_values(self, name: str, values: np.ndarray) -> np.ndarray:
        """Split-conformal p-values of scores, float64."""
        if name not in self.calibrations:
            raise MissingCapability(f"the model holds no calibration for the score {name!r}; train it again")
        return self.calibrations[name].p_values(values)

    def log_prob(self, table: pa.Table) -> np.ndarray:
        """Log-likelihood in nats (a lower bound for VAEs), float64 (rows,)."""
        if "log_prob" not in self.capabilities:
            raise MissingCapability(f"this {self.kind} model is implicit: it has no likelihood")
        return -self.score(table, ["negative_log_likelihood"]).totals["negative_log_likelihood"]

    def save(self, directory: Any) -> str:
        """Write the artifact directory; returns its digest."""
        from genai_core import artifact

        return artifact.save(self, directory)
