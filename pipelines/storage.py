"""Where bytes lie: local paths and object stores behind one file system interface, with whole-object writes.

Everything here takes a pyarrow file system and a path inside it; `resolve` makes both from what a user wrote.
"""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qsl, unquote

import pyarrow.fs as pafs

from genai_core.errors import InvalidInput, Unavailable

S3_SCHEMES = ("s3", "s3a", "s3n")
ARROW_SCHEMES = ("abfs", "abfss", "gcs", "gs", "hdfs", "viewfs")
RENAMING = ("local", "hdfs")  # file systems on which a rename is atomic; elsewhere one PUT is
CONNECT_SECONDS = 10.0
REQUEST_SECONDS = 60.0  # pyarrow's 3 s fails on busy stores in the middle of large reads
PLAIN_QUERY = ("endpoint_override", "region", "scheme")  # of a URI's query, what may be shown
HINTS = (
    ("NO_SUCH_BUCKET", "the bucket does not exist: create it, or correct its name"),
    ("INVALID_ACCESS_KEY_ID", "the access key is unknown to the store: look at AWS_ACCESS_KEY_ID"),
    ("SIGNATURE_DOES_NOT_MATCH", "the secret is wrong: look at AWS_SECRET_ACCESS_KEY"),
    ("ACCESS_DENIED", "the credentials do not allow this: look at AWS_ACCESS_KEY_ID or the policy"),
    ("NETWORK_CONNECTION", "the store cannot be reached: look at the network and AWS_ENDPOINT_URL"),
    ("HTTP status 401", "the credentials are refused: look at the store's access key and secret"),
    ("HTTP status 403", "the credentials do not allow this: look at the access key, or the bucket's policy"),
)


def resolve(uri: str) -> tuple[pafs.FileSystem, str]:
    """The file system of a local path (relative to the working directory) or URI, and the path inside it."""
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return pafs.LocalFileSystem(), str(Path(uri).expanduser().absolute())
    if scheme == "file":
        return pafs.LocalFileSystem(), unquote(rest)
    if scheme in S3_SCHEMES:
        return _s3(rest)
    with explained(uri):
        if scheme in ARROW_SCHEMES:
            return pafs.FileSystem.from_uri(uri)
        return _fsspec(uri, scheme)


def _s3(rest: str) -> tuple[pafs.FileSystem, str]:
    """pyarrow's own client. `FileSystem.from_uri` would ask the network for the bucket's region first."""
    address, _, query = rest.partition("?")
    netloc, slash, key = address.partition("/")
    userinfo, _, bucket = netloc.rpartition("@")
    options: dict[str, object] = {k: v for k, v in parse_qsl(query) if k in PLAIN_QUERY}
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint:
        options.setdefault("endpoint_override", endpoint)
    if userinfo == "anonymous":
        options["anonymous"] = True
    elif userinfo:
        access, _, secret = userinfo.partition(":")
        options |= {"access_key": unquote(access), "secret_key": unquote(secret)}
    s3 = pafs.S3FileSystem(connect_timeout=CONNECT_SECONDS, request_timeout=REQUEST_SECONDS, **options)
    return s3, (bucket + slash + key).rstrip("/")


def _fsspec(uri: str, scheme: str) -> tuple[pafs.FileSystem, str]:
    import fsspec

    try:
        filesystem, path = fsspec.core.url_to_fs(uri)
    except (ImportError, ValueError) as error:
        raise InvalidInput(
            f"no file system for {scheme}:// ({error}); accepted are local paths, "
            f"{', '.join(f'{s}://' for s in ('file', 's3', *ARROW_SCHEMES))} and what fsspec has installed"
        ) from error
    return pafs.PyFileSystem(pafs.FSSpecHandler(filesystem)), path


@contextlib.contextmanager
def explained(uri: str) -> Iterator[None]:
    """Turn what a store answers into Unavailable with a hint; a missing file stays FileNotFoundError."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Unavailable(f"{mask(uri)}: {_reason(error)}") from error


def _reason(error: OSError) -> str:
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"no permission ({error.strerror or error}); choose another path, or change its owner or mode"
    if error.errno in (errno.ENOTDIR, errno.EISDIR):
        return "a file is in the way; choose another path"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no space left ({error.strerror or error}); free some, or choose another disk"
    text = str(error)
    return next((f"{hint} (the store said: {text})" for mark, hint in HINTS if mark in text), text)


def mask(uri: str) -> str:
    """The URI without user, password and secret query values, fit for logs and manifests."""
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return uri
    address, question, query = rest.partition("?")
    first, slash, path = address.partition("/")
    if ":" in first and "@" in path:  # a secret with a slash in it
        first, slash, path = "***@" + path.rpartition("@")[2], "", ""
    userinfo, at, host = first.rpartition("@")
    shown = "&".join(_masked_pair(pair) for pair in query.split("&")) if query else ""
    return f"{scheme}://{'***@' if at and userinfo else ''}{host}{slash}{path}{question}{shown}"


def _masked_pair(pair: str) -> str:
    name, equals, value = pair.partition("=")
    return f"{name}{equals}{value if name in PLAIN_QUERY or not value else '***'}"


def join(path: str, *parts: str) -> str:
    """A path below `path`; all file systems here use forward slashes."""
    return posixpath.join(path, *parts)


def put_bytes(filesystem: pafs.FileSystem, path: str, data: bytes, durable: bool = True) -> None:
    """Write a whole file so that a reader sees all of it or nothing; `durable`: and it survives a power cut."""
    if filesystem.type_name == "local":
        _put_local(Path(path), data, durable)
    elif filesystem.type_name in RENAMING:
        _put_renamed(filesystem, path, data)
    else:
        _write(filesystem, path, data)


def _put_local(path: Path, data: bytes, durable: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / temporary_name(path.name)
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    """Make the rename itself durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _put_renamed(filesystem: pafs.FileSystem, path: str, data: bytes) -> None:
    folder, name = posixpath.split(path)
    filesystem.create_dir(folder, recursive=True)
    temporary = join(folder, temporary_name(name))
    _write(filesystem, temporary, data)
    filesystem.move(temporary, path)


def _write(filesystem: pafs.FileSystem, path: str, data: bytes) -> None:
    with filesystem.open_output_stream(path) as stream:
        stream.write(data)


@contextlib.contextmanager
def open_whole(filesystem: pafs.FileSystem, path: str) -> Iterator[pafs.NativeFile]:
    """A stream to a file too large for memory; on a disk it appears only when all of it is written."""
    if filesystem.type_name not in RENAMING:
        with filesystem.open_output_stream(path) as stream:
            yield stream
        return
    folder, name = posixpath.split(path)
    filesystem.create_dir(folder, recursive=True)
    temporary = join(folder, temporary_name(name))
    try:
        with filesystem.open_output_stream(temporary) as stream:
            yield stream
        filesystem.move(temporary, path)
    except BaseException:
        delete(filesystem, temporary)
        raise


def temporary_name(name: str) -> str:
    """Hidden, unique, and known by `is_temporary`."""
    return f".{name}.{secrets.token_hex(6)}.tmp"


def is_temporary(name: str) -> bool:
    """Whether a file was left by a writer that died before its rename."""
    return name.startswith(".") and name.endswith(".tmp")


def read_bytes(filesystem: pafs.FileSystem, path: str) -> bytes:
    """The whole file; FileNotFoundError when it is not there."""
    with filesystem.open_input_stream(path, compression=None) as stream:
        return bytes(stream.read())


def exists(filesystem: pafs.FileSystem, path: str) -> bool:
    """Whether there is a file or directory."""
    return bool(filesystem.get_file_info(path).type != pafs.FileType.NotFound)


def list_files(filesystem: pafs.FileSystem, path: str, recursive: bool = True) -> list[pafs.FileInfo]:
    """The files below a directory, sorted by path; empty when there is no such directory."""
    selector = pafs.FileSelector(path, recursive=recursive, allow_not_found=True)
    found = (info for info in filesystem.get_file_info(selector) if info.type == pafs.FileType.File)
    return sorted(found, key=lambda info: info.path)


def delete(filesystem: pafs.FileSystem, path: str) -> None:
    """Remove a file; one that is gone already is no error."""
    with contextlib.suppress(FileNotFoundError):
        filesystem.delete_file(path)


def etag(filesystem: pafs.FileSystem, info: pafs.FileInfo) -> str:
    """What changes when a file is replaced: a store's ETag, or the time of the last change in ns."""
    if filesystem.type_name != "local":
        with filesystem.open_input_file(info.path) as file:
            known = {str(k).lower(): v for k, v in (file.metadata() or {}).items()}
        if "etag" in known:
            return bytes(known["etag"]).decode().strip('"')
    return f"{info.mtime_ns:x}" if info.mtime_ns is not None else ""


def free_bytes(uri: str) -> int | None:
    """Bytes free where a local path lies or will lie; None for a store, which has no such number."""
    filesystem, path = resolve(uri)
    if filesystem.type_name != "local":
        return None
    return shutil.disk_usage(nearest_directory(path)).free


def nearest_directory(path: str) -> Path:
    """The path itself, or its nearest ancestor that exists."""
    here = Path(path)
    while not here.exists():
        here = here.parent
    return here
