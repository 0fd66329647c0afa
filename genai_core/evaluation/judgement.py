"""Evaluation: synthetic records beside real ones, in fidelity, diversity, utility and privacy, every figure with its
95 % interval and with the same figure for real records that were not trained on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from genai_core.errors import InvalidData
from genai_core.evaluation.attacks import Attacks, distance_attacks, likelihood_attack, singling_out
from genai_core.evaluation.coding import CodedColumn, code_tables
from genai_core.evaluation.fidelity import binned, column_shape, trends_of
from genai_core.evaluation.frechet import frechet_distance, kernel_distance
from genai_core.evaluation.histograms import Clusters, HistogramTest, as_dict, of_columns
from genai_core.evaluation.house_features import HouseFeatures
from genai_core.evaluation.intervals import Estimate, bootstrapped, mean, normal, share
from genai_core.evaluation.manifold import manifold
from genai_core.evaluation.measures import Evaluation, Measure
from genai_core.evaluation.neighbours import nearest
from genai_core.evaluation.pictures_of_columns import drawn_columns, drawn_pairs
from genai_core.evaluation.privacy import CopyCounter
from genai_core.evaluation.train_on_synthetic import train_on_synthetic
from genai_core.evaluation.two_sample import classifier_two_sample_test, features_two_sample_test

if TYPE_CHECKING:
    from genai_core.fitted import FittedModel

LEAST = 50  # rows of a table
NEIGHBOURS = 4_000  # rows among which balls are laid
SEARCHED = 10_000  # rows of each kind whose closest ones are looked for
LIKELIHOODS = 5_000  # rows of each kind
BLOCKS = 10
EXPLAINED = 8
SAME = 1e-2  # of the usual distance, up to which two pictures, sounds or texts are one


def evaluate(
    real: pa.Table,
    holdout: pa.Table,
    synthetic: pa.Table,
    *,
    modality: str = "tabular",
    column: str | None = None,
    columns: Sequence[str] | None = None,
    target: str | None = None,
    model: FittedModel | None = None,
    all_real: Iterable[pa.Table] | None = None,
    rows: int = 20_000,
    seed: int = 0,
) -> Evaluation:
    """Judge `synthetic` records by those that a model was trained on, and by others like them.

    real      records of the training data, or a random sample of them
    holdout   real records that nothing was trained on; they also are the real row beside every figure
    column    of pictures, sounds and texts: where they are; of tables None
    columns   of tables: those to compare; default: all of `real`
    target    a column to predict: how much synthetic rows teach about it
    model     the model that made them: an attack with its likelihoods
    all_real  all training records, piece by piece, among which copies are looked for; default: `real`
    rows      compared at most; a figure's `rows` says from how many it is

    Deterministic by seed. Raises InvalidData (too few rows, nested columns) and SchemaMismatch (columns that differ).
    """
    for name, table in (("real", real), ("holdout", holdout), ("synthetic", synthetic)):
        if table.num_rows < LEAST:
            raise InvalidData(
                f"{name}: found {table.num_rows} row(s); at least {LEAST} are needed to compare"
            )
    names = [column] if column is not None else list(columns or real.column_names)
    if target is not None and target not in names:
        raise InvalidData(f"target: no column {target!r}; there are: {', '.join(names)}")
    judge = _Judge(modality, column, seed)
    first, second, third = (
        _shuffled(table.select(_present(table, names)), seed + i)
        for i, table in enumerate((real, holdout, synthetic))
    )
    judge.look(first, _like(second, first.schema), _like(third, first.schema), rows)
    if column is None:
        judge.rows_of_a_table(rows)
        judge.count_copies([first] if all_real is None else (part.select(names) for part in all_real))
        if target is not None:
            judge.utility(target)
    if model is not None:
        judge.likelihoods(model, real, holdout)
    return judge.done()


def _present(table: pa.Table, names: Sequence[str]) -> list[str]:
    """The columns to compare; what is missing is told of by `code_tables`."""
    return [name for name in names if name in table.column_names]


def _like(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """With the columns in the order of `schema` and of its types, where they can be cast."""
    from genai_core.errors import SchemaMismatch

    missing = [name for name in schema.names if name not in table.column_names]
    if missing:
        raise SchemaMismatch(
            f"the tables to compare differ in their columns: missing {missing}; give all of them the same columns"
        )
    table = table.select(schema.names)
    try:
        return table.cast(pa.schema([field.with_nullable(True) for field in schema]))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return table


def _shuffled(table: pa.Table, seed: int) -> pa.Table:
    order = np.random.default_rng(seed).permutation(table.num_rows)
    return table.take(pa.array(order)).unify_dictionaries().combine_chunks()


class _Judge:
    """One evaluation while it is made."""

    def __init__(self, modality: str, column: str | None, seed: int) -> None:
        self.modality, self.column, self.seed = modality, column, seed
        self.measures: dict[str, Measure] = {}
        self.details: dict[str, Any] = {}
        self.left_out: dict[str, str] = {}
        self.rows: dict[str, int] = {}

    def done(self) -> Evaluation:
        return Evaluation(self.modality, self.rows, self.measures, self.details, self.left_out)

    def add(self, name: str, synthetic: Estimate, real: Estimate | None) -> None:
        self.measures[name] = Measure(synthetic, real)

    def look(self, real: pa.Table, holdout: pa.Table, synthetic: pa.Table, rows: int) -> None:
        """Everything that needs features alone."""
        self.real, self.holdout, self.synthetic = real, holdout, synthetic
        self.rows = {"real": len(real), "holdout": len(holdout), "synthetic": len(synthetic)}
        searched = max(SEARCHED, NEIGHBOURS)
        house = HouseFeatures(self.modality, real.slice(0, rows), self.column, self.seed)
        train, outside, made = (
            house(table.slice(0, most))
            for table, most in ((real, 2 * searched), (holdout, searched), (synthetic, searched))
        )
        if min(len(train), len(outside), len(made)) < LEAST:
            raise InvalidData(
                f"fewer than {LEAST} records of a source can be read; there is nothing to compare"
            )
        self._distances(train, outside, made)
        self._diversity(train, outside, made, real.slice(0, 2 * searched))
        self._attacks(train, outside, made)
        if self.column is not None:
            size = min(len(train), len(outside), len(made))
            area = [features_two_sample_test(train[:size], x[:size], seed=self.seed) for x in (made, outside)]
            self.add("c2st_auc", area[0], area[1])
            self._near_copies(train, outside, made)

    def _distances(self, train: np.ndarray, outside: np.ndarray, made: np.ndarray) -> None:
        size = min(len(train), len(outside), len(made), NEIGHBOURS)
        real, other, own = train[:size].astype(float), outside[:size].astype(float), made[:size].astype(float)
        self.add("frechet", *(self._frechet(x, real) for x in (own, other)))
        self.add("kernel", *(_kernel(x, real) for x in (own, other)))

    def _frechet(self, x: np.ndarray, real: np.ndarray) -> Estimate:
        found = frechet_distance(x, real)
        return bootstrapped(found, lambda rows: frechet_distance(x[rows], real), len(x), self.seed, 12)

    def _diversity(self, train: np.ndarray, outside: np.ndarray, made: np.ndarray, table: pa.Table) -> None:
        size = min(len(train), len(outside), len(made), NEIGHBOURS)
        found, real = (manifold(x[:size], train[:size]) for x in (made, outside))
        for name, estimate in found.items():
            self.add(name, estimate, real[name])
        named = table if self.column is None and len(table) == len(train) else None
        clusters = Clusters(train, named, self.seed)
        self._lost("lost_clusters", clusters.test(made), clusters.test(outside), len(made))

    def _lost(self, name: str, made: HistogramTest, real: HistogramTest, rows: int) -> None:
        by = "Poisson test of each"
        self.add(name, *(Estimate(n, n, n, rows, by) for n in (len(made.lost), len(real.lost))))
        self.details[name] = {"synthetic": as_dict(made), "real": as_dict(real)}

    def _attacks(self, train: np.ndarray, outside: np.ndarray, made: np.ndarray) -> None:
        found: Attacks = distance_attacks(made, train, outside, self.seed)
        for name, estimate in found.synthetic.items():
            self.add(name, estimate, found.real[name])
        self.details |= found.details

    def _near_copies(self, train: np.ndarray, outside: np.ndarray, made: np.ndarray) -> None:
        """Of records that are no rows: the same features as a training record."""
        to_train = nearest(outside, train)
        limit = SAME * float(np.median(to_train))
        found = [share(int((d <= limit).sum()), len(d)) for d in (nearest(made, train), to_train)]
        self.add("copies", *found)

    def rows_of_a_table(self, rows: int) -> None:
        """Column by column: classifier, shapes, trends, categories, singling out."""
        size = min(rows, len(self.real), len(self.holdout), len(self.synthetic))
        real, other, own = (table.slice(0, size) for table in (self.real, self.holdout, self.synthetic))
        columns, others = code_tables(real, own), code_tables(real, other)
        test = classifier_two_sample_test(columns, seed=self.seed, explain=EXPLAINED)
        self.add("c2st_auc", test.area, classifier_two_sample_test(others, seed=self.seed).area)
        self.details["giveaways"] = [
            {"column": one.column, "auc_drop": round(one.auc_drop, 5)} for one in test.giveaways
        ]
        self.add("column_shapes", *(self._over_rows(side, _mean_shape) for side in (columns, others)))
        if len(columns) > 1:
            self.add("pair_trends", *(self._over_rows(side, _mean_trend) for side in (columns, others)))
            self.details["pairs"] = drawn_pairs(columns, others)
        self.details["columns"] = drawn_columns(columns, real)
        self._lost("lost_categories", of_columns(columns, real), of_columns(others, real), size)
        hidden, control, predicates = singling_out(columns, code_tables(other, own), self.seed)
        if predicates:
            self.add("singling_out", hidden, control)
        else:
            self.left_out["singling_out"] = "no predicate singles out a synthetic row"

    def _over_rows(self, columns: Sequence[CodedColumn], measure: Any) -> Estimate:
        """A mean over columns or pairs, with the rows of both samples resampled together."""
        prepared = [(binned(c), c) for c in columns]
        value, size = measure(prepared, None), len(columns[0].second)
        return bootstrapped(value, lambda rows: measure(prepared, rows), size, self.seed, 12)

    def count_copies(self, parts: Iterable[pa.Table]) -> None:
        """Exact copies, among all training rows."""
        tables = {"synthetic": self.synthetic, "holdout": self.holdout}
        counter = CopyCounter(tables)
        for part in parts:
            counter.see(_like(part, self.real.schema))
        shares = counter.shares()
        self.add("copies", share(*shares["synthetic"]), share(*shares["holdout"]))
        self.details["searched"] = counter.searched

    def utility(self, target: str) -> None:
        """Train on synthetic, test on real; and train on real."""
        made, real, name = train_on_synthetic(self.real, self.synthetic, self.holdout, target, self.seed)
        self.add("utility", made, real)
        self.details["utility"] = {"target": target, "measure": name}

    def likelihoods(self, model: FittedModel, real: pa.Table, holdout: pa.Table) -> None:
        """Training against held-out rows, by somebody who has the model."""
        if "log_prob" not in model.capabilities:
            why = f"a {model.kind} model is implicit: it has no likelihood"
            self.left_out |= {"likelihood_gap": why, "likelihood_membership_auc": why}
            return
        size = min(len(real), len(holdout), LIKELIHOODS)
        inside, outside = (
            model.log_prob(_shuffled(table, self.seed).slice(0, size).select(model.schema.names))
            for table in (real, holdout)
        )
        self.add("likelihood_membership_auc", likelihood_attack(inside, outside), None)
        a, b = (mean(x[np.isfinite(x)]) for x in (inside, outside))
        error = float(np.hypot(a.high - a.low, b.high - b.low)) / (2 * 1.959964)
        self.add("likelihood_gap", normal(a.value - b.value, error, 2 * size, "Welch"), None)
        self.details["log_likelihood"] = {"real": a.as_dict(), "holdout": b.as_dict(), "bound": model.bound}


def _kernel(x: np.ndarray, real: np.ndarray) -> Estimate:
    """The spread of blocks of rows says how far the whole may be off (Zaremba, Gretton & Blaschko 2013)."""
    blocks = max(min(BLOCKS, len(x) // 20), 2)
    parts = [
        kernel_distance(a, b)
        for a, b in zip(np.array_split(x, blocks), np.array_split(real, blocks), strict=True)
    ]
    error = float(np.std(parts, ddof=1) / blocks**0.5)
    return normal(kernel_distance(x, real), error, len(x), f"{blocks} blocks")


Prepared = Sequence[tuple[tuple[np.ndarray, np.ndarray], CodedColumn]]


def _mean_shape(columns: Prepared, rows: np.ndarray | None) -> float:
    if rows is None:
        return float(np.mean([column_shape(column) for _, column in columns]))
    return float(
        np.mean(
            [
                column_shape(CodedColumn(c.name, c.first[rows], c.second[rows], c.size, c.ordered))
                for _, c in columns
            ]
        )
    )


def _mean_trend(columns: Prepared, rows: np.ndarray | None) -> float:
    classes = [pair for pair, _ in columns]
    return float(np.mean(trends_of(classes if rows is None else [(a[rows], b[rows]) for a, b in classes])))
