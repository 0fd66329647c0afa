"""What the demo prints: how alike the rows are, the anomalies, the lineage, the places."""

from __future__ import annotations

import datetime as dt
import os
import re
import subprocess
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from genai_core.evaluation.fidelity import Fidelity, Likeness, compare
from genai_core.evaluation.privacy import copied_share

ROWS = 30_000  # compared; more would only sharpen the last digit
TOP = 10
REASONS = 3
SCORE = "negative_log_likelihood"


def fidelity_text(root: Path) -> str:
    """Synthetic flights beside real ones, by the same measures with as many rows."""
    synthetic = pq.read_table(root / "out" / "synthetic" / "data")
    one, other = (half.select(synthetic.column_names) for half in real_halves(root))
    fidelity = compare(one, synthetic, other, seed=0, rows=ROWS)
    copies = copied_share(one, synthetic), copied_share(one, other)
    return fidelity_table(fidelity, copies)


def real_halves(root: Path) -> tuple[pa.Table, pa.Table]:
    """The training months, cut at random into two halves: what real rows reach against real rows."""
    from pipelines.sources import open_source
    from pipelines.sources.parquet import ParquetSource

    source = open_source(
        ParquetSource(kind="parquet", path=str(root / "lake" / "flights"), filter="month <= 9")
    )
    table = pa.Table.from_batches(source.batches())
    order = np.random.default_rng(0).permutation(table.num_rows)
    half = len(order) // 2
    return table.take(np.sort(order[:half])), table.take(np.sort(order[half:]))


def fidelity_table(fidelity: Fidelity, copies: tuple[float, float]) -> str:
    """Three measures and the share of copies, synthetic and real side by side."""
    rows = [("synthetic", fidelity.synthetic, copies[0]), ("real", fidelity.real, copies[1])]
    lines = [
        f"{fidelity.real.rows:,} rows each, against as many real flights of the training months",
        "",
        f"{'':12}{'column shapes':>15}{'pair trends':>13}{'C2ST AUC':>11}{'exact copies':>15}",
        *(_fidelity_row(*row) for row in rows),
        f"{'':12}{'1 is alike':>15}{'1 is alike':>13}{'.5 alike':>11}",
        "",
        "C2ST: a classifier that is trained to tell them apart (classifier two-sample test).",
        "What gives the synthetic flights away: " + _giveaways(fidelity.synthetic),
    ]
    return "\n".join(lines)


def _fidelity_row(name: str, found: Likeness, copied: float) -> str:
    trends = f"{found.pair_trends:.3f}" if found.pair_trends is not None else "-"
    return f"{name:12}{found.column_shapes:>15.3f}{trends:>13}{found.c2st_auc:>11.3f}{copied:>15.2%}"


def _giveaways(found: Likeness) -> str:
    named = [
        f"{one.column} ({one.auc_drop:+.3f})" for one in found.giveaways[:REASONS] if one.auc_drop > 0.002
    ]
    return ", ".join(named) + " of AUC" if named else "no single column"


def anomalies_text(root: Path) -> str:
    """The flights with the highest scores, with the columns that made them so."""
    scored = pq.read_table(root / "out" / "scores" / "data")
    first = pc.select_k_unstable(scored, TOP, [(SCORE, "descending"), ("source_row", "ascending")])
    rows = scored.take(first).to_pylist()
    flagged = pq.read_metadata(root / "out" / "scores" / "_anomalies.parquet").num_rows
    lines = [line for number, row in enumerate(rows, 1) for line in _anomaly(number, row)]
    return "\n".join(
        [
            *lines,
            "",
            f"{flagged:,} of {scored.num_rows:,} flights are flagged at a false-discovery rate of 0.1",
        ]
    )


def _anomaly(number: int, row: dict[str, Any]) -> list[str]:
    reasons = sorted(row["why"] or [], key=lambda reason: -reason["nats"])[:REASONS]
    because = "; ".join(f"{one['column']} = {one['value']} ({one['nats']:.1f} nats)" for one in reasons)
    score = f"{row[SCORE]:7.1f} nats"
    return [f"{number:>3}  {_flight(row)}  {score}  p = {row['p_value']:.1e}", f"     {because}"]


def _flight(row: dict[str, Any]) -> str:
    when = row["time_hour"]
    day = when.astimezone(dt.UTC).strftime("%Y-%m-%d %H:00Z") if isinstance(when, dt.datetime) else str(when)
    return f"{day}  {row['carrier']} {row['flight']:<5} {row['origin']} → {row['dest']}"


def lineage_text(root: Path, genai: Callable[..., Any]) -> str:
    """`genai lineage` of the first file of synthetic flights."""
    first = sorted((root / "out" / "synthetic" / "data").glob("*.parquet"))[0].relative_to(root)
    answer = genai(["lineage", str(first)], stdout=subprocess.PIPE).stdout.rstrip()
    return f"$ genai lineage {first}\n\n{_shortened(answer)}"


def _shortened(text: str) -> str:
    """Hashes by their beginnings, paths from here, long lines folded: to fit the page."""
    text = re.sub(r"\b([0-9a-f]{12})[0-9a-f]{52}\b", r"\1...", text)
    text = text.replace(f"{Path.cwd()}{os.sep}", "")
    return "\n".join(_folded(line) for line in text.splitlines())


def _folded(line: str) -> str:
    margin = " " * (len(line) - len(line.lstrip(" │├└─")) + 2)
    return textwrap.fill(line, 100, subsequent_indent=margin, break_long_words=False, break_on_hyphens=False)


def places_text(root: Path, results: dict[str, dict[str, Any]]) -> str:
    """What was made, and what to try next."""
    made = {
        "lake": root / "lake" / "flights",
        "model": results["train"].get("model", ""),
        "synthetic": root / "out" / "synthetic",
        "scores": root / "out" / "scores",
        "anomalies": root / "out" / "scores" / "_anomalies.parquet",
        "MLflow": root / "mlflow.db",
    }
    lines = [f"{name:<12}{place}" for name, place in made.items()]
    look = "cd demo && ../.venv/bin/mlflow ui --backend-store-uri sqlite:///mlflow.db"
    return "\n".join([*lines, "", f"look at the runs:  {look}"])
