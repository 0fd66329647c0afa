"""A queue between a job and a tracking server: nothing that the server does can fail or delay the job.

Operations are JSON-able dicts, so what could not be delivered is kept as lines of a file and sent by the next run.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

Operation = dict[str, Any]
Send = Callable[
    [str, Operation], None
]  # (run id, operation); raises Rejected, or anything else when it may work later

FLUSH_SECONDS = 2.0
BACKOFF_SECONDS = (1.0, 2.0, 4.0, 8.0, 15.0)
MAX_METRICS = 1000  # MLflow's limit for one batch
MAX_WAITING = 100_000  # metrics kept in memory while a server is away


class Rejected(Exception):
    """The server answered, and will never accept this operation."""


def spool_directory() -> Path:
    """Where undelivered operations wait: GENAI_SPOOL, else the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("GENAI_SPOOL") or Path(cache) / "genai" / "spool")


def _server_key(server: str) -> str:
    return hashlib.sha256(server.encode()).hexdigest()[:12]


class Spool:
    """Delivers the operations of one run from a thread of its own.

    `server` is the tracking URI; `report` is told at most once that something is not delivered.
    """

    def __init__(self, run_id: str, server: str, send: Send, report: Callable[[str], None]) -> None:
        self.run_id = run_id
        self._server, self._send, self._report = server, send, report
        self._waiting: deque[Operation] = deque()
        self._lock = threading.Condition()
        self._closing = self._failing = self._reported = self._hurried = False
        self._thread = threading.Thread(target=self._deliver, name="genai-tracking", daemon=True)
        self._thread.start()

    def put(self, operation: Operation) -> None:
        """Never blocks, never raises; beyond MAX_WAITING the oldest metrics go."""
        with self._lock:
            last = self._waiting[-1] if self._waiting else None
            if operation["op"] == "metrics" and last is not None and _fits(last, operation):
                last["metrics"].extend(operation["metrics"])
            else:
                self._waiting.append(operation)
            if len(self._waiting) > MAX_WAITING // MAX_METRICS:
                self._drop_oldest_metrics()

    def flush(self, seconds: float = 10.0) -> None:
        """Wait for at most so long until all that waits is delivered; not at all while the server is away."""
        deadline = time.monotonic() + seconds
        with self._lock:
            self._hurried = True
            self._lock.notify_all()
            while self._waiting and not self._failing and time.monotonic() < deadline:
                self._lock.wait(0.02)
            self._hurried = False

    def close(self, seconds: float = 10.0) -> int:
        """Deliver what waits for at most so long (2 s when the server was already away); keep the rest on disk.

        Returns the number of operations that were not delivered.
        """
        with self._lock:
            self._closing = True
            self._lock.notify_all()
        self._thread.join(min(seconds, 2.0) if self._failing else seconds)
        with self._lock:
            left = list(self._waiting)
            self._waiting.clear()
        if left:
            self._keep(left)
        return len(left)

    def _drop_oldest_metrics(self) -> None:
        for index in range(1, len(self._waiting)):  # the first one may be on its way
            if self._waiting[index]["op"] == "metrics":
                del self._waiting[index]
                return

    def _deliver(self) -> None:
        attempt = 0
        while (operation := self._next(attempt)) is not None:
            try:
                self._send(self.run_id, operation)
            except Rejected as error:
                self._tell(f"tracking refused a record: {error}")
            except Exception as error:  # the job goes on whatever happens to its records
                attempt += 1
                self._failing = True
                if attempt == len(BACKOFF_SECONDS):
                    self._tell(
                        f"the tracking server does not answer ({_short(error)}); records are kept and sent later"
                    )
                continue
            attempt = 0
            self._failing = False
            with self._lock:
                if self._waiting and self._waiting[0] is operation:
                    self._waiting.popleft()

    def _next(self, attempt: int) -> Operation | None:
        """The oldest operation, once it is time to send it; None when closed and nothing more can be done."""
        with self._lock:
            if attempt and self._closing:
                return None
            if attempt:
                self._lock.wait(BACKOFF_SECONDS[min(attempt, len(BACKOFF_SECONDS)) - 1])
            while not self._waiting:
                if self._closing:
                    return None
                self._lock.wait(FLUSH_SECONDS)
            at_once = self._closing or self._hurried
            if not at_once and not attempt and self._waiting[0]["op"] == "metrics":
                self._lock.wait(FLUSH_SECONDS)  # let a batch grow
            self._waiting[0]["sealed"] = True
            return self._waiting[0]

    def _tell(self, message: str) -> None:
        if not self._reported:
            self._reported = True
            with contextlib.suppress(Exception):
                self._report(message)

    def _keep(self, operations: list[Operation]) -> None:
        path = spool_directory() / f"{_server_key(self._server)}-{self.run_id}.jsonl"
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with path.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(operation) + "\n" for operation in operations)
        except OSError as error:
            self._reported = False
            self._tell(f"{len(operations)} tracking records are lost: {path} cannot be written ({error})")
            return
        self._reported = False
        self._tell(
            f"{len(operations)} tracking records wait in {path}; the next run against this server sends them"
        )


def _fits(last: Mapping[str, Any], more: Mapping[str, Any]) -> bool:
    sealed = last["op"] != "metrics" or last.get("sealed")
    return not sealed and len(last["metrics"]) + len(more["metrics"]) <= MAX_METRICS


def _short(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:160]}" if text else type(error).__name__


def _kept(server: str) -> Iterator[Path]:
    yield from sorted(spool_directory().glob(f"{_server_key(server)}-*.jsonl"))


def send_kept(server: str, send: Send, seconds: float = 5.0) -> int:
    """Send what earlier runs could not; returns the number of operations delivered."""
    deadline, delivered = time.monotonic() + seconds, 0
    for path in _kept(server):
        run_id = path.stem.partition("-")[2]
        lines = path.read_text(encoding="utf-8").splitlines()
        for position, line in enumerate(lines):
            if time.monotonic() > deadline:
                path.write_text("\n".join(lines[position:]) + "\n", encoding="utf-8")
                return delivered
            try:
                send(run_id, json.loads(line))
                delivered += 1
            except (Rejected, ValueError):
                continue
            except Exception:  # still away: the next run tries again
                path.write_text("\n".join(lines[position:]) + "\n", encoding="utf-8")
                return delivered
        path.unlink(missing_ok=True)
    return delivered
