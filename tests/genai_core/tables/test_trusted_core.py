"""Anomalies are left out of the core, scattered ones and dense ones."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from genai_core.tables.trusted_core import TRUSTED, trusted_core

ROWS, ODD = 600, 60


def anomalies(kind: str, random: np.random.Generator) -> np.ndarray:
    if kind == "scattered":
        return random.uniform(-8, 8, (ODD, 4))
    if kind == "a clump":
        return random.normal(5, 0.1, (ODD, 4))
    return random.normal(size=(ODD, 4)) * [1, 1, 1, 0] + [0, 0, 0, 4]  # "one column"


@pytest.mark.parametrize("kind", ["scattered", "a clump", "one column"])
def test_most_anomalies_are_not_in_the_core(kind: str) -> None:
    random = np.random.default_rng(0)
    x = np.concatenate([random.normal(size=(ROWS, 4)), anomalies(kind, random)])
    core = trusted_core(pa.table({f"x{i}": column for i, column in enumerate(x.T)}))
    assert len(core) == round(TRUSTED * len(x)) and (np.diff(core) > 0).all()
    assert (core >= ROWS).mean() < 0.02, "they are a tenth of all rows"


def test_categories_and_gaps_are_read_and_the_seed_decides() -> None:
    random = np.random.default_rng(0)
    table = pa.table({
        "word": random.choice(["a", "b", None], 200),
        "n": pa.array(random.integers(0, 9, 200), mask=random.random(200) < 0.1),
    })  # fmt: skip
    assert np.array_equal(trusted_core(table, seed=3), trusted_core(table, seed=3))
