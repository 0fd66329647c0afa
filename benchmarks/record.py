"""How a benchmark is kept: figures with the command, versions, machine and date, as JSON under benchmarks/results/."""

from __future__ import annotations

import datetime
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "ray", "mlflow", "pyarrow", "numpy", "scikit-learn")


def save(name: str, figures: dict[str, Any], module: str | None = None, **settings: Any) -> Path:
    """Write RESULTS/name.json and return its path; `module` is the benchmark's, if it has another name."""
    RESULTS.mkdir(exist_ok=True)
    kept = {
        "command": "python "
        + " ".join(["-m", f"benchmarks.{module or name}", *map(_anywhere, sys.argv[1:])]),
        "date": datetime.date.today().isoformat(),
        "machine": {"cores": os.cpu_count(), "cpu": _cpu(), "python": platform.python_version()},
        "versions": {package: version(package) for package in PACKAGES},
        "settings": settings,
        "figures": figures,
    }
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(kept, indent=1) + "\n")
    print(json.dumps(figures, indent=1))
    return path


def _anywhere(word: str) -> str:
    """An argument without the paths of this machine."""
    return "DIR" if word.startswith(("/", "..")) else word


def _cpu() -> str:
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return names[0].partition(":")[2].strip() if names else platform.processor()


def cpu_seconds(command: Sequence[str | Path], **options: Any) -> float:
    """User and system seconds of a command and all that it starts and waits for; it must succeed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def spread(values: Sequence[float]) -> dict[str, float]:
    """Minimum, median and maximum."""
    found = {"min": min(values), "median": statistics.median(values), "max": max(values)}
    return {name: round(value, 3) for name, value in found.items()}
