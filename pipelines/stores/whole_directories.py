"""Directories that appear whole, and a lock on what one process at a time may do"""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from genai_core.errors import JobFailed
from pipelines.stores.local_files import temporary_name


@contextmanager
def alone(folder: str, job_id: str) -> Iterator[None]:
    """While this process does a job no other does, on the machines that see the folder. Raises JobFailed.

    A lock of the kernel's: it goes with the process, however that ends. A store has no such locks.
    """
    if "://" in folder:
        yield
        return
    file = Path(folder) / f".{job_id}.lock"
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise JobFailed(
                f"another process does this job now ({file} is locked); when it has ended, the same command finds what "
                "it made, or goes on where it stopped"
            ) from error
        try:
            yield
        finally:
            file.unlink(missing_ok=True)


def new_beside(directory: Path) -> Path:
    """An empty directory that may take the place of this one; those of writers that died before are removed."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(directory)
    beside = directory.with_name(temporary_name(directory.name))
    beside.mkdir()
    return beside


def replace(directory: Path, beside: Path) -> None:
    """Let `beside` take the place of `directory`."""
    old = directory.with_name(temporary_name(directory.name))
    if directory.exists():
        directory.replace(old)
    beside.replace(directory)
    shutil.rmtree(old, ignore_errors=True)


def remove_leftovers(directory: Path) -> None:
    """Directories that were to take the place of this one, or gave way to another."""
    for left in directory.parent.glob(f".{directory.name}.*.tmp"):
        shutil.rmtree(left, ignore_errors=True)
