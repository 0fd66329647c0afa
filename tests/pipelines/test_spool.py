"""The queue to the tracking server: it never blocks, never raises, and loses nothing that could be delivered later."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from pipelines.tracked import spool
from pipelines.tracked.spool import Operation, Rejected, Spool, send_kept

SERVER = "http://user:hunter2@host:5000"


class Server:
    """Takes operations while it is up; refuses some for good."""

    def __init__(self, up: bool = True, refused: str = "") -> None:
        self.up, self.refused = up, refused
        self.got: list[tuple[str, Operation]] = []
        self.calls = 0

    def __call__(self, run_id: str, operation: Operation) -> None:
        self.calls += 1
        if not self.up:
            raise ConnectionError("refused")
        if operation["op"] == self.refused:
            raise Rejected("no such thing")
        self.got.append((run_id, dict(operation)))

    @property
    def steps(self) -> list[int]:
        return [step for _, o in self.got if o["op"] == "metrics" for _, _, _, step, _ in o["metrics"]]


@pytest.fixture(autouse=True)
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENAI_SPOOL", str(tmp_path))
    monkeypatch.setattr(spool, "BACKOFF_SECONDS", (0.01, 0.02))
    monkeypatch.setattr(spool, "FLUSH_SECONDS", 0.05)


def metric(step: int) -> Operation:
    return {"op": "metrics", "metrics": [["loss", 1.0, 0, step, None]]}


def run(server: Any) -> tuple[Spool, list[str]]:
    messages: list[str] = []
    return Spool("run1", SERVER, server, messages.append), messages


def test_everything_arrives_in_order_and_metrics_travel_together() -> None:
    server = Server()
    queue, messages = run(server)
    for step in range(2500):
        queue.put(metric(step))
    queue.put({"op": "end", "status": "FINISHED"})
    assert queue.close() == 0 and messages == []
    assert server.steps == list(range(2500))
    assert server.got[-1][1]["op"] == "end"
    assert server.calls < 10, "at most a thousand metrics a batch, and few batches"


def test_what_waits_for_a_batch_is_delivered_when_it_has_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "FLUSH_SECONDS", 60.0)
    server = Server()
    queue, _ = run(server)
    for step in range(3):
        queue.put(metric(step))
    queue.flush()
    assert server.steps == [0, 1, 2]  # without an end: the process may now be killed
    server.up = False
    queue.put(metric(3))
    started = time.monotonic()
    queue.flush(seconds=30)
    assert time.monotonic() - started < 10  # a server that is away is not waited for
    assert queue.close(0.1) == 1


def test_a_server_that_comes_back_gets_everything_and_nothing_is_reported() -> None:
    server = Server(up=False)
    queue, messages = run(server)
    queue.put(metric(0))
    time.sleep(0.02)
    server.up = True
    queue.put(metric(1))
    assert queue.close() == 0
    assert sorted(server.steps) == [0, 1] and not [m for m in messages if "wait in" in m]


def test_what_a_dead_server_missed_is_kept_reported_once_and_sent_by_the_next_run(tmp_path: Path) -> None:
    server = Server(up=False)
    queue, messages = run(server)
    for step in range(50):
        queue.put(metric(step))
        time.sleep(0.004)
    started = time.monotonic()
    assert queue.close() > 0
    assert time.monotonic() - started < 3
    assert [("does not answer" in m, "wait in" in m) for m in messages] == [(True, False), (False, True)]
    (file,) = tmp_path.iterdir()
    assert "hunter2" not in file.name + file.read_text()
    assert send_kept(SERVER, server) == 0, "still away"
    server.up = True
    assert send_kept("http://another:5000", server) == 0
    assert send_kept(SERVER, server) > 0
    assert server.steps == list(range(50)) and {run_id for run_id, _ in server.got} == {"run1"}
    assert list(tmp_path.iterdir()) == []


def test_what_the_server_refuses_for_good_does_not_hold_up_the_rest() -> None:
    server = Server(refused="params")
    queue, messages = run(server)
    queue.put({"op": "params", "params": {"a": "1"}})
    queue.put(metric(1))
    assert queue.close() == 0 and server.steps == [1]
    assert messages == ["tracking refused a record: no such thing"]


def test_a_server_that_hangs_does_not_delay_the_job(tmp_path: Path) -> None:
    released = threading.Event()
    queue, _ = run(lambda run_id, operation: released.wait(30))
    started = time.monotonic()
    for step in range(1000):
        queue.put(metric(step))
    assert time.monotonic() - started < 0.5
    assert queue.close(0.2) > 0 and time.monotonic() - started < 2
    assert len(list(tmp_path.iterdir())) == 1
    released.set()


def test_memory_does_not_grow_while_a_server_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "MAX_WAITING", 5000)
    queue, _ = run(Server(up=False))
    for step in range(20_000):
        queue.put(metric(step))
    assert sum(len(o["metrics"]) for o in queue._waiting) <= 6000
    queue.close(0.1)


def test_a_spool_that_cannot_be_written_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GENAI_SPOOL", str(tmp_path / "file" / "below"))
    queue, messages = run(Server(up=False))
    queue.put(metric(0))
    queue.close(0.1)
    assert "are lost" in messages[-1]


def test_a_torn_line_of_a_spool_is_skipped(tmp_path: Path) -> None:
    server = Server(up=False)
    queue, _ = run(server)
    queue.put(metric(3))
    queue.close(0.1)
    (file,) = tmp_path.iterdir()
    file.write_text('{"op": "met\n' + file.read_text())
    server.up = True
    assert send_kept(SERVER, server) == 1 and server.steps == [3]
