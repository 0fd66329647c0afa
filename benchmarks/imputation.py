"""Missing cells filled by one model, beside mean or mode and scikit-learn's IterativeImputer, on rows not learnt from.

    python -m benchmarks.imputation --data DIR [--tables adult flights] [--draws 10] [--seed 0]

A fifth of the cells of the holdout rows is hidden completely at random. Categories: share of cells whose most frequent
draw is right. Numbers: error of the mean draw, and the continuous ranked probability score of the draws (Gneiting &
Raftery 2007), both in standard deviations of the column; lower is better. A single value's score is its absolute error.
"""

from __future__ import annotations

import argparse
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks import record, tabular_tables
from genai_core.fitted import FittedModel
from genai_core.hyperparameters import FitSettings
from genai_core.loop import Fit
from genai_core.modalities.tabular import TabularCodec
from genai_core.train import new_model

HIDDEN = 0.2


def learnt(table: pa.Table, seed: int) -> FittedModel:
    """A model of the default size, without the scores of anomalies."""
    codec = TabularCodec.fit(table.to_batches(), table.schema)
    tokens = codec.encode(table).tokens
    out = np.random.default_rng(seed).random(len(tokens)) < 0.1
    network = new_model("autoregressive", codec, {}, seed)
    Fit(network, tokens[~out], tokens[out], FitSettings(seed=seed)).run()
    return FittedModel("autoregressive", "tabular", codec, network.eval())


def numeric(table: pa.Table) -> list[str]:
    """Columns whose values are numbers; times are left out of the comparison."""
    return [f.name for f in table.schema if pa.types.is_integer(f.type) or pa.types.is_floating(f.type)]


def plain(table: pa.Table) -> pd.DataFrame:
    """Numbers as they are, all else as text."""
    numbers = numeric(table)
    return pd.DataFrame(
        {
            name: table[name].to_pandas().astype(float)
            if name in numbers
            else table[name].cast(pa.string()).to_pandas()
            for name in table.column_names
        }
    )


def ours(train: pa.Table, holes: pa.Table, draws: int, seed: int) -> list[pd.DataFrame]:
    """The draws of the autoregressive model."""
    made = learnt(train, seed).impute(holes, draws=draws, seed=seed)
    return [plain(made.filter(pc.equal(made["_draw"], i)).drop_columns(["_draw"])) for i in range(draws)]


def typical(train: pa.Table, holes: pa.Table, draws: int, seed: int) -> list[pd.DataFrame]:
    """Mean or mode of each column."""
    frame = plain(train)
    return [
        plain(holes).fillna(
            {n: frame[n].mean() if n in numeric(train) else frame[n].mode()[0] for n in frame}
        )
    ]


def iterative(train: pa.Table, holes: pa.Table, draws: int, seed: int) -> list[pd.DataFrame]:
    """Chained regressions (van Buuren 2007), drawn from their posterior; categories as the codes of their values."""
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401
    from sklearn.impute import IterativeImputer

    frame, gaps, numbers = plain(train), plain(holes), numeric(train)
    levels = {n: sorted(frame[n].dropna().unique()) for n in frame if n not in numbers}

    def coded(of: pd.DataFrame) -> np.ndarray:
        columns = [
            of[n] if n in numbers else pd.Series(pd.Categorical(of[n], levels[n]).codes).replace(-1, np.nan)
            for n in of
        ]
        return np.stack([np.asarray(c, float) for c in columns], 1)

    imputer = IterativeImputer(sample_posterior=True, max_iter=5, random_state=seed, skip_complete=False)
    imputer.fit(coded(frame))
    found = []
    for _ in range(draws):  # each call draws anew
        made = pd.DataFrame(imputer.transform(coded(gaps)), columns=frame.columns)
        for n, names in levels.items():
            made[n] = np.array(names, object)[np.clip(made[n].round(), 0, len(names) - 1).astype(int)]
        found.append(made)
    return found


def judged(
    truth: pd.DataFrame, hidden: np.ndarray, draws: list[pd.DataFrame], numbers: list[str]
) -> dict[str, Any]:
    """Means over columns."""
    right, errors, scores = [], [], []
    for number, name in enumerate(truth):
        cells = hidden[:, number]
        real = truth[name].to_numpy()[cells]
        made = np.stack([draw[name].to_numpy()[cells] for draw in draws])
        if name not in numbers:
            mode = pd.DataFrame(made).mode().iloc[0].to_numpy()
            right.append(np.mean(mode == real))
            continue
        scale = truth[name].std() or 1.0
        made, real = made.astype(float) / scale, real.astype(float) / scale
        errors.append(np.sqrt(np.mean((made.mean(0) - real) ** 2)))
        count = len(made)
        among = np.abs(made[:, None] - made[None]).sum((0, 1)) / max(count * (count - 1), 1)
        scores.append(np.mean(np.abs(made - real).mean(0) - among / 2))
    found = {"accuracy": np.mean(right), "rmse": np.mean(errors), "crps": np.mean(scores)}
    return {name: round(float(value), 4) for name, value in found.items()}


def measured(data: tabular_tables.Data, draws: int, seed: int) -> dict[str, Any]:
    """Every method on one table."""
    holdout = data.holdout
    there = np.stack([pc.is_valid(c).to_numpy() for c in holdout.columns], 1)
    hidden = there & (np.random.default_rng(seed).random(there.shape) < HIDDEN)
    columns = [
        pc.if_else(pa.array(hidden[:, i]), pa.scalar(None, c.type), c.combine_chunks())
        for i, c in enumerate(holdout.columns)
    ]
    holes = pa.Table.from_arrays(columns, schema=holdout.schema)
    truth, numbers = plain(holdout), numeric(holdout)
    found: dict[str, Any] = {"rows": holdout.num_rows, "hidden_cells": int(hidden.sum())}
    for method in (ours, typical, iterative):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
        made = method(data.train, holes, draws, seed)
        spent = resource.getrusage(resource.RUSAGE_SELF).ru_utime - before
        found[method.__name__] = judged(truth, hidden, made, numbers) | {"cpu_seconds": round(spent, 1)}
    return found


def main() -> None:
    """Measure and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tables", nargs="+", default=["adult", "flights"])
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    figures = {
        name: measured(getattr(tabular_tables, name)(given.data), given.draws, given.seed)
        for name in given.tables
    }
    record.save("imputation", figures, draws=given.draws, seed=given.seed, hidden=HIDDEN)


if __name__ == "__main__":
    main()
