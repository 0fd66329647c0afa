"""docs/generating.md: its examples run, in their order, on a model of flights."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow as pa

from tests.contract.sampled import learnt

PAGE = Path(__file__).parent.parent / "docs" / "generating.md"


def flights(rows: int = 2000) -> pa.Table:
    random = np.random.default_rng(0)
    delay = random.exponential(30, rows).astype(int) - 15
    return pa.table(
        {
            "carrier": random.choice(["AA", "UA", "DL"], rows),
            "distance": random.integers(100, 3000, rows),
            "delay": pa.array(delay, mask=random.random(rows) < 0.1),
            "late": delay > 30,
        }
    )


def test_its_examples_run() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 5
    names = {"model": learnt(flights(), 1)}
    for block in blocks[1:]:  # the first loads a model
        exec(block, names)
