"""The C library's memory: kept between two steps of a loop instead of being given back and faulted in again."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
KEPT = 2**30


def keep_freed_memory() -> bool:
    """Let glibc's malloc keep up to 1 GiB that is free at the moment; False where there is no glibc.

    A training step frees and allocates the same hundred megabytes again. By default each round goes through the
    kernel: fitting the flights for 40 s took 19 s of system time for 37,000 rows, and 1.5 s for 140,000 rows with
    this (autoregressive, one thread, a virtual machine). It concerns the whole process: for programs, not libraries.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return all(
        mallopt(ctypes.c_int(option), ctypes.c_int(KEPT)) == 1
        for option in (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD)
    )
