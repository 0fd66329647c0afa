"""Short texts drawn by three families: trigrams beside real against real, told from real, copied, drawn twice.

    python -m benchmarks.texts --data DIR [--seconds 240] [--families autoregressive vae gan]

DIR/text/names.txt, 32,000 given names in a drawn order: nine tenths to learn from, the others to compare with. One
thread; every family gets the same seconds. Divergence: Jensen-Shannon, of trigrams of characters with the ends of the
names, in bits. Told apart: AUC of a logistic regression on counts of one to three characters, five folds, of as many
drawn names as real ones. In training: the share of names that were learnt from, of real ones that occur there too.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline

from benchmarks.record import save
from genai_core import fit

FAMILIES = ("autoregressive", "vae", "gan")
COLUMN, LENGTH = "name", 16


def main() -> None:
    """Fit, draw, compare, record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=240, help="of training, each family")
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=FAMILIES)
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args()
    torch.set_num_threads(1)
    names = np.array((given.data / "text" / "names.txt").read_text().split())
    names = names[np.random.default_rng(given.seed).permutation(len(names))]
    train, held_out = np.split(names, [int(0.9 * len(names))])
    known = set(train.tolist())
    figures: dict[str, Any] = {"real": compared(train[: len(held_out)], held_out)}
    figures["real"]["in_training"] = copied(held_out, known)
    print(figures, flush=True)
    for family in given.families:
        start = time.process_time()
        model = fit(
            pa.table({COLUMN: pa.array(train.tolist())}),
            family,
            modality={"kind": "text", "column": COLUMN, "length": LENGTH},
            seed=given.seed,
            max_seconds=given.seconds,
        )
        trained = time.process_time() - start
        made = model.sample(len(held_out), seed=given.seed)[COLUMN].to_pylist()
        figures[family] = {"training_cpu_seconds": round(trained), "like": made[:8]}
        figures[family] |= compared(np.array(made), held_out) | {"in_training": copied(made, known)}
        print(family, figures[family], flush=True)
    save("texts", figures, seconds=given.seconds, seed=given.seed)


def compared(made: np.ndarray, real: np.ndarray) -> dict[str, float]:
    """Texts beside as many real ones."""
    found = {
        "trigram_divergence_bits": divergence(trigrams(made), trigrams(real)),
        "told_apart_auc": told_apart(made, real),
        "distinct": len(set(made.tolist())) / len(made),
    }
    return {name: round(value, 4) for name, value in found.items()}


def copied(texts: Iterable[str], known: Collection[str]) -> float:
    """The share that is known."""
    return round(float(np.mean([text in known for text in texts])), 4)


def trigrams(texts: np.ndarray) -> Counter[str]:
    """How often each occurs; ^ and $ stand for the ends."""
    counts: Counter[str] = Counter()
    for text in texts.tolist():
        whole = f"^{text}$"
        counts.update(whole[i : i + 3] for i in range(len(whole) - 2))
    return counts


def divergence(one: Counter[str], other: Counter[str]) -> float:
    """Jensen-Shannon, bits."""
    keys = sorted(one | other)
    p, q = (np.array([counts[key] for key in keys], float) for counts in (one, other))
    p, q = p / p.sum(), q / q.sum()
    middle = (p + q) / 2
    parts = [np.sum(x[x > 0] * np.log2(x[x > 0] / middle[x > 0])) for x in (p, q)]
    return float(sum(parts)) / 2


def told_apart(made: np.ndarray, real: np.ndarray) -> float:
    """AUC out of fold; 0.5: nothing tells them apart."""
    texts, labels = np.r_[made, real], np.r_[np.ones(len(made)), np.zeros(len(real))]
    counts = CountVectorizer(analyzer="char_wb", ngram_range=(1, 3), min_df=3)
    judge = make_pipeline(counts, LogisticRegression(C=0.1, max_iter=1000))
    return float(
        roc_auc_score(labels, cross_val_predict(judge, texts, labels, cv=5, method="predict_proba")[:, 1])
    )


if __name__ == "__main__":
    main()
