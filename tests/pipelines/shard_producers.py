"""Producers for tests of the machinery: rows without a model's cleverness, and ways to fail."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from genai_core.errors import InvalidData
from pipelines.plan import Shard
from pipelines.running.shard_work import Produce, ShardWork


def numbers(shard: Shard) -> pa.Table:
    """Numbers that only the shard's seed decides."""
    random = np.random.default_rng(shard.seed)
    return pa.table(
        {"id": shard.payload["first"] + np.arange(shard.rows), "x": random.normal(size=shard.rows)}
    )


def plain(work: ShardWork, model: Any) -> Produce:
    """Every shard succeeds."""
    return lambda shard: (numbers(shard), {})


def misbehaving(work: ShardWork, model: Any) -> Produce:
    """Shard `options["bad"]` fails `options["times"]` times in the way of `options["how"]`; a file counts."""
    options: Mapping[str, Any] = work.options
    counter = Path(options["counter"])

    def produce(shard: Shard) -> tuple[pa.Table, dict[str, Any]]:
        if shard.id == options["bad"] and len(counter.read_bytes()) < options["times"]:
            with counter.open("ab") as file:
                file.write(b".")
            misbehave(options["how"], counter)
        return numbers(shard), {}

    return produce


def misbehave(how: str, counter: Path) -> None:
    """Fail by chance, for good, by dying, or by not coming back while the counter is there."""
    if how == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    while how == "hang" and counter.exists():
        time.sleep(0.1)
    raise InvalidData("the file has changed") if how == "bad data" else RuntimeError("a busy store")
