"""What a newcomer waits for: clone into an empty directory, then `make env`, `make demo` and `.ci/run`.

python -m benchmarks.fresh_clone [DIRECTORY [STEP]]     (targets: demo 6 minutes, .ci/run with installation 15 minutes)

With a STEP, that step alone is run again in the clone that is there, brought up to date; the other figures are kept.
"""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.record import RESULTS, save

STEPS = {"env": ["make", "env"], "demo": ["make", "demo"], "ci": ["bash", ".ci/run"]}


def main() -> None:
    """Run every step in a clone without an environment; their output stays in DIRECTORY/STEP.log."""
    directory = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="fresh-clone-"))
    clone, again = directory / "genai-core", sys.argv[2:3]
    if again:
        subprocess.run(["git", "pull", "--quiet"], cwd=clone, check=True)
    else:
        subprocess.run(["git", "clone", "--quiet", Path.cwd(), clone], check=True)
    kept = RESULTS / "fresh_clone.json"
    figures = json.loads(kept.read_text())["figures"] if again else {}
    for name in again or STEPS:
        figures[name] = step(STEPS[name], clone, directory / f"{name}.log")
    figures["demo"]["phases"] = phases((directory / "demo.log").read_text())
    save("fresh_clone", figures)


def step(command: list[str], clone: Path, log: Path) -> dict[str, Any]:
    """Seconds and exit code of one command, in an environment without the one that runs this."""
    environment = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "PYTHONPATH")}
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    with log.open("wb") as out:
        done = subprocess.run(
            command, cwd=clone, env=environment, stdout=out, stderr=out, stdin=subprocess.DEVNULL
        )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "wall_seconds": round(time.monotonic() - started, 1),
        "cpu_seconds": round(cpu, 1),
        "exit": done.returncode,
    }


def phases(text: str) -> dict[str, float]:
    """The demo's own last line: `seconds: lake 3.1, train 130.2, ...`."""
    line = re.findall(r"^seconds: (.*)$", text, re.MULTILINE)
    return {name: float(seconds) for name, seconds in re.findall(r"(\w+) ([\d.]+)", line[-1])} if line else {}


if __name__ == "__main__":
    main()
