"""How well a keyed watermark is found, what it survives and costs: python -m benchmarks.watermark adult --data DIR

z          with the key, without a mark, and with another key; by how much the rows were changed before
cost       AUC of a classifier that tells marked rows from other, unmarked ones of the same model, less that of unmarked
           rows of the same seed; and the same beside real rows; over 24 keys, with an interval
seconds    CPU of drawing, marked and not
DIR        holds adult/, flights/ and text/
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.record import save, spread
from benchmarks.tabular_tables import TABLES
from genai_core import fit
from genai_core.evaluation.coding import code_tables
from genai_core.evaluation.two_sample import classifier_two_sample_test
from genai_core.fitted import FittedModel
from genai_core.watermark import Watermark, detect

ROWS, KEYS, SEED = 10_000, 24, 0
LONGEST = 24  # bytes of a name
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
    real = data.holdout.slice(0, ROWS).select(fitted.schema.names).cast(fitted.schema)
    other, _ = drawn(fitted, None, SEED)
    plain, plain_spent = zip(*(drawn(fitted, None, SEED + 1 + n) for n in range(KEYS)), strict=True)
    marked, spent = zip(*(drawn(fitted, mark, SEED + 1 + n) for n, mark in enumerate(MARKS)), strict=True)
    return {
        "z_marked": spread([detect(fitted, t, mark).z for t, mark in zip(marked, MARKS, strict=True)]),
        "z_unmarked": spread([detect(fitted, plain[0], mark).z for mark in MARKS]),
        "z_real": spread([detect(fitted, real, mark).z for mark in MARKS]),
        "z_other_key": spread([detect(fitted, table, OTHER).z for table in marked]),
        "z_after": {how: round(detect(fitted, t, MARKS[0]).z, 1) for how, t in changed(marked[0]).items()},
        "z_without_column": {
            n: round(detect(fitted, marked[0].drop_columns([n]), MARKS[0]).z, 1) for n in fitted.schema.names
        },
        "beside_other_drawn_rows": cost(other, marked, plain),
        "beside_real_rows": cost(real, marked, plain),
        "cpu_seconds": {"marked": round(min(spent), 2), "unmarked": round(min(plain_spent), 2)},
    }


def cost(beside: pa.Table, marked: Sequence[pa.Table], plain: Sequence[pa.Table]) -> dict[str, float]:
    """How much better a classifier tells rows from others for their mark: mean over keys, and half its 95 % interval.

    A marked table and its plain one are of one seed: they differ in what the key decides, and in what follows from it.
    """
    of_marked, of_plain = ([auc(beside, table) for table in tables] for tables in (marked, plain))
    more = np.subtract(of_marked, of_plain)
    return {
        "auc_marked": round(float(np.mean(of_marked)), 4),
        "auc_unmarked": round(float(np.mean(of_plain)), 4),
        "cost": round(float(more.mean()), 4),
        "half_interval": round(float(1.96 * more.std(ddof=1) / len(more) ** 0.5), 4),
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
    reading = {"kind": "text", "column": "name", "length": LONGEST}
    fitted = fit(pa.table({"name": names}), modality=reading, seed=SEED, max_seconds=seconds)
    marked, spent = drawn(fitted, MARKS[0], SEED + 1)
    plain, plain_spent = drawn(fitted, None, SEED + 1)
    return {
        "z_by_texts": {
            str(n): round(detect(fitted, marked.slice(0, n), MARKS[0]).z, 1) for n in (30, 100, 1000, ROWS)
        },
        "z_unmarked": spread([detect(fitted, plain, mark).z for mark in MARKS]),
        "z_real": spread([detect(fitted, pa.table({"name": names[:ROWS]}), mark).z for mark in MARKS]),
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
