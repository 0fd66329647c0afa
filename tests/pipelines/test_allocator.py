"""allocator.py: memory that a loop frees stays with the process."""

from __future__ import annotations

import subprocess
import sys

import pytest

LOOP = """
import ctypes, resource, sys
if sys.argv[1] == "keep":
    from pipelines.training.allocator import keep_freed_memory
    assert keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
for _ in range(20):
    blocks = [ctypes.c_void_p(libc.malloc(48 << 20)) for _ in range(2)]
    for block in blocks:
        ctypes.memset(block, 1, 48 << 20)
    for block in blocks:
        libc.free(block)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc")
def test_a_loop_does_not_fault_its_memory_in_again_and_again() -> None:
    faults = {
        mode: int(subprocess.run([sys.executable, "-c", LOOP, mode], capture_output=True, check=True).stdout)
        for mode in ("keep", "default")
    }
    assert faults["keep"] < faults["default"] / 3
