"""What no input may cause: writes outside of one folder, programs, connections, unpickling, hunger for memory

The interpreter's audit events see what Python code does; the files that C++ libraries write are seen by comparing
listings of the folder around (`Surroundings`).
"""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
PATHS = {
    "os.chmod", "os.chown", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.truncate",
    "os.utime", "shutil.move", "shutil.rmtree",
}  # fmt: skip
NEVER = {
    "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.system", "pickle.find_class", "pty.spawn", "socket.bind",
    "socket.connect", "socket.getaddrinfo", "subprocess.Popen", "urllib.Request",
}  # fmt: skip
MIB = 2**20


class Guard:
    """Notes what happens inside `watching(folder)` and should not. Hooks cannot be removed: one for each process."""

    def __init__(self) -> None:
        self.folder: str | None = None
        self.seen: list[str] = []
        sys.addaudithook(self._hook)

    @contextlib.contextmanager
    def watching(self, folder: Path) -> Iterator[list[str]]:
        """Yields the list in which violations appear; writes below `folder` are none."""
        self.folder, self.seen = str(folder.resolve()) + "/", []
        try:
            yield self.seen
        finally:
            self.folder = None

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.folder is None:
            return
        if event in NEVER:
            self.seen.append(f"{event} {arguments!r}"[:300])
        elif event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & WRITING and not isinstance(path, int):
                self._path(event, path)
        elif event in PATHS:
            for path in arguments[: 2 if event in ("os.rename", "os.link", "shutil.move") else 1]:
                self._path(event, path)

    def _path(self, event: str, path: Any) -> None:
        folder, self.folder = self.folder, None  # what is looked up here raises events of its own
        try:
            if not isinstance(path, int) and not _absolute(path).startswith(str(folder)):
                self.seen.append(f"{event} {os.fsdecode(path)!r}"[:300])
        except ValueError:  # a NUL: nothing was opened
            pass
        finally:
            self.folder = folder


def _absolute(path: Any) -> str:
    """Without following links: what is written is the link itself."""
    return os.path.abspath(os.fsdecode(path)) + "/"  # noqa: PTH100


class Surroundings:
    """The files around the one folder that may be written to, with their contents' sizes and times."""

    def __init__(self, outside: Path, inside: Path) -> None:
        self.outside, self.inside = outside, inside
        (outside / "precious").mkdir()
        (outside / "precious" / "data.parquet").write_bytes(b"do not touch")
        self.before = self._listing()

    def changed(self) -> list[str]:
        """Paths that were made, changed or removed."""
        return sorted({path for path, _ in self.before ^ self._listing()})

    def _listing(self) -> set[tuple[str, int]]:
        found = (path for path in self.outside.rglob("*") if self.inside not in (path, *path.parents))
        return {(str(path), path.lstat().st_mtime_ns) for path in found}


def limit_memory(more: int) -> int:
    """Let this process map so many bytes more than now, and no more. Returns its present peak of resident bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    total = pages * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (total, total))
    return peak_memory()


def peak_memory() -> int:
    """Most resident bytes so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
