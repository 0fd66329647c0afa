"""A fitted model: codec, network, calibration and provenance together; what users and pipelines work with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from genai_core import catalog
from genai_core.calibration import Calibration, kept
from genai_core.codec import Codec
from genai_core.drift import Profile
from genai_core.errors import InvalidInput, MissingCapability, nearest
from genai_core.folds import folds_of, out_of_fold
from genai_core.model import Model, capabilities
from genai_core.spaces import Records, Tokens, alike
from genai_core.splits import seed_of
from genai_core.tables.conditions import check_sampling, conditions_of, sharpening
from genai_core.watermark import KeyedGenerator, Watermark
from genai_core.watermark import check as check_watermark

ENOUGH = 0.5  # effort from which on small tables are worth several fits


@dataclass
class Scored:
    """Scores of a table, higher = more anomalous.

    totals      score name -> float64 (rows,); NaN for rows that could not be read
    per_column  score name -> float32 (rows, columns), the columns' shares; absent where a score has none
    columns     names for axis 1
    faults      row -> why it could not be read
    entries     float32 (rows, entries), what each entry adds to the score asked for; None where that costs a pass of
                its own, see `FittedModel.entries`
    """

    totals: dict[str, np.ndarray]
    per_column: dict[str, np.ndarray]
    columns: tuple[str, ...]
    faults: Mapping[int, str]
    entries: np.ndarray | None = None


@dataclass(eq=False)
class FittedModel:
    """Samples tables, gives log-likelihoods and calibrated anomaly scores, as far as its family can."""

    kind: str
    modality: str
    codec: Codec
    model: Model
    calibrations: dict[str, Calibration] = field(default_factory=dict)
    score_states: dict[str, dict[str, torch.Tensor]] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    digest: str | None = None
    profile: Profile | None = None  # of a table's columns

    @property
    def schema(self) -> pa.Schema:
        """The schema of the training table without excluded columns."""
        return self.codec.schema

    @property
    def written(self) -> pa.Schema:
        """The schema of drawn rows: `schema` with the columns that are made and not learnt."""
        written: pa.Schema = getattr(self.codec, "written", self.schema)
        return written

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
        return catalog.scores_of(self.kind, self.modality, "privacy" in self.provenance)

    def check_schema(self, schema: pa.Schema) -> None:
        """Raise SchemaMismatch unless tables of `schema` can be read."""
        self.codec.check_schema(schema)

    def check_where(self, where: Mapping[str, Any] | None, prompt: str | None = None) -> None:
        """Raise InvalidInput unless the conditions can be met."""
        if where or prompt is not None:
            check_sampling(self.kind, self.modality, where or {}, prompt)
            conditions_of(self.codec, where or {}, prompt)

    def sample(
        self,
        rows: int,
        *,
        seed: int = 0,
        where: Mapping[str, Any] | None = None,
        prompt: str | None = None,
        temperature: float | Mapping[str, float] = 1.0,
        top_p: float | Mapping[str, float] = 1.0,
        balance: Mapping[str, Mapping[Any, float]] | None = None,
        first: int = 0,
        watermark: Watermark | None = None,
    ) -> pa.Table:
        """Draw `rows` records as a table of exactly `written`; the same arguments give the same table.

        where   column -> value, list of values, or {min, max, not, missing}; every row fulfils it, the rest is drawn
                given it
        prompt  what every text starts with
        top_p   draw each entry from its most probable values only, which hold this much of the probability; this and
                the temperature are one number, or column -> number
        balance  column -> {value: share of the rows}; other values share the rest in proportion
        first   number of the first row in a larger output: columns that are made go on from there
        watermark  the key by which the rows can be told from others, see genai_core.watermark
        """
        if rows < 0:
            raise InvalidInput(f"found rows = {rows}; accepted is 0 or more")
        check_sampling(self.kind, self.modality, where or {}, prompt, temperature, top_p, balance=balance)
        self.check_samples()
        if watermark is not None:
            check_watermark(self.kind, self.modality)
        given = conditions_of(self.codec, where or {}, prompt, balance)
        options = sharpening(self.codec, temperature, top_p) if self.kind == "autoregressive" else {}
        together = self.codec.space.batches.draw
        parts = []
        for number in range(-(-rows // together)):
            generator = KeyedGenerator.of(watermark, self.codec.space) if watermark else torch.Generator()
            generator.manual_seed(seed_of(seed, "draw", number))
            with torch.inference_mode():
                conditions = given.conditions if given else ()
                x = self.model.sample(together, generator, conditions, **options)  # type: ignore[operator]
            random = np.random.default_rng(seed_of(seed, "place", number))
            # whole batches are decoded and then cut: the first rows are the same however many are asked for
            table = self.codec.decode(x.numpy(), random)
            table = given.write(table, x.numpy(), random) if given else table
            parts.append(table.slice(0, rows - number * together))
        table = pa.concat_tables(parts).combine_chunks() if parts else self.schema.empty_table()
        complete = getattr(self.codec, "complete", None)  # of tables
        return complete(table, seed, first) if complete else table

    def sample_given(
        self,
        table: pa.Table,
        *,
        temperature: float | Mapping[str, float] = 1.0,
        top_p: float | Mapping[str, float] = 1.0,
        **options: Any,
    ) -> pa.Table:
        """For every row of a table the columns that it does not have: see `genai_core.completion.sample_given`."""
        from genai_core.completion import sample_given

        return sample_given(self, table, **sharpening(self.codec, temperature, top_p), **options)

    def impute(self, table: pa.Table, **options: Any) -> pa.Table:
        """A table with its missing cells drawn given the others: see `genai_core.completion.impute`."""
        from genai_core.completion import impute

        return impute(self, table, **options)

    def check_samples(self) -> None:
        """Raise MissingCapability when the family does not sample."""
        if "samples" not in self.capabilities:
            raise MissingCapability(
                f"this {self.kind} model does not sample; it can give: {', '.join(self.capabilities)}"
            )

    def translate(self, table: pa.Table, to: str | bool | int) -> tuple[pa.Table, Mapping[int, str]]:
        """Every record as it would look in the domain `to`; and the rows that could not be read, with the reason.

        Unreadable rows are nulls, unreadable tensors zeros: pyarrow does not read null ones back from Parquet.
        Raises MissingCapability, and InvalidInput for a domain that the model does not know.
        """
        if "translates" not in self.capabilities:
            raise MissingCapability(f"this {self.kind} model does not translate; a cyclegan does")
        (condition,) = self.codec.given({self.schema.names[-1]: to}).conditions
        domain = int(condition.allowed[0].long().argmax())
        records = self.codec.encode(table)
        with torch.inference_mode():
            parts = [
                self.model.translate(x, domain)[: len(at)]  # type: ignore[operator]
                for x, _, at in self._batches(records)
            ]
        found = torch.cat(parts).numpy() if parts else np.zeros((0, records.tokens.shape[1]), np.int64)
        found[list(records.faults)] = 0
        made = self.codec.decode(found, np.random.default_rng(0))
        if records.faults:
            keep = pa.array(records.readable())
            nullable = [name for name in made.column_names if not _is_tensor(made[name].type)]
            for name in nullable:
                nulls = pc.if_else(keep, made[name], pa.scalar(None, made[name].type))
                made = made.set_column(made.column_names.index(name), name, nulls)
        return made, records.faults

    def check_scores(self, names: Sequence[str]) -> None:
        """Raise MissingCapability for a score that the model cannot give, saying what it can."""
        for name in names:
            if name not in self.score_names:
                raise MissingCapability(
                    f"this {self.kind} model cannot give the score {name!r}{nearest(name, self.score_names)}; "
                    f"it can give: {', '.join(self.score_names)}"
                )

    def score(
        self, table: pa.Table, names: Sequence[str] | None = None, entries_of: str | None = None
    ) -> Scored:
        """Score every row; names: the family's first by default. Unseen and missing values are scored, not refused.

        entries_of  one of the names, for which `Scored.entries` is wanted too
        """
        return self.score_records(self.codec.encode(table), names, entries_of)

    def score_records(
        self, records: Records, names: Sequence[str] | None = None, entries_of: str | None = None
    ) -> Scored:
        """The same for encoded records."""
        names = list(names or self.score_names[:1])
        self.check_scores(names)
        parts: dict[str, list[torch.Tensor]] = {name: [] for name in names}
        entries: list[torch.Tensor] = []
        order = [np.zeros(0, np.int64)]
        with torch.inference_mode():
            for x, measure, at in self._batches(records):
                order.append(at)
                for name in names:
                    module, state = catalog.score(name), self._score_state(name)
                    if name == entries_of and hasattr(module, "from_entries"):
                        found = module.entries(self.model, x, state)
                        entries.append(found[: len(at)])
                        parts[name].append(module.from_entries(self.model, x, found, measure)[: len(at)])
                    else:
                        parts[name].append(module.score(self.model, x, measure, state)[: len(at)])
        scored = self._collect(parts, order, records.faults)
        return replace(scored, entries=_in_order(entries, order).astype(np.float32)) if entries else scored

    def entries(self, table: pa.Table, name: str) -> np.ndarray | None:
        """What every entry of a record adds to a score, float32 (rows, entries); None for scores that cannot tell."""
        module = catalog.score(name)
        if not hasattr(module, "entries"):
            return None
        records, state = self.codec.encode(table), self._score_state(name)
        with torch.inference_mode():
            parts = [
                (module.entries(self.model, x, state)[: len(at)], at) for x, _, at in self._batches(records)
            ]
        if not parts:
            return np.zeros(records.tokens.shape, np.float32)
        return _in_order(*zip(*parts, strict=True)).astype(np.float32)

    def expected(self, table: pa.Table, names: Sequence[str]) -> dict[str, pa.Array]:
        """What each of the columns would hold, given all others: the middle of its distribution, or its mode.

        Empty for models that cannot tell: they need exact conditionals in any order.
        """
        network: Any = getattr(self.model, "network", None)
        if not hasattr(network, "expected") or not table.num_rows:
            return {}
        fields = [self.schema.names.index(name) for name in names]
        with torch.inference_mode():
            batches = self._batches(self.codec.encode(table))
            parts = [network.expected(x, fields)[: len(at)] for x, _, at in batches]
        return self.codec.decode_columns(torch.cat(parts).numpy(), fields)  # type: ignore[attr-defined]

    def _batches(self, records: Records) -> Iterator[tuple[torch.Tensor, torch.Tensor, np.ndarray]]:
        """Records, measures and the numbers of their rows: a group's last batch is padded to the size of the others."""
        together = self.codec.space.batches.score
        for group in alike(self.codec.space, records.tokens):
            for start in range(0, len(group), together):
                at = group[start : start + together]
                padded = np.concatenate([at, np.repeat(at[:1], together - len(at))])
                x = torch.from_numpy(records.tokens[padded].astype(np.int64))
                yield x, torch.from_numpy(records.log_measure[padded]), at

    def _collect(
        self, parts: dict[str, list[torch.Tensor]], order: list[np.ndarray], faults: Mapping[int, str]
    ) -> Scored:
        totals, shares = {}, {}
        for name, found in parts.items():
            values = _in_order(found, order) if found else np.zeros((0, len(self.schema.names)), np.float32)
            totals[name] = values.astype(np.float64).sum(1) if values.ndim == 2 else values.astype(np.float64)
            if values.ndim == 2:
                shares[name] = values
            totals[name][list(faults)] = np.nan
        return Scored(totals, shares, tuple(self.codec.space.fields), faults)

    def _score_state(self, name: str) -> dict[str, torch.Tensor]:
        return self.score_states.get(getattr(catalog.score(name), "STATE_OF", name), {})

    def fit_scores(self, sample: np.ndarray, held_out: Records, seed: int, effort: float = 1.0) -> None:
        """Fit the scores that keep something of the training data, and learn how every score is distributed.

        sample    of the training records (rows, entries)
        held_out  records that were not trained on
        effort    share of its own training that a score gets, above 0 up to 1
        """
        by_folds: dict[str, np.ndarray] = {}
        for name in self.score_names:
            module = catalog.score(name)
            if not hasattr(module, "fit"):
                continue
            generator = torch.Generator().manual_seed(seed_of(seed, "score", name))
            foldable = hasattr(module, "fit_by_folds") and effort >= ENOUGH and module.can_fold(self.model)
            folds = folds_of(len(sample) + len(held_out), generator) if foldable else None
            if folds is None:
                self._fit_score(name, sample, held_out, generator, effort)
            else:
                by_folds |= self._fit_by_folds(name, sample, held_out, folds, generator, effort)
        others = [name for name in self.score_names if name not in by_folds]
        totals = by_folds | self.score_records(held_out, others).totals if others else by_folds
        self.calibrations = {name: Calibration.fit(totals[name]) for name in self.score_names}
        if isinstance(self.codec.space, Tokens):
            calibrating = np.concatenate([sample, held_out.tokens]) if by_folds else kept(held_out.tokens)
            self.profile = Profile.fit(self.codec.space, held_out.tokens, calibrating)

    def _fit_score(
        self, name: str, sample: np.ndarray, held_out: Records, generator: torch.Generator, effort: float
    ) -> None:
        module = catalog.score(name)
        with torch.no_grad():
            x = torch.from_numpy(sample.astype(np.int64))
            self.score_states[name] = module.fit(self.model, x, generator, effort)
        if hasattr(module, "calibrate"):
            with torch.inference_mode():
                x = torch.from_numpy(held_out.tokens.astype(np.int64))
                measure = torch.from_numpy(held_out.log_measure)
                self.score_states[name] |= module.calibrate(self.model, x, measure, self.score_states[name])

    def _fit_by_folds(
        self,
        name: str,
        sample: np.ndarray,
        held_out: Records,
        folds: torch.Tensor,
        generator: torch.Generator,
        effort: float,
    ) -> dict[str, np.ndarray]:
        """Totals of all records by what was fitted without their fold, for this score and those that read its state."""
        module = catalog.score(name)
        x = torch.from_numpy(np.concatenate([sample, held_out.tokens]).astype(np.int64))
        measure = torch.zeros(len(x), held_out.log_measure.shape[1])
        measure[len(sample) :] = torch.from_numpy(held_out.log_measure)
        with torch.no_grad():
            state = module.fit_by_folds(self.model, x, folds, generator, effort)
        with torch.inference_mode():
            state |= module.calibrate(self.model, x, measure, state, folds)
            self.score_states[name] = state
            readers = [n for n in self.score_names if getattr(catalog.score(n), "STATE_OF", n) == name]

            def scored(own: Mapping[str, torch.Tensor], rows: torch.Tensor) -> torch.Tensor:
                found = [catalog.score(n).score(self.model, x[rows], measure[rows], own) for n in readers]
                return torch.stack([values.double().sum(1) for values in found], 1)

            totals = out_of_fold(state, folds, scored).numpy()
        return dict(zip(readers, totals.T, strict=True))

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


def _in_order(parts: Sequence[torch.Tensor], order: Sequence[np.ndarray]) -> np.ndarray:
    """Parts put together, each of their rows at its number."""
    values = torch.cat(list(parts)).numpy()
    out = np.empty_like(values)
    out[np.concatenate(order)] = values
    return out


def _is_tensor(kind: pa.DataType) -> bool:
    return pa.types.is_fixed_size_list(getattr(kind, "storage_type", kind))
