"""Writing to disks: a file appears whole or not at all, only if it is new where that is asked; leavings are removed

A temporary file is locked while its writer lives; when a process dies, in whatever way, the kernel takes the lock away.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)  # some network file systems have none
NO_SUCH_RENAME = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)  # NFS, and kernels before 3.15
NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.ENOTSUP)
LIBC = ctypes.CDLL(None, use_errno=True)
RENAME_NOREPLACE = 1
AT_FDCWD = -100


def temporary_name(name: str) -> str:
    """Hidden, unique, and known by `is_temporary`."""
    return f".{name}.{secrets.token_hex(6)}.tmp"


def is_temporary(name: str) -> bool:
    """Whether a file was left by a writer that died before its rename."""
    return name.startswith(".") and name.endswith(".tmp")


def put(path: Path, data: bytes, durable: bool, replace: bool, named: bool = True) -> bool:
    """Write a whole file; without `replace`, False when there is one already.

    durable  it survives a power cut; where not `named`, its name does so only after `sync_folder`
    """
    with _beside(path) as (temporary, file):
        file.write(data)
        return _publish(temporary, file, path, durable, replace, named)


@contextlib.contextmanager
def open_whole(path: Path) -> Iterator[BinaryIO]:
    """A stream to a file that appears, in place of an older one, when the block ends without an error."""
    with _beside(path) as (temporary, file):
        yield file
        _publish(temporary, file, path, durable=True, replace=True)


def remove_abandoned(path: Path) -> None:
    """Remove a temporary file, unless its writer lives."""
    with contextlib.suppress(FileNotFoundError), path.open("r+b") as file:
        if _lock(file, fcntl.LOCK_NB):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """A locked temporary file in the same folder, gone afterwards."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        temporary = path.parent / temporary_name(path.name)
        with temporary.open("xb") as file:
            _lock(file)
            if not os.fstat(file.fileno()).st_nlink:
                continue  # taken for abandoned between its creation and its lock
            try:
                yield temporary, file
            finally:
                temporary.unlink(missing_ok=True)
        return


def _lock(file: BinaryIO, flags: int = 0) -> bool:
    """False when another process holds it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | flags)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    return True


def _publish(
    temporary: Path, file: BinaryIO, path: Path, durable: bool, replace: bool, named: bool = True
) -> bool:
    file.flush()
    if durable:
        os.fsync(file.fileno())
    if replace:
        temporary.replace(path)
    elif not _rename_new(temporary, path):
        return False
    if durable and named:
        sync_folder(path.parent)
    return True


def _rename_new(source: Path, target: Path) -> bool:
    """A rename that never replaces: of all writers one succeeds."""
    rename = getattr(LIBC, "renameat2", None)  # Linux
    if rename is None:
        return _link_new(source, target)
    if rename(AT_FDCWD, os.fsencode(source), AT_FDCWD, os.fsencode(target), RENAME_NOREPLACE) == 0:
        return True
    code = ctypes.get_errno()
    if code in NO_SUCH_RENAME:
        return _link_new(source, target)
    if code != errno.EEXIST:
        raise OSError(code, os.strerror(code), str(target))
    return False


def _link_new(source: Path, target: Path) -> bool:
    """The same by a hard link; where there are none (exFAT), by looking first, which two writers can do at once."""
    try:
        os.link(source, target)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        if target.exists():
            return False
        source.replace(target)
    return True


def sync_folder(path: Path) -> None:
    """Make what was named in a folder survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
