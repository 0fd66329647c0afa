"""A job on a disk of its own that is full, then read-only; not a test by itself. Runs in a mount namespace of its own.

python full_disk.py MOUNT JOB.json
Prints one JSON object: what each run answered, and what was on the disk after it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pipelines.generate
from jobs.cli import main as genai

LOADED = pipelines.generate  # and torch with it
SMALL, LARGE = "100k", "16m"


def mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True)


def run(job: Path, folder: Path, path: str) -> dict[str, Any]:
    """`genai run` into a folder of the disk, in a child: what it answered, and what is on the disk then."""
    out, errors = Path(f"{path}.out"), Path(f"{path}.errors")
    child = os.fork()  # not a new Python: torch is loaded once for all runs
    if child == 0:
        for number, file in ((1, out), (2, errors)):
            os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        os._exit(genai(["run", str(job), "--set", f"sink.path={folder / path}"]))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    found = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    answer = json.loads(out.read_text().splitlines()[-1])
    return {"code": code, "answer": answer, "said": errors.read_text(), "files": found}


def main() -> None:
    folder, job = Path(sys.argv[1]), Path(sys.argv[2])
    mount("-t", "tmpfs", "-o", f"size={SMALL}", "tmpfs", str(folder))
    told = {"full": run(job, folder, "out")}
    mount("-o", f"remount,size={LARGE}", str(folder))
    told["freed"] = run(job, folder, "out")
    mount("-o", "remount,ro", str(folder))
    told["finished"], told["read-only"] = run(job, folder, "out"), run(job, folder, "other")
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
