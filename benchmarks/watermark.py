"""How well a keyed watermark is found, what it survives and costs: python -m benchmarks.watermark adult --data DIR

z          with the key, without a mark, and with another key; by how much the rows were changed before
cost       AUC of a classifier that tells marked from unmarked rows of one model, less that for unmarked from unmarked
           (two keys); and the same beside real rows: AUC of marked less AUC of unmarked
seconds    CPU of drawing, marked and not
DIR        holds adult/, flights/ and text/
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.record import save
from benchmarks.tabular_tables import TABLES
from genai_core import fit
from genai_core.evaluation.coding import code_tables
from genai_core.evaluation.two_sample import classifier_two_sample_test
from genai_core.fitted import FittedModel
from genai_core.watermark import Watermark, detect

ROWS, KEYS, SEED = 10_000, 2, 0
MARKS = [Watermark(f"benchmark key number {number}".encode()) for number in range(KEYS)]
OTHER = Watermark(b"another key, that marked nothing")


def main() -> None:
    """Fit, draw, look, and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=[*TABLES, "names"])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=60, help="of each fit")
    given = parser.parse_args()
    if given.what == "names":
        figures = text_figures(given.data / "text" / "names.txt", given.seconds)
    else:
        figures = table_figures(given.what, given.data, given.seconds)
    settings = {"rows": ROWS, "keys": KEYS, "seed": SEED, "fit_seconds": given.seconds}
    save(f"watermark_{given.what}", figures, module="watermark", **settings)


def table_figures(name: str, folder: Path, seconds: float) -> dict[str, Any]:
    """Of one table."""
    data = TABLES[name](folder)
    fitted = fit(data.train, seed=SEED, max_seconds=seconds)
    marked, spent = zip(*(drawn(fitted, mark, SEED + 1) for mark in MARKS), strict=True)
    plain, plain_spent = zip(
        *(drawn(fitted, None, SEED + 1 + number) for number in range(KEYS + 1)), strict=True
    )
    base = [auc(plain[0], other) for other in plain[1:]]
    found = [auc(plain[-1], table) for table in marked]
    real = data.holdout.slice(0, ROWS).select(fitted.schema.names).cast(fitted.schema)
    beside_real = [auc(real, table) for table in marked], [auc(real, table) for table in plain[1:]]
    return {
        "z_marked": [round(detect(fitted, t, mark).z, 1) for t, mark in zip(marked, MARKS, strict=True)],
        "z_unmarked": [round(detect(fitted, plain[0], mark).z, 1) for mark in MARKS],
        "z_real": [round(detect(fitted, real, mark).z, 1) for mark in MARKS],
        "z_other_key": round(detect(fitted, marked[0], OTHER).z, 1),
        "z_after": {how: round(detect(fitted, t, MARKS[0]).z, 1) for how, t in changed(marked[0]).items()},
        "z_without_column": {
            n: round(detect(fitted, marked[0].drop_columns([n]), MARKS[0]).z, 1) for n in fitted.schema.names
        },
        "auc_marked_unmarked": [round(value, 4) for value in found],
        "auc_unmarked_unmarked": [round(value, 4) for value in base],
        "cost": round(statistics.mean(found) - statistics.mean(base), 4),
        "cost_beside_real": round(statistics.mean(beside_real[0]) - statistics.mean(beside_real[1]), 4),
        "auc_beside_real_marked": [round(value, 4) for value in beside_real[0]],
        "auc_beside_real_unmarked": [round(value, 4) for value in beside_real[1]],
        "cpu_seconds": {"marked": round(min(spent), 2), "unmarked": round(min(plain_spent), 2)},
    }


def drawn(fitted: FittedModel, mark: Watermark | None, seed: int) -> tuple[pa.Table, float]:
    """Rows, and the CPU-seconds that they took."""
    started = time.process_time()
    table = fitted.sample(ROWS, seed=seed, watermark=mark)
    return table, time.process_time() - started


def auc(first: pa.Table, second: pa.Table) -> float:
    """Of the classifier that tells them apart; .5: it cannot."""
    return classifier_two_sample_test(code_tables(first, second), seed=SEED).auc


def changed(table: pa.Table) -> dict[str, pa.Table]:
    """What somebody may do to rows before they are looked at."""
    random = np.random.default_rng(SEED)
    order = random.permutation(table.num_rows)
    return {
        "shuffled": table.take(order),
        "half of the rows": table.take(order[: table.num_rows // 2]),
        "a tenth of the rows": table.take(order[: table.num_rows // 10]),
        "numbers to two digits": rounded(table),
        "a fifth of the cells changed": with_noise(table, random, 0.2),
    }


def rounded(table: pa.Table) -> pa.Table:
    """Every number to two significant digits."""
    for number, field in enumerate(table.schema):
        if pa.types.is_floating(field.type) or pa.types.is_integer(field.type):
            values = pc.cast(table[field.name], pa.float64()).to_numpy().astype(float)
            unit = 10.0 ** (np.floor(np.log10(np.where(values == 0, 1.0, np.abs(values)))) - 1)
            two = np.round(values / unit) * unit
            plain = pa.array(two, from_pandas=True).cast(field.type, safe=False)
            table = table.set_column(number, field, plain)
    return table


def with_noise(table: pa.Table, random: np.random.Generator, share: float) -> pa.Table:
    """A share of the cells of every column takes the value of another row."""
    for number, field in enumerate(table.schema):
        source = np.arange(table.num_rows)
        hit = random.random(table.num_rows) < share
        source[hit] = random.integers(0, table.num_rows, hit.sum())
        table = table.set_column(number, field, table[field.name].take(pa.array(source)))
    return table


def text_figures(path: Path, seconds: float) -> dict[str, Any]:
    """Of short texts."""
    names = path.read_text().split()
    fitted = fit(
        pa.table({"name": names}), modality={"kind": "text", "column": "name"}, seed=SEED, max_seconds=seconds
    )
    marked, spent = drawn(fitted, MARKS[0], SEED + 1)
    plain, plain_spent = drawn(fitted, None, SEED + 1)
    return {
        "z_by_texts": {
            str(n): round(detect(fitted, marked.slice(0, n), MARKS[0]).z, 1) for n in (30, 100, 1000, ROWS)
        },
        "z_unmarked": [round(detect(fitted, plain, mark).z, 1) for mark in MARKS],
        "z_real": [round(detect(fitted, pa.table({"name": names[:ROWS]}), mark).z, 1) for mark in MARKS],
        "z_other_key": round(detect(fitted, marked, OTHER).z, 1),
        "tokens_a_text": round(float(np.mean([len(name) + 1 for name in marked["name"].to_pylist()])), 1),
        "nats_marked": round(-float(fitted.log_prob(marked.slice(0, 2000)).mean()), 3),
        "nats_unmarked": round(-float(fitted.log_prob(plain.slice(0, 2000)).mean()), 3),
        "different_marked": len(set(marked["name"].to_pylist())),
        "different_unmarked": len(set(plain["name"].to_pylist())),
        "cpu_seconds": {"marked": round(spent, 2), "unmarked": round(plain_spent, 2)},
    }


if __name__ == "__main__":
    main()
