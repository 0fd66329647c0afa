"""What is fuzzed: for each kind of input how it is drawn, and what a job would do with it

A target's `run` must return, or raise an error of `genai_core.errors`: nothing else.
"""

from __future__ import annotations

from benchmarks import fuzz_data, fuzz_forgeries, fuzz_jobs
from benchmarks.fuzz_bench import Target

TARGETS: tuple[Target, ...] = (*fuzz_jobs.TARGETS, *fuzz_data.TARGETS, *fuzz_forgeries.TARGETS)
