"""Work in which nothing commits ends: in the main thread, in others, in a thread of its own, and by force."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from genai_core.errors import Stalled
from pipelines.running.watchdog import Watchdog


def swallowing() -> None:
    """As stubborn as code that retries whatever happens; each wait is a blocking system call."""
    while True:
        try:
            time.sleep(0.05 if threading.current_thread() is not threading.main_thread() else 60)
        except Exception:
            continue


def seconds_until_stalled(work: Callable[[], None], stall_seconds: float) -> float:
    started = time.monotonic()
    with pytest.raises(
        Stalled, match=rf"nothing was committed for {stall_seconds:g} s.*compute.stall_seconds"
    ):
        Watchdog(stall_seconds).run(work)
    return time.monotonic() - started


def test_the_main_thread_is_interrupted_in_a_system_call() -> None:
    assert 0.2 <= seconds_until_stalled(swallowing, 0.2) < 5


def test_another_thread_is_interrupted() -> None:
    found: list[float] = []
    thread = threading.Thread(target=lambda: found.append(seconds_until_stalled(swallowing, 0.2)))
    thread.start()
    thread.join(20)
    assert found
    assert found[0] >= 0.2


def test_work_that_commits_goes_on_for_longer_than_the_limit() -> None:
    dog = Watchdog(0.4)

    def work() -> None:
        for _ in range(5):
            time.sleep(0.2)
            dog.fed()

    dog.run(work)


def test_errors_of_the_work_pass_through_and_the_watch_ends() -> None:
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError):
        Watchdog(60).run(lambda: 1 // 0)
    assert threading.active_count() == before


def test_what_does_not_react_is_ended_with_a_message() -> None:
    code = """
        import ctypes, time
        from pipelines.running import watchdog

        def deaf():
            end = time.monotonic() + 60
            while time.monotonic() < end:
                try:
                    ctypes.CDLL(None).usleep(100_000)
                except BaseException:
                    pass

        watchdog.GRACE_SECONDS = 0.3
        watchdog.Watchdog(0.2).run(deaf)
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=50
    )
    assert ended.returncode == 1
    assert "nothing was committed for 0.2 s" in ended.stderr
    assert "the process ends here" in ended.stderr


def test_waiting_for_what_never_comes_ends() -> None:
    over = threading.Event()

    def never() -> Iterator[int]:
        yield 1
        over.wait(60)

    waiting = Watchdog(0.3).wait_for(never)
    assert next(waiting) == 1
    with pytest.raises(Stalled):
        next(waiting)
    over.set()


def test_waiting_hands_on_items_and_errors() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise KeyError("x")

    found = Watchdog(60).wait_for(broken)
    assert next(found) == 1
    with pytest.raises(KeyError):
        next(found)
    assert list(Watchdog(60).wait_for(lambda: iter([1, 2, 3]))) == [1, 2, 3]


def test_a_listener_that_leaves_closes_what_it_listened_to() -> None:
    closed = threading.Event()

    def endless() -> Iterator[int]:
        try:
            while True:
                time.sleep(0.01)
                yield 1
        finally:
            closed.set()

    found = Watchdog(60).wait_for(endless)
    next(found)
    found.close()
    assert closed.wait(10)
