"""Anomalies in tables: AUROC and average precision beside peers, false discoveries, mixed types, speed, determinism

    python -m benchmarks.anomaly --data DIR [--rows 10000] [--seeds 0 1 2] [--tables 2 6 14] [--parts ...]

DIR holds ADBench's tables (.npz, arrays X and y). One thread. Peers are rerun beside: kNN is the mean distance to five
neighbours after standardisation, IForest scikit-learn's default. Settings were chosen on seed 0, 3,000 rows. Beside the
share of anomalies found at a nominal 10 % of false discoveries stands the most that any cut of the same score finds.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from sklearn.ensemble import IsolationForest
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.neighbors import NearestNeighbors

import genai_core
from benchmarks.anomaly_tables import FAULTS, faulty, load, names, numbers, orders, split
from benchmarks.record import save
from genai_core import AnomalyDetector
from genai_core.train import as_table

LEVEL = 0.1
MEMBERS = ("ensemble", "pseudo_likelihood", "memory")
PARTS = ("semi", "unsup", "models", "mixed", "speed", "determinism")
Scores = dict[str, np.ndarray]


def knn(train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Mean distance to five neighbours, standardised."""
    mean, spread = train.mean(0), train.std(0)
    spread[spread == 0] = 1
    near = NearestNeighbors(n_neighbors=min(5, len(train))).fit((train - mean) / spread)
    return near.kneighbors((test - mean) / spread)[0].mean(1)


def forest(train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Isolation forest."""
    return -IsolationForest(random_state=0).fit(train).score_samples(test)


PEERS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {"knn": knn, "isolation_forest": forest}


def ours(train: Any, test: Any, reference: str, seed: int) -> tuple[Scores, np.ndarray]:
    """Scores of one fit, and the default's p-values."""
    fitted = AnomalyDetector(reference=reference, seed=seed).fit(train)
    found = fitted.model_.score(as_table(test), MEMBERS).totals
    return found, fitted.model_.p_values("ensemble", found["ensemble"])


def judged(odd: np.ndarray, score: np.ndarray) -> list[float]:
    """AUROC and average precision, in percent."""
    return [round(100 * float(f(odd, score)), 2) for f in (roc_auc_score, average_precision_score)]


def discoveries(odd: np.ndarray, p_values: np.ndarray) -> dict[str, float]:
    """Share of false ones among the rows flagged at LEVEL, and of the anomalies that are flagged."""
    order = np.sort(p_values)
    passing = np.flatnonzero(order <= LEVEL * np.arange(1, len(order) + 1) / len(order) * (1 + 1e-12))
    flagged = p_values <= (order[passing[-1]] if len(passing) else -1)
    false = float((flagged & (odd == 0)).sum() / max(flagged.sum(), 1))
    return {"false": round(false, 4), "power": round(float(flagged[odd == 1].mean()), 4)}


def attainable(odd: np.ndarray, score: np.ndarray) -> float:
    """Share of the anomalies that a cut finds that knows the labels, with at most LEVEL of the flagged rows false."""
    ranked = odd[np.argsort(-score, kind="stable")]
    found = np.cumsum(ranked)
    fine = np.flatnonzero(found >= (1 - LEVEL) * np.arange(1, len(odd) + 1))
    return round(float(found[fine[-1]] / odd.sum()), 4) if len(fine) else 0.0


def protocol(kind: str, name: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Detector -> AUROC and AP of one table; of the semi-supervised protocol the discoveries too."""
    part = split(*load(options.data, name, options.rows, seed), kind, seed)
    started = time.process_time()
    scores, p = ours(part.train, part.test, "clean" if kind == "semi" else "contaminated", seed)
    seconds = time.process_time() - started
    scores |= {peer: score(part.train, part.test) for peer, score in PEERS.items()}
    row: dict[str, Any] = {each: judged(part.odd, value) for each, value in scores.items()}
    if kind == "semi":
        row["at_10_percent"] = discoveries(part.odd, p)
        row["at_10_percent"]["attainable"] = attainable(part.odd, scores["ensemble"])
    return row | {"cpu_seconds": round(seconds, 1)}


def models(kind: str, name: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """The likelihood alone of models that are trained in full: exact of the autoregressive, a bound of the VAE."""
    part = split(*load(options.data, name, options.rows, seed), "semi", seed)
    row = {}
    for family in ("autoregressive", "vae"):
        model = genai_core.fit(part.train, family, seed=seed, score_effort=0.01)
        row[family] = judged(part.odd, -model.log_prob(as_table(part.test)))
    return row


class Kept:
    """Rows that are done, one JSON line each: an interrupted run goes on where it stopped."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        lines = path.read_text().splitlines() if path and path.exists() else []
        self.rows = {tuple(key): row for key, row in map(json.loads, lines)}

    def row(self, key: tuple[Any, ...], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The row of this key, from before or made now."""
        if key not in self.rows:
            self.rows[key] = make()
            print(*key, self.rows[key], flush=True)
            if self.path:
                with self.path.open("a") as file:
                    file.write(json.dumps([key, self.rows[key]]) + "\n")
        return self.rows[key]


def _means(found: dict[str, Any]) -> dict[str, Any]:
    rows = [row for seeds in found.values() for row in seeds.values()]
    means: dict[str, Any] = {
        name: np.mean([row[name] for row in rows], 0).round(2).tolist()
        for name in rows[0]
        if isinstance(rows[0][name], list)
    }
    if "at_10_percent" in rows[0]:
        false, power = (np.array([row["at_10_percent"][key] for row in rows]) for key in ("false", "power"))
        best = [row["at_10_percent"]["attainable"] for row in rows]
        means["at_10_percent"] = {
            "false": round(float(false.mean()), 4),
            "power": round(float(power.mean()), 4),
            "attainable_power": round(float(np.mean(best)), 4),
            "most_false": round(float(false.max()), 4),
            "splits_above_20_percent": int((false > 0.2).sum()),
        }
    return means


def mixed(seed: int) -> dict[str, Any]:
    """Orders of a shop: AUROC and AP of each fault, beside detectors of numbers that see one-hot categories."""
    train, normal = orders(4000, seed), orders(2000, seed + 1)
    found: dict[str, Any] = {}
    tests = {fault: faulty(orders(100, seed + 2 + i), fault, seed) for i, fault in enumerate(FAULTS)}
    test = pa.concat_tables([normal, *tests.values()])
    scores, _ = ours(train, test, "clean", seed)
    encoded = numbers(train, test)
    scores |= {peer: score(*encoded) for peer, score in PEERS.items()}
    for i, fault in enumerate(FAULTS):
        rows = np.r_[0 : len(normal), len(normal) + 100 * i : len(normal) + 100 * (i + 1)]
        odd = (rows >= len(normal)).astype(int)
        found[fault] = {name: judged(odd, value[rows]) for name, value in scores.items()}
    print("mixed", found, flush=True)
    return found


def speed(rows: int = 100_000, columns: int = 20) -> dict[str, Any]:
    """Rows a CPU-second from an Arrow table in memory to scores and p-values; the fastest of three."""
    random = np.random.default_rng(0)
    mixing = random.normal(size=(columns, columns))
    train = random.normal(size=(20_000, columns)) @ mixing
    detector = AnomalyDetector(held_out=4000).fit(train)
    table = as_table(random.normal(size=(rows, columns)) @ mixing)
    best = {}
    for name in MEMBERS:
        seconds = []
        for _ in range(3):
            started = time.process_time()
            detector.model_.p_values(name, detector.model_.score(table, [name]).totals[name])
            seconds.append(time.process_time() - started)
        best[name] = round(rows / min(seconds))
    started = time.process_time()
    detector.model_.codec.encode(table)
    return {"rows_per_cpu_second": best, "encoding_alone": round(rows / (time.process_time() - started))}


def determinism() -> dict[str, bool]:
    """Whether a row's score is the same, to the bit, in any order, in pieces, and alone."""
    random = np.random.default_rng(0)
    x = random.normal(size=(5000, 8)) @ random.normal(size=(8, 8))
    detector = AnomalyDetector().fit(x[:2000])
    whole, order = detector.score_samples(x), random.permutation(5000)
    pieces = np.concatenate([detector.score_samples(part) for part in np.split(x, [1, 700, 2048, 4999])])
    return {
        "order": bool(np.array_equal(detector.score_samples(x[order]), whole[order])),
        "pieces": bool(np.array_equal(pieces, whole)),
        "alone": all(detector.score_samples(x[i : i + 1])[0] == whole[i] for i in range(5)),
    }


def of_tables(part: str, tables: list[str], options: argparse.Namespace, kept: Kept) -> dict[str, Any]:
    """Of all tables, or of those that are reached within the minutes given."""
    make = models if part == "models" else protocol
    found: dict[str, Any] = {}
    for seed in options.seeds:
        for name in tables:
            key = (part, name, seed, options.rows)
            if key in kept.rows or time.monotonic() < options.until:
                row = kept.row(key, lambda n=name, s=seed: make(part, n, s, options))  # type: ignore[misc]
                found.setdefault(name, {})[str(seed)] = row
    return {"tables_done": len(found), "mean": _means(found), "tables": found} if found else {}


def run(options: argparse.Namespace) -> dict[str, Any]:
    """The parts asked for."""
    tables = [n for n in names(options.data) if not options.tables or n.split("_")[0] in options.tables]
    kept = Kept(options.keep)
    others = {"mixed": lambda: mixed(0), "speed": speed, "determinism": determinism}
    return {
        part: others[part]() if part in others else of_tables(part, tables, options, kept)
        for part in options.parts
    }


def main() -> None:
    """Run and write results/anomaly.json, or results/anomaly_NAME.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--tables", nargs="*", default=[])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument(
        "--name", default="", help="results/anomaly_NAME.json instead of results/anomaly.json"
    )
    parser.add_argument(
        "--keep", type=Path, help="file of finished rows, to go on with after an interruption"
    )
    parser.add_argument("--minutes", type=float, default=1e6, help="start no table after so many")
    options = parser.parse_args()
    options.until = time.monotonic() + 60 * options.minutes
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=UserWarning)
    name = f"anomaly_{options.name}" if options.name else "anomaly"
    save(name, run(options), "anomaly", rows=options.rows, seeds=options.seeds)


if __name__ == "__main__":
    main()
