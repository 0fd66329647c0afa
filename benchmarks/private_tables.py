"""What differential privacy costs: Adult learnt with ever smaller epsilons, judged as every synthetic table is

    python -m benchmarks.private_tables --data DIR [--epsilons 1 3 8] [--models autoregressive vae] [--seed 0]

DIR holds the folder adult. Without privacy: `benchmarks.tabular`. Private fits have no seed; the one given here is
of the first weights, of the rows that are drawn and of the judge (`benchmarks.tabular_judge`).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks.record import save
from benchmarks.tabular import rounded, run
from benchmarks.tabular_tables import TABLES

DELTA = 1e-6
SAID = ("c2st_train", "c2st_holdout", "quality", "utility", "dcr_share", "fit_cpu_seconds")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--epsilons", nargs="+", type=float, default=[1, 3, 8])
    parser.add_argument("--models", nargs="+", default=["autoregressive", "vae"])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    data = TABLES["adult"](options.data)
    found: dict[str, Any] = {}
    for model in options.models:
        for epsilon in options.epsilons:
            fit = {"privacy": {"epsilon": epsilon, "delta": DELTA}}
            own = argparse.Namespace(model={}, fit=fit, keep_tables=None)
            row = rounded(run(data, model, options.seed, own))
            found.setdefault(model, {})[f"epsilon {epsilon:g}"] = row
            print(model, epsilon, {name: row[name] for name in SAID}, flush=True)
    save("private_tables", found, table="adult", delta=DELTA, seed=options.seed)


if __name__ == "__main__":
    main()
