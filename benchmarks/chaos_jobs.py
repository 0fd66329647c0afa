"""The jobs that chaos interrupts, drivers that start in milliseconds and die where they are told, and what is left

A driver is a fork of a process that has imported everything: it costs the job's own work and nothing more.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import os
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from genai_core.errors import GenAIError
from pipelines.provenance.sealing import RUN  # in which equal jobs differ
from tests.pipelines import killed_job

ROWS, ROWS_PER_SHARD = 600, 100
CRASHED = 99  # the exit code of a driver that ended with an error that is none of ours
WRITES = {
    "os.rename": 1,
    "os.link": 1,
    "os.remove": 0,
    "os.mkdir": 0,
    "os.rmdir": 0,
}  # audit event -> its interesting argument
Spec = dict[str, Any]


def table(rows: int) -> pa.Table:
    """Rows with a null here and there."""
    random, start = np.random.default_rng(0), datetime.datetime(2013, 1, 1)
    seats = [None if i % 9 == 0 else int(seat) for i, seat in enumerate(random.integers(50, 400, rows))]
    hours = [start + datetime.timedelta(hours=int(hour)) for hour in random.integers(0, 5000, rows)]
    return pa.table(
        {
            "origin": pa.array(random.choice(["JFK", "LGA", "EWR"], rows)),
            "delay": pa.array(random.normal(5, 20, rows)),
            "seats": pa.array(seats),
            "hour": pa.array(hours, pa.timestamp("us")),
        }
    )


def prepare(home: Path, rows: int = ROWS) -> dict[str, Spec]:
    """A source and a small model in `home`; one job of every verb, a hundred rows a shard, six checkpoints a fit."""
    from genai_core import fit

    home.mkdir(parents=True, exist_ok=True)
    source, model = home / "rows.parquet", home / "model"
    if not source.exists():
        pq.write_table(table(rows), source, row_group_size=ROWS_PER_SHARD)
    if not model.exists():
        small = {"context": 16, "hidden": 8, "embedding": 4}
        fit(table(ROWS), max_epochs=1, seed=1, model=small).save(model)
    common: Spec = {"track": {"enabled": False}, "sink": {"path": "out"}}
    batch = {**common, "model": str(model), "rows_per_shard": ROWS_PER_SHARD}
    read = {"kind": "parquet", "path": str(source)}
    train = {
        "job": "train",
        "name": "small",
        "source": read,
        "model": {"kind": "autoregressive", "context": 16, "hidden": 16, "embedding": 4},
        "fit": {"max_epochs": 12, "evaluations": 6, "patience": 1000},
        "checkpoints": "checkpoints",
    }
    return {
        "generate": {**batch, "job": "generate", "rows": rows, "seed": 7},
        "score": {**batch, "job": "score", "source": read, "top_k": 60, "keep": ["origin"]},
        "train": {**common, **train},
    }


# -- where a driver dies ---------------------------------------------------------------------------------------


def steps(home: Path, on_step: Callable[[int, str], None]) -> None:
    """From now on `on_step(number, name)` is called before every change of the files below `home`."""
    root, count = f"{home}/", 0

    def heard(event: str, args: tuple[Any, ...]) -> None:
        nonlocal count
        path = _changed(event, args)
        if path is None or not path.startswith(root):
            return
        count += 1
        on_step(count, f"{event} {path.removeprefix(root)}")

    sys.addaudithook(heard)


def _changed(event: str, args: tuple[Any, ...]) -> str | None:
    """The path that an audit event is about to change."""
    if not args or not isinstance(args[0], str | os.PathLike):
        return None
    if event == "open" and args[2] & (os.O_WRONLY | os.O_RDWR):
        return _absolute(args[0])
    return _absolute(args[WRITES[event]]) if event in WRITES else None


def _absolute(path: str | os.PathLike[str]) -> str:
    """Links are not followed: a hook must be quick, and the paths of a job hold none."""
    return str(Path.cwd() / os.fsdecode(path))


def die_at_step(home: Path, number: int) -> Callable[[], None]:
    """To arm a driver with: it dies by SIGKILL before its so-manieth change of a file."""

    def on_step(count: int, name: str) -> None:
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)

    return lambda: steps(home, on_step)


def phase(step: str) -> str:
    """The phase of a commit in which a driver that dies before this step dies."""
    event, _, path = step.partition(" ")
    name = path.rpartition("/")[2].lstrip(".")
    opening = event == "open"
    if name.startswith("part-") and event != "os.remove":
        return "before data" if opening else "data written, not in place"
    if "_shards/" in path and event != "os.remove":
        return "between data and record" if opening else "record written, not in place"
    if name.startswith("_MANIFEST"):
        return "between records and manifest" if opening else "manifest written, not in place"
    return _other_phase(event, path)


def _other_phase(event: str, path: str) -> str:
    if path.startswith("checkpoints"):
        return "writing a checkpoint"
    if path.startswith(("tmp", "mlartifacts", "mlflow")):
        return "beside the output"
    if event == "os.remove" or path.startswith("out/_"):
        return "taking or tidying the output"
    if path.startswith(".out") or path == "out":
        return (
            "publishing the model" if event != "os.mkdir" or path != "out" else "taking or tidying the output"
        )
    return "taking or tidying the output"


def jump_clock(home: Path, number: int, seconds: float) -> Callable[[], None]:
    """To arm a driver with: what Python code reads as the time of day leaps at the so-manieth change of a file."""
    now, now_ns, leap = time.time, time.time_ns, [0.0]

    def on_step(count: int, name: str) -> None:
        leap[0] = seconds if count >= number else 0.0

    def arm() -> None:
        time.time = lambda: now() + leap[0]
        time.time_ns = lambda: now_ns() + int(leap[0] * 1e9)
        steps(home, on_step)

    return arm


def nothing() -> None:
    """Of a driver that nobody disturbs."""


# -- drivers ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ended:
    """How a driver ended: exit code (negative: signal; None: it did not end in time), result or error."""

    code: int | None
    seconds: float
    result: Mapping[str, Any]
    said: str

    @property
    def done(self) -> bool:
        return self.code == 0 and self.result.get("status") == "done"

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL


class Driver:
    """A job that runs in a process of its own, in the directory `home`."""

    def __init__(
        self,
        spec: Spec,
        home: Path,
        arm: Callable[[], None] = nothing,
        environment: Mapping[str, str] | None = None,
        act: Callable[[Spec], Any] = killed_job.run,
    ) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self._out = Path(tempfile.mkdtemp(prefix="driver-", dir=home.parent))
        (self._out / "said.txt").touch()  # it may die before it can say anything
        self.started = time.monotonic()
        self.pid = os.fork()
        if not self.pid:
            _be_driver(spec, home, self._out, arm, environment or {}, act)
        self._handle = os.pidfd_open(self.pid)

    def kill(self) -> None:
        """By SIGKILL; one that has ended stays as it ended."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def over(self, seconds: float) -> bool:
        """Whether it ends within so many seconds."""
        return bool(select.select([self._handle], [], [], max(seconds, 0))[0])

    def wait(self, seconds: float) -> Ended:
        """How it ended; one that takes longer is killed, and its code is None."""
        ended = self.over(seconds)
        elapsed = time.monotonic() - self.started
        self.kill()
        _, status = os.waitpid(self.pid, 0)
        os.close(self._handle)
        result, said = self._out / "result.json", (self._out / "said.txt").read_text(errors="replace")
        found = json.loads(result.read_text()) if result.exists() else {}
        shutil.rmtree(self._out)  # with the scratch files of a driver that could not remove them
        return Ended(os.waitstatus_to_exitcode(status) if ended else None, elapsed, found, said)


def _be_driver(
    spec: Spec,
    home: Path,
    out: Path,
    arm: Callable[[], None],
    environment: Mapping[str, str],
    act: Callable[[Spec], Any],
) -> None:
    """In the fork: do the job, write down what it gives, and end without what the parent would do at its end."""
    code = CRASHED
    try:
        os.setsid()
        said = os.open(out / "said.txt", os.O_WRONLY | os.O_CREAT)
        os.dup2(said, 1)
        os.dup2(said, 2)
        os.chdir(home)
        os.environ.update(environment)
        tempfile.tempdir = str(out)
        arm()
        result = act(spec)
        (out / "result.json").write_text(json.dumps(result, default=str))
        code = 0
    except GenAIError as error:
        code = error.exit_code
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


# -- what is left ----------------------------------------------------------------------------------------------


def files(folder: Path) -> dict[str, str]:
    """The files below a folder with the hashes of their bytes."""
    found = {str(path.relative_to(folder)): _hash(path.read_bytes()) for path in _below(folder)}
    return {name: digest for name, digest in found.items() if name != RUN}


def _below(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def stored_files(uri: str) -> dict[str, str]:
    """The same of a directory in a store, open multipart uploads excepted: pyarrow does not list them."""
    from pipelines.stores import storage

    filesystem, root = storage.resolve(uri)
    names = {info.path: info.path[len(root) + 1 :] for info in storage.list_files(filesystem, root)}
    return {name: _hash(storage.read_bytes(filesystem, path)) for path, name in names.items() if name != RUN}


def rows_are_right(folder: Path, verb: str, rows: int) -> bool:
    """Every row once: scored rows by file and number, generated ones by shard."""
    if verb == "train":
        return True
    read = pq.read_table(folder / "data")
    if verb == "score":
        places = set(zip(read["source_file"].to_pylist(), read["source_row"].to_pylist(), strict=True))
        return read.num_rows == len(places) == rows
    shards = sorted(int(path.name.split("-")[1]) for path in (folder / "data").iterdir())
    return read.num_rows == rows and shards == list(range(-(-rows // ROWS_PER_SHARD)))
