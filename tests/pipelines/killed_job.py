"""Runs a batch job in a process of its own that dies by kill -9 at a chosen place; not a test by itself.

python killed_job.py JOB.json PLACE COUNT
PLACE  the part of a path at whose COUNT-th write the process dies: before it, or after it when it ends in '!'
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from pipelines.stores import storage


def die_at(place: str, count: int) -> None:
    """From now on the count-th write of a matching file is the last thing that happens."""
    whole, seen = storage.put_bytes, [0]
    wanted, after = place.rstrip("!"), place.endswith("!")

    def put_bytes(filesystem: Any, path: str, data: bytes, **options: Any) -> bool:
        seen[0] += wanted in path
        last = wanted in path and seen[0] == count
        if last and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        written: bool = whole(filesystem, path, data, **options)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)
        return written

    storage.put_bytes = put_bytes


def die_after(records: int) -> None:
    """The driver dies when so many shards were reported: workers elsewhere go on for a moment."""
    from pipelines.progress import Progress

    seen = [0]

    def advance(self: Progress, n: float = 1, **facts: Any) -> None:
        seen[0] += 1
        if seen[0] == records:
            os.kill(os.getpid(), signal.SIGKILL)

    Progress.advance = advance  # type: ignore[method-assign]


def forget_the_code() -> None:
    """An editor that saves a file between two runs of a test shall not make them different jobs."""
    from pipelines import batch, batch_job

    for module in (batch, batch_job):
        module.code_fingerprint = lambda: "sha256:code"


def run(spec: dict[str, Any]) -> dict[str, Any]:
    """The job's result."""
    from importlib import import_module

    from pipelines.context import Context

    module = import_module(f"pipelines.{spec['job']}")
    job = getattr(module, f"{spec['job'].capitalize()}Job").model_validate(spec)
    result: dict[str, Any] = module.run(job, Context())
    return result


if __name__ == "__main__":
    job, place, count = json.loads(Path(sys.argv[1]).read_text()), sys.argv[2], int(sys.argv[3])
    forget_the_code()
    if place == "record":
        die_after(count)
    elif place != "never":
        die_at(place, count)
    print(json.dumps(run(job)))
