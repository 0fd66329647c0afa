"""How torch computes: on how many threads, with or without denormal numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def threads(number: int) -> Iterator[None]:
    """`number` threads for the time of a block.

    One is the default everywhere: sums in another order are other bytes, so a result must not depend on how many
    cores a machine has, and the matrices of tables are small: two threads take 1.5 times the CPU time of one for
    1.3 times its speed, and many times as long on a busy machine.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def denormals_flushed() -> Iterator[None]:
    """Numbers too small for the exponent become 0 for the time of a block: they are hundreds of times slower."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
