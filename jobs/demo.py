"""`make demo`: real flights become a lake, a model, synthetic flights and a list of anomalies, all under ./demo.

It does what a scheduler would do: it calls `genai run` with the job files of jobs/specs/, one after the other, and
reads the JSON line at the end. What is done already is not done again.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

from genai_core.errors import GenAIError
from jobs import flights_lake
from jobs.demo_report import anomalies_text, fidelity_text, lineage_text, places_text

ROOT = Path("demo")
JOBS = {"train": "train_flights.yaml", "generate": "generate_flights.yaml", "score": "score_flights.yaml"}
RULE = "─" * 88


def main() -> int:
    """Run the demo in the working directory; returns the exit code of the first thing that failed, or 0."""
    seconds: dict[str, float] = {}
    ROOT.mkdir(exist_ok=True)
    try:
        with timed(seconds, "lake"):
            heading("The lake: 336,776 flights that left New York in 2013, one folder a month")
            print(f"{flights_lake.build(ROOT / 'lake' / 'flights')}")
        results = {}
        for verb, file in JOBS.items():
            with timed(seconds, verb):
                results[verb] = run_job(file)
            if verb == "train" and not results[verb].get("reused"):
                forget_output()
        report(results, seconds)
    except GenAIError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except subprocess.CalledProcessError as error:
        return error.returncode
    return 0


def forget_output() -> None:
    """A new model's output does not go where an older model's lies; `genai run` would refuse it."""
    if (ROOT / "out").exists():
        print(f"\nthe model is a new one: the older one's output in {ROOT / 'out'} is removed")
        shutil.rmtree(ROOT / "out")


def run_job(file: str) -> dict[str, Any]:
    """`genai run FILE` inside ./demo; its progress goes to the terminal, its last line is the result."""
    with resources.as_file(resources.files("jobs") / "specs" / file) as path:
        command = ["genai", "run", os.path.relpath(path, ROOT)]
        heading(f"$ {shlex.join(command)}")
        done = genai(command[1:], stdout=subprocess.PIPE)
    return json.loads(done.stdout.splitlines()[-1])


def genai(arguments: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """The command line, as a scheduler calls it; CalledProcessError if it fails."""
    script = Path(sys.executable).with_name("genai")
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    return subprocess.run([script, *arguments], cwd=ROOT, env=environment, text=True, check=True, **options)


def report(results: dict[str, dict[str, Any]], seconds: dict[str, float]) -> None:
    """Everything there is to see, each part under its heading."""
    parts: dict[str, tuple[str, Callable[[], str]]] = {
        "alike": ("How alike are synthetic and real flights?", lambda: fidelity_text(ROOT)),
        "anomalies": ("The ten most anomalous flights of October to December", lambda: anomalies_text(ROOT)),
        "lineage": (
            "From a file of synthetic flights back to its training data",
            lambda: lineage_text(ROOT, genai),
        ),
        "places": ("Where everything lies", lambda: places_text(ROOT, results)),
    }
    for name, (title, make) in parts.items():
        with timed(seconds, name):
            heading(title)
            print(make())
    print(RULE)
    print("seconds: " + ", ".join(f"{name} {spent:.1f}" for name, spent in seconds.items()))


def heading(text: str) -> None:
    """A rule and a line of text."""
    print(f"{RULE}\n{text}\n", flush=True)


@contextmanager
def timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Note how long a phase took."""
    started = time.monotonic()
    yield
    seconds[name] = time.monotonic() - started


if __name__ == "__main__":
    sys.exit(main())
