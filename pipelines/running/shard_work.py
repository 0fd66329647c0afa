"""What a worker does with a shard, in whatever process it runs: compute, write, commit; try again, or quarantine."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from genai_core.errors import InvalidInput, JobFailed, Unavailable
from pipelines.outputs.sink import Sink
from pipelines.plan import Shard
from pipelines.provenance import lineage_column
from pipelines.sources import Reader

RETRY_SECONDS = (
    0.5  # doubled each time, half to one and a half of it: workers shall not come back all at once
)
Produce = Callable[[Shard], tuple[pa.Table, Mapping[str, Any]]]


@dataclass(frozen=True)
class ShardWork:
    """All that a worker needs, small enough to be sent to it.

    `producer(work, model)`, called once in the worker, gives the function from a shard to its table and facts for
    its record.
    """

    producer: Callable[[ShardWork, Any], Produce]
    model: str  # directory of the artifact
    sink: str
    footer: Mapping[str, Any] | None
    options: Mapping[str, Any] = field(default_factory=dict)
    reader: Reader | None = None
    retries: int = 3
    lineage_of: str | None = None  # the job's id, when every row shall carry where it was made


class ShardWorker:
    """Loads the model once, then does shard after shard."""

    def __init__(self, work: ShardWork) -> None:
        from genai_core import artifact

        self.work = work
        self.sink = Sink(work.sink)
        model = artifact.load(Path(work.model))
        self.produce = work.producer(work, model)

    def __call__(self, shard: Shard) -> dict[str, Any]:
        """The shard's record: {"id", "rows", ...} when it is committed, {"id", "error", ...} when quarantined."""
        for attempt in range(self.work.retries + 1):
            try:
                return self._commit(shard)
            except _NotWritten as error:
                if attempt == self.work.retries:
                    raise JobFailed(
                        f"shard {shard.id} could not be written: {error}. What was committed stays; the same command "
                        "resumes"
                    ) from error
            except Exception as error:
                if attempt == self.work.retries or not _may_pass(error):
                    return self._quarantined(shard, error, attempt + 1)
            time.sleep(RETRY_SECONDS * 2**attempt * random.SystemRandom().uniform(0.5, 1.5))
        raise AssertionError("unreachable")

    def _quarantined(self, shard: Shard, error: Exception, attempts: int) -> dict[str, Any]:
        try:
            return self.sink.quarantine(shard, error, attempts)
        except Unavailable as second:
            raise JobFailed(
                f"shard {shard.id} failed ({error}), and that could not be written down either ({second}). What was "
                "committed stays; the same command resumes"
            ) from error

    def _commit(self, shard: Shard) -> dict[str, Any]:
        done = self.sink.committed(shard)
        if done is not None:  # by another run of the job, or by a worker that was thought dead
            return done
        table, extra = self.produce(shard)
        if self.work.lineage_of is not None:
            table = lineage_column.add(table, self.work.lineage_of, shard)
        try:
            own = shard.payload.get("footer", {})  # what is true of this shard's file alone
            footer = None if self.work.footer is None else {**self.work.footer, **own}
            return self.sink.write_shard(shard, table, footer, extra)
        except Unavailable as error:
            raise _NotWritten(str(error)) from error


class _NotWritten(Unavailable):
    """The output's disk or store failed, which is no fault of the shard's."""


def _may_pass(error: Exception) -> bool:
    """Whether another attempt may succeed: bad input stays bad, an unreachable store may come back."""
    return isinstance(error, Unavailable) or not isinstance(error, InvalidInput)


def use_one_thread() -> None:
    """One torch thread for the rest of this process: see `genai_core.threads`; and workers would fight for cores."""
    import torch

    torch.set_num_threads(1)


def one_thread() -> AbstractContextManager[None]:
    """The same for the time of a block: this process may be a notebook."""
    from genai_core.threads import threads

    return threads(1)
