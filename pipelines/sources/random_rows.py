"""A random sample of a source, in one pass that stops early where a source is long."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from pipelines.sources.source import Source

PIECE = 4096  # rows of a random stretch
TIMES = 8  # as many rows are looked at as are wanted, at least


def random_rows(source: Source, rows: int, seed: int, columns: list[str] | None = None) -> pa.Table:
    """`rows` rows that pass the filter, or all when there are fewer; the same for the same seed.

    Stretches of at most 4,096 rows are visited in a random order until eight times as many rows as wanted were seen;
    of these each is kept with the same probability. Sources up to that size are sampled uniformly, longer ones by
    stretches, whose rows may resemble each other.
    """
    random = np.random.default_rng(seed)
    pieces = list(source.pieces(PIECE))
    kept: list[pa.Table] = []
    keys = np.zeros(0)
    seen = 0
    for place in random.permutation(len(pieces)):
        table, _ = source.read_with_rows(pieces[place], columns)
        seen += table.num_rows
        kept.append(table)
        keys = np.concatenate([keys, random.random(table.num_rows)])
        if sum(map(len, kept)) > 4 * rows + PIECE:
            kept, keys = _smallest(kept, keys, rows)
        if seen >= TIMES * rows:
            break
    kept, _ = _smallest(kept, keys, rows)
    return kept[0]


def _smallest(kept: list[pa.Table], keys: np.ndarray, rows: int) -> tuple[list[pa.Table], np.ndarray]:
    chosen = np.argsort(keys, kind="stable")[:rows]
    return [pa.concat_tables(kept).take(pa.array(chosen)).combine_chunks()], keys[chosen]
