"""Ends work in which nothing commits: first by interrupting it, and as the last resort by ending the process."""

from __future__ import annotations

import ctypes
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

from genai_core.errors import Stalled

T = TypeVar("T")
GRACE_SECONDS = 30.0  # between the interruption and the hard end: native code does not see interruptions


class _Interruption(BaseException):
    """Reaches the work through `except Exception`."""


class Watchdog:
    """Counts the seconds since the last `fed`."""

    def __init__(self, stall_seconds: float) -> None:
        self.stall_seconds = stall_seconds
        self._fed = time.monotonic()

    def fed(self) -> None:
        """Something was committed."""
        self._fed = time.monotonic()

    @property
    def left(self) -> float:
        """Seconds until this is a stall; negative afterwards."""
        return self._fed + self.stall_seconds - time.monotonic()

    def stalled(self) -> Stalled:
        return Stalled(
            f"nothing was committed for {self.stall_seconds:g} s, so the job was ended; what was committed stays and "
            "the same command resumes. If a shard simply takes longer, raise compute.stall_seconds"
        )

    def run(self, work: Callable[[], None]) -> None:
        """Do the work in this thread; when nothing is fed for too long, interrupt it and raise Stalled."""
        try:
            with _interruptible() as signalled, self._watched(signalled):
                work()
        except _Interruption:
            raise self.stalled() from None

    def wait_for(self, make: Callable[[], Iterator[T]]) -> Iterator[T]:
        """What an iterator gives; it runs in a thread of its own, which is left behind when it stalls."""
        results: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        unwanted = threading.Event()
        threading.Thread(target=_pump, args=(make, results, unwanted), daemon=True).start()
        try:
            while True:
                what, found = results.get(timeout=max(self.left, 0.01))
                if what == "end":
                    return
                if what == "error":
                    try:
                        raise found
                    finally:
                        # its traceback holds this frame: a cycle, which would keep alive whatever the work held
                        del found
                yield found
        except queue.Empty:
            raise self.stalled() from None
        finally:
            unwanted.set()

    @contextmanager
    def _watched(self, signalled: bool) -> Iterator[None]:
        over = threading.Event()
        watcher = threading.Thread(
            target=self._watch, args=(over, threading.get_ident(), signalled), daemon=True
        )
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()

    def _watch(self, over: threading.Event, target: int, signalled: bool) -> None:
        while not over.wait(max(min(self.left, 1.0), 0.01)):
            if self.left <= 0:
                _interrupt(target, signalled)
                if not over.wait(GRACE_SECONDS):
                    self._end_process()
                return

    def _end_process(self) -> None:
        """The thread is stuck where Python cannot reach it."""
        message = f"error: {self.stalled()} (it did not react, so the process ends here)"
        sys.stderr.write(message + "\n")
        sys.stderr.flush()
        os._exit(Stalled.exit_code)


def _pump(
    make: Callable[[], Iterator[Any]], results: queue.SimpleQueue[tuple[str, Any]], unwanted: threading.Event
) -> None:
    """Hand on until nobody listens any more; the iterator is then closed, and whatever works for it ends."""
    try:
        for found in make():
            if unwanted.is_set():
                return
            results.put(("item", found))
    except BaseException as error:
        results.put(("error", error))
    else:
        results.put(("end", None))


@contextmanager
def _interruptible() -> Iterator[bool]:
    """In the main thread a signal ends even a blocking system call; elsewhere Python offers only an exception."""
    if threading.current_thread() is not threading.main_thread():
        yield False
        return
    before = signal.signal(signal.SIGUSR2, _raise)
    try:
        yield True
    finally:
        signal.signal(signal.SIGUSR2, before)


def _raise(_number: int, _frame: FrameType | None) -> None:
    raise _Interruption


def _interrupt(thread: int, signalled: bool) -> None:
    if signalled:
        signal.pthread_kill(thread, signal.SIGUSR2)
    else:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(_Interruption))
