"""What a command and every process below it cost: CPU-seconds and the peak of their memory together.

A wait() counts only children that were waited for, and Ray's daemons are not; so the tree is sampled. Memory is the
proportional set size: pages that processes share (libraries, Ray's object store) count once.
"""

from __future__ import annotations

import contextlib
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

CPU_EVERY = 0.1
MEMORY_EVERY = 0.5  # reading it costs the kernel a millisecond per process


@dataclass
class Cost:
    """Of a whole tree of processes."""

    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    peak_bytes: int = 0
    peak_processes: int = 0
    by_process: dict[int, float] = field(default_factory=dict)

    def rounded(self) -> dict[str, float]:
        """As kept in results."""
        return {
            "cpu_seconds": round(self.cpu_seconds, 2),
            "wall_seconds": round(self.wall_seconds, 2),
            "peak_gb": round(self.peak_bytes / 1e9, 3),
            "processes": self.peak_processes,
        }


def watch(command: Sequence[str | Path], **options: Any) -> Cost:
    """Run a command to its end, which must be a good one."""
    cost, started = Cost(), time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, **options) as process:
        over = threading.Event()
        sampler = threading.Thread(target=_sample, args=(psutil.Process(process.pid), cost, over))
        sampler.start()
        code = process.wait()
        over.set()
        sampler.join()
    if code:
        raise subprocess.CalledProcessError(code, command)
    cost.wall_seconds = time.monotonic() - started
    cost.cpu_seconds = sum(cost.by_process.values())
    return cost


def _sample(root: psutil.Process, cost: Cost, over: threading.Event) -> None:
    next_memory = 0.0
    while not over.wait(CPU_EVERY):
        with contextlib.suppress(psutil.Error):
            tree = [root, *root.children(recursive=True)]
            for process in tree:
                _count_cpu(process, cost)
            if time.monotonic() >= next_memory:
                next_memory = time.monotonic() + MEMORY_EVERY
                cost.peak_bytes = max(cost.peak_bytes, sum(_proportional(process.pid) for process in tree))
                cost.peak_processes = max(cost.peak_processes, len(tree))


def _count_cpu(process: psutil.Process, cost: Cost) -> None:
    with contextlib.suppress(psutil.Error):
        times = process.cpu_times()
        cost.by_process[process.pid] = times.user + times.system


def _proportional(pid: int) -> int:
    """PSS in bytes; 0 for a process that has just ended."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("Pss:")).split()[1])
    return 0
