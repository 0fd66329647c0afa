"""What an evaluation costs, which measure notices which fault, and whether models betray their training rows

    python -m benchmarks.evaluation cost                              100,000 x 15 flights of each kind, CPU seconds
    python -m benchmarks.evaluation power --data DIR                  faults planted in real rows of Adult: a matrix
    python -m benchmarks.evaluation membership --data DIR             attacks on the default model of Adult

DIR holds the folder adult. Every part writes its own file of results. `power` takes real rows that nothing was trained
on as synthetic ones, so that nothing but the planted fault can be noticed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.record import save
from benchmarks.tabular_tables import adult
from genai_core.evaluation import MEASURES, Evaluation, evaluate

ROWS = 100_000
COLUMNS = 15
DIGITS = 4


def shuffled(table: pa.Table, real: pa.Table, random: np.random.Generator) -> pa.Table:
    """One column no longer depends on the others."""
    del real
    order = pa.array(random.permutation(table.num_rows))
    i = table.column_names.index("education")
    return table.set_column(i, "education", table["education"].take(order))


def dropped(table: pa.Table, real: pa.Table, random: np.random.Generator) -> pa.Table:
    """A class of 5 % is never made."""
    del real, random
    return table.filter(pc.not_equal(table["education"], "Masters"))


def copied(table: pa.Table, real: pa.Table, random: np.random.Generator) -> pa.Table:
    """A tenth of the rows are training rows."""
    tenth = table.num_rows // 10
    rows = pa.array(random.permutation(real.num_rows)[:tenth])
    return pa.concat_tables([table.slice(tenth), real.take(rows)])


def shifted(table: pa.Table, real: pa.Table, random: np.random.Generator) -> pa.Table:
    """Everybody is two years older."""
    del real, random
    return table.set_column(0, "age", pc.add(table["age"], 2))


def repeated(table: pa.Table, real: pa.Table, random: np.random.Generator) -> pa.Table:
    """Five hundred rows, again and again: a generator that collapsed."""
    del real
    return table.take(pa.array(random.integers(0, 500, table.num_rows)))


def nearly_copied(table: pa.Table, real: pa.Table, random: np.random.Generator) -> pa.Table:
    """All rows are training rows with another number in one column."""
    made = real.take(pa.array(random.permutation(real.num_rows)[: table.num_rows]))
    i = made.column_names.index("fnlwgt")
    return made.set_column(i, "fnlwgt", table["fnlwgt"])


FAULTS: dict[str, Callable[..., pa.Table]] = {
    "nothing": lambda table, real, random: table,
    "a column shuffled": shuffled,
    "a class dropped": dropped,
    "a tenth copied": copied,
    "copied but for one column": nearly_copied,
    "a number shifted": shifted,
    "500 rows repeated": repeated,
}


def power(folder: Path, seed: int) -> dict[str, Any]:
    """Figures by fault, and which measures notice it: worse than without a fault, beyond both intervals."""
    data = adult(folder)
    random = np.random.default_rng(seed)
    order = random.permutation(data.train.num_rows)
    half = len(order) // 2
    real, other = data.train.take(pa.array(order[:half])), data.train.take(pa.array(order[half:]))
    found = {
        name: evaluate(real, data.holdout, fault(other, real, random), target=data.target, seed=seed)
        for name, fault in FAULTS.items()
    }
    sound = found["nothing"]
    return {
        name: {
            "noticed_by": [m for m in one.measures if _worse(m, one, sound)],
            "values": {m: round(one[m].value, DIGITS) for m in one.measures},
            "named": [
                f"{x['column']} = {x['value']}" for x in one.details["lost_categories"]["synthetic"]["lost"]
            ][:3]
            + [g["column"] for g in one.details["giveaways"][:1] if _worse("c2st_auc", one, sound)],
        }
        for name, one in found.items()
    }


def _worse(name: str, one: Evaluation, sound: Evaluation) -> bool:
    if MEASURES[name].better == "high":
        return one[name].high < sound[name].low
    return one[name].low > sound[name].high


def cost(seed: int) -> dict[str, Any]:
    """CPU seconds of one evaluation with everything, of flights that are there three times over."""
    from jobs.flights_lake import read

    table = read()
    table = table.select(table.column_names[:COLUMNS])
    order = np.random.default_rng(seed).permutation(table.num_rows)
    parts = [table.take(pa.array(order[i * ROWS : (i + 1) * ROWS])) for i in range(3)]
    started = time.process_time()
    found = evaluate(*parts, target="carrier", seed=seed)
    return {
        "cpu_seconds": round(time.process_time() - started, 1),
        "rows": ROWS,
        "columns": len(table.column_names),
        "interval_widths": {
            name: round(m.synthetic.high - m.synthetic.low, DIGITS) for name, m in found.measures.items()
        },
        "values": {name: round(m.synthetic.value, DIGITS) for name, m in found.measures.items()},
    }


def membership(folder: Path, seed: int, seconds: float | None) -> dict[str, Any]:
    """The default model of Adult, its rows, and the model itself under attack."""
    import genai_core

    data = adult(folder)
    started = time.process_time()
    model = genai_core.fit(data.train, "autoregressive", seed=seed, max_seconds=seconds)
    fitted = time.process_time() - started
    made = model.sample(data.train.num_rows, seed=seed)
    found = evaluate(data.train, data.holdout, made, target=data.target, model=model, seed=seed)
    return {
        "fit_cpu_seconds": round(fitted, 1),
        "membership": found.details["membership"],
        "measures": {name: measure.as_dict() for name, measure in found.measures.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("part", choices=("cost", "power", "membership"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-seconds", type=float, default=None)
    given = parser.parse_args()
    if given.part == "cost":
        figures = cost(given.seed)
    elif given.part == "power":
        figures = power(given.data, given.seed)
    else:
        figures = membership(given.data, given.seed, given.max_seconds)
    save(f"evaluation_{given.part}", figures, "evaluation", seed=given.seed, max_seconds=given.max_seconds)


if __name__ == "__main__":
    main()
