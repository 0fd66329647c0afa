"""One fit of a peer for `benchmarks.tabular`, run by a Python that has the peers installed and none of ours

    PEER_PYTHON benchmarks/tabular_peers.py FOLDER '{"kind": "ctgan", "seed": 0, "rows": ..., "seconds": ...}'

As published, with their defaults, except that CTGAN and TVAE stop after `seconds` of CPU if that comes before their
300 epochs. FOLDER as for `benchmarks.tabular_ours`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

PACKAGES = {"ctgan": "ctgan", "tvae": "ctgan", "mostlyai": "mostlyai-engine"}
EPOCHS = 300


def gan_or_vae(
    kind: str, options: dict[str, Any], train: pd.DataFrame, facts: dict[str, Any]
) -> Callable[[int], pd.DataFrame]:
    """CTGAN or TVAE, which take no times and, in numbers, no missing values: both are filled in, and counted."""
    import ctgan
    from ctgan.synthesizers import ctgan as first
    from ctgan.synthesizers import tvae as second

    class Limited:
        """In place of the progress bar around the epochs: ends them in time."""

        def __init__(self, epochs: range, **options_of_the_bar: Any) -> None:
            self.epochs = epochs

        def __iter__(self) -> Iterator[int]:
            started = time.process_time()
            for epoch in self.epochs:
                if time.process_time() - started > options["seconds"]:
                    return
                facts["epochs"] = epoch + 1
                yield epoch

        def set_description(self, text: str) -> None:
            """Nothing to show."""

    first.tqdm = second.tqdm = Limited
    plain = train.copy()
    times = [name for name in plain if pd.api.types.is_datetime64_any_dtype(plain[name])]
    for name in times:
        plain[name] = plain[name].astype("int64") / 1e9
    numbers = [name for name in plain if pd.api.types.is_numeric_dtype(plain[name])]
    facts["filled"] = int(plain[numbers].isna().sum().sum())
    plain[numbers] = plain[numbers].fillna(plain[numbers].median())
    discrete = [name for name in plain if name not in numbers]
    plain[discrete] = plain[discrete].fillna("")
    model = {"ctgan": ctgan.CTGAN, "tvae": ctgan.TVAE}[kind](epochs=EPOCHS, verbose=True)
    model.fit(plain, discrete_columns=discrete)

    def sample(rows: int) -> pd.DataFrame:
        made = model.sample(rows)
        for name in times:
            made[name] = pd.to_datetime(made[name] * 1e9)
        for name in discrete:
            made[name] = made[name].where(made[name] != "", None)
        return made

    return sample


def mostlyai(
    kind: str, options: dict[str, Any], train: pd.DataFrame, facts: dict[str, Any]
) -> Callable[[int], pd.DataFrame]:
    """TabularARGN, its default size."""
    from mostlyai.engine import TabularARGN

    model = TabularARGN(
        device="cpu", verbose=0, random_state=options["seed"], max_training_time=options["seconds"] / 60
    )
    model.fit(train)
    return lambda rows: model.sample(n_samples=rows)


def peak_memory() -> float:
    """MB that this process held at the most: `getrusage` would count what its parent held when it forked."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def main() -> None:
    """See the module."""
    folder, options = Path(sys.argv[1]), json.loads(sys.argv[2])
    torch.set_num_threads(1)
    np.random.seed(options["seed"])
    torch.manual_seed(options["seed"])
    train = pd.read_parquet(folder / "train.parquet")
    facts: dict[str, Any] = {
        "version": version(PACKAGES[options["kind"]]),
        "limit_cpu_seconds": options["seconds"],
    }
    facts["memory_before_mb"] = peak_memory()
    started = time.process_time()
    fit = mostlyai if options["kind"] == "mostlyai" else gan_or_vae
    sample = fit(options["kind"], options, train, facts)
    facts["fit_cpu_seconds"] = time.process_time() - started
    made = sample(options["rows"])
    started = time.process_time()
    sample(32_000)
    facts["sampled_rows_per_cpu_second"] = 32_000 / (time.process_time() - started)
    facts["peak_memory_mb"] = peak_memory()
    made.to_parquet(folder / "synthetic.parquet", index=False)
    (folder / "facts.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main()
