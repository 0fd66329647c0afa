"""The trusted core of a reference that may hold anomalies: the rows that quick and robust methods agree upon

Strong one-class models learn the anomalies by heart if they are among what is learnt. Three votes, by rank: an
isolation forest (Liu et al. 2008), the mean distance to the nearest of SUBSAMPLE random rows (Sugiyama & Borgwardt
2013), the distance under a trimmed covariance (after Rousseeuw & Van Driessen 1999). Two votes alone let one table
fall from 99.3 to 2.7 AUROC. In a second round the forest votes with the distance to the core of the first: over 24
tables the distance to five neighbours in the core went from 79.5 / 42.9 to 80.0 / 44.9 (AUROC / average precision), a
third round was no better (79.9 / 43.7).
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import torch
from sklearn.ensemble import IsolationForest

from genai_core.modalities.tabular import TabularCodec
from genai_core.spaces import Tokens
from genai_core.tables.vectors import fit_vectors, points, vectors

TRUSTED = 0.6  # share of the rows
SUBSAMPLE, SUBSAMPLES = 16, 50
ROUNDS = 5
RIDGE = 1e-2  # of the mean variance
SAMPLE = 20_000  # rows that the vectors and the forest are fitted on
NEIGHBOURS, REMEMBERED = 5, 4096


def trusted_core(table: pa.Table, seed: int = 0) -> np.ndarray:
    """Sorted numbers of the rows to learn from, TRUSTED of them."""
    codec = TabularCodec.fit(table.to_batches(max_chunksize=65_536), table.schema)
    x = torch.from_numpy(codec.encode(table).tokens.astype(np.int64))
    random = np.random.default_rng(seed)
    forest, *others = votes(codec.space, x, random, seed)
    first = _agreed([forest, *others])
    return _agreed([forest, _to_core(codec.space, x, first, random)])


def _agreed(votes: list[np.ndarray]) -> np.ndarray:
    """Sorted numbers of the TRUSTED rows with the lowest ranks."""
    ranks = sum(vote.argsort(kind="stable").argsort() for vote in votes)
    kept = max(round(TRUSTED * len(votes[0])), 2)
    return np.sort(np.argsort(ranks, kind="stable")[:kept])


def votes(space: Tokens, x: torch.Tensor, random: np.random.Generator, seed: int) -> list[np.ndarray]:
    """How odd each record of x (rows, positions) is by each method of the first round, (rows,); higher is more."""
    sample = torch.from_numpy(random.permutation(len(x))[:SAMPLE])
    view = fit_vectors(space, x[sample])
    found = vectors(view, x, None)
    rows = points(view, found, found.numbers).numpy().astype(np.float64)
    forest = IsolationForest(random_state=seed % 2**32).fit(rows[sample.numpy()])
    return [-forest.score_samples(rows), _to_subsamples(rows, random), _trimmed(rows)]


def _to_core(space: Tokens, x: torch.Tensor, core: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Mean distance to NEIGHBOURS rows of the core, in the core's standard deviations."""
    view = fit_vectors(space, x[random.permutation(core)[:SAMPLE]])
    found = vectors(view, x, None)
    rows = points(view, found, found.standard)
    kept = rows[random.permutation(core)[:REMEMBERED]]
    near = [
        torch.cdist(part, kept).topk(min(NEIGHBOURS, len(kept)), 1, largest=False) for part in rows.split(256)
    ]
    return torch.cat([part.values.mean(1) for part in near]).numpy()


def _to_subsamples(rows: np.ndarray, random: np.random.Generator) -> np.ndarray:
    found = np.zeros(len(rows))
    tensor = torch.from_numpy(rows)
    for _ in range(SUBSAMPLES):
        chosen = random.choice(len(rows), min(SUBSAMPLE, len(rows)), replace=False)
        found += torch.cdist(tensor, tensor[chosen]).amin(1).numpy()
    return found


def _trimmed(rows: np.ndarray) -> np.ndarray:
    """Squared Mahalanobis distance, refitted on the nearest TRUSTED rows."""
    kept = np.arange(len(rows))
    squared = np.zeros(len(rows))
    for _ in range(ROUNDS):
        mean = rows[kept].mean(0)
        covariance = np.atleast_2d(np.cov(rows[kept].T))
        ridge = RIDGE * max(np.trace(covariance) / len(covariance), 1e-6)
        root = np.linalg.cholesky(covariance + ridge * np.eye(len(covariance)))
        squared = np.square(np.linalg.solve(root, (rows - mean).T)).sum(0)
        kept = np.argsort(squared, kind="stable")[: max(int(TRUSTED * len(rows)), 2)]
    return squared
