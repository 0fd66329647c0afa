"""Where bytes lie: local paths and object stores behind one file system interface, with whole-object writes.

Everything here takes a pyarrow file system and a path inside it; `resolve` makes both from what a user wrote.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import posixpath
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any
from urllib.parse import parse_qsl, unquote

import pyarrow as pa
import pyarrow.fs as pafs

from genai_core.errors import InvalidInput, Unavailable
from pipelines.stores import local_files, s3
from pipelines.stores.local_files import is_temporary as is_temporary
from pipelines.stores.local_files import temporary_name

S3_SCHEMES = ("s3", "s3a", "s3n")
GOOGLE_SCHEMES = ("gcs", "gs")
ARROW_SCHEMES = ("abfs", "abfss", "gcs", "gs", "hdfs", "viewfs")
RENAMING = ("local", "hdfs")  # file systems on which a rename is atomic; elsewhere one PUT is
LONGEST_NAME, LONGEST_PATH = 255, 4000  # bytes, on Linux
CONNECT_SECONDS = 10.0
REQUEST_SECONDS = 30.0  # without a byte; pyarrow's 3 s fails on busy stores in the middle of large reads
COPIED_AT_ONCE = 1 << 23
GOOGLE_SECONDS = 120  # of retries; pyarrow's 15 minutes are longer than any job waits for a shard
PLAIN_QUERY = (
    "endpoint_override",
    "region",
    "retry_limit_seconds",
    "scheme",
)  # of a URI's query, what may be shown
PACKAGE = re.compile(r"""(?:[Ii]nstall |requires ")([a-z][\w-]+)""")  # in what fsspec says of a missing one
HINTS = (
    ("NO_SUCH_BUCKET", "the bucket does not exist: create it, or correct its name"),
    ("INVALID_ACCESS_KEY_ID", "the access key is unknown to the store: look at AWS_ACCESS_KEY_ID"),
    ("SIGNATURE_DOES_NOT_MATCH", "the secret is wrong: look at AWS_SECRET_ACCESS_KEY"),
    ("ACCESS_DENIED", "the credentials do not allow this: look at AWS_ACCESS_KEY_ID or the policy"),
    ("NETWORK_CONNECTION", "the store cannot be reached: look at the network and AWS_ENDPOINT_URL"),
    (
        "NO_CREDENTIALS",
        "no credentials were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    ),
    ("EXPIRED_TOKEN", "the credentials have expired: get new ones"),
    ("SLOW_DOWN", "the store is overloaded: run the same command later, or with fewer compute.workers"),
    ("INTERNAL_", "the store has a fault of its own: run the same command later"),
    (
        "Unable to load lib",
        "Hadoop's client is missing: set JAVA_HOME, HADOOP_HOME and CLASSPATH=$(hadoop classpath --glob)",
    ),
    ("OAuth2 access token", "no Google credentials were found: set GOOGLE_APPLICATION_CREDENTIALS"),
    (
        "DefaultAzureCredential",
        "no Azure credentials were found: set AZURE_CLIENT_ID and its like, or use az login",
    ),
    ("HTTP status 401", "the credentials are refused: look at the store's access key and secret"),
    ("HTTP status 403", "the credentials do not allow this: look at the access key, or the bucket's policy"),
)


def resolve(uri: str) -> tuple[pafs.FileSystem, str]:
    """The file system of a local path (relative to the working directory) or URI, and the path inside it."""
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return pafs.LocalFileSystem(), str(local_path(uri).absolute())
    if scheme == "file":
        return pafs.LocalFileSystem(), str(local_path(unquote(rest)))
    if scheme in S3_SCHEMES:
        return _s3(rest)
    with explained(uri):
        if scheme in ARROW_SCHEMES:
            return _arrow(uri, scheme)
        return _fsspec(uri, scheme)


def local_path(path: str) -> Path:
    """A path with its `~` written out. Raises InvalidInput for what cannot be one."""
    try:
        if "\0" in path:
            raise InvalidInput(f"the path {path!r} holds a zero byte, which no file's name can")
        found = Path(path).expanduser()
        names = [len(os.fsencode(part)) for part in found.absolute().parts]
        if max(names) > LONGEST_NAME or sum(names) + len(names) > LONGEST_PATH:
            raise InvalidInput(
                f"the path {path[:40]!r}... is longer than {LONGEST_PATH} bytes, or a name in it than {LONGEST_NAME}"
            )
        return found
    except UnicodeEncodeError:
        raise InvalidInput(f"the path {path!r} holds half a character, which no file's name can") from None
    except RuntimeError:
        raise InvalidInput(f"the path {path!r} begins with the home of a user who does not exist") from None


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
    filesystem = pafs.S3FileSystem(
        connect_timeout=CONNECT_SECONDS,
        request_timeout=REQUEST_SECONDS,
        retry_strategy=pafs.AwsStandardS3RetryStrategy(max_attempts=s3.ATTEMPTS),
        **options,
    )
    return filesystem, (bucket + slash + key).rstrip("/")


def _arrow(uri: str, scheme: str) -> tuple[pafs.FileSystem, str]:
    try:
        return pafs.FileSystem.from_uri(_patient(uri) if scheme in GOOGLE_SCHEMES else uri)
    except pa.ArrowInvalid as error:  # its text holds the URI with its secrets
        raise InvalidInput(
            f"{mask(uri)} cannot be read as a {scheme}:// URI; write spaces and other signs in it as %20 and the like"
        ) from error


def _patient(uri: str) -> str:
    """With a limit of retries, unless the URI has one."""
    if "retry_limit_seconds=" in uri:
        return uri
    return f"{uri}{'&' if '?' in uri else '?'}retry_limit_seconds={GOOGLE_SECONDS}"


def _fsspec(uri: str, scheme: str) -> tuple[pafs.FileSystem, str]:
    import fsspec

    try:
        filesystem, path = fsspec.core.url_to_fs(uri)
    except (ImportError, ValueError) as error:
        package = PACKAGE.search(str(error))
        command = f": pip install {package[1]}" if package and isinstance(error, ImportError) else ""
        raise InvalidInput(
            f"no file system for {scheme}:// ({error}){command}; accepted are local paths, "
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
    except pa.ArrowException as error:
        if (
            type(error) is not pa.ArrowException
        ):  # about the data; this one alone is what Azure's client gives
            raise
        raise Unavailable(f"{mask(uri)}: {_reason(OSError(str(error)))}") from error
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


def put_bytes(
    filesystem: pafs.FileSystem,
    path: str,
    data: bytes,
    durable: bool = True,
    replace: bool = True,
    named: bool = True,
) -> bool:
    """Write a whole file so that a reader sees all of it or nothing.

    durable  it survives a power cut; where not `named`, its name does so only after `sync_folders`
    replace  whether a file that is there gives way; otherwise the answer is False, and of all that try at the same
             time one gets True (on disks, S3, and where fsspec's file system knows mode="create")
    """
    if filesystem.type_name == "local":
        return local_files.put(Path(path), data, durable, replace, named)
    if filesystem.type_name == "s3":
        return s3.put(filesystem, path, data, replace)
    if not replace and isinstance(filesystem, pafs.PyFileSystem):
        return _create(filesystem.handler.fs, path, data)
    if not replace and exists(filesystem, path):
        return False
    with open_whole(filesystem, path) as stream:
        stream.write(data)
    return True


def sync_folders(filesystem: pafs.FileSystem, root: str, paths: Iterable[str]) -> None:
    """Make the names of files below `root`, and of their folders, survive a power cut; stores do so by themselves."""
    if filesystem.type_name != "local":
        return
    top = Path(root)
    folders = {folder for path in paths for folder in Path(path).parents if folder.is_relative_to(top)}
    for folder in sorted(folders, reverse=True):
        local_files.sync_folder(folder)


def _create(filesystem: Any, path: str, data: bytes) -> bool:
    """Of fsspec."""
    try:
        filesystem.pipe_file(path, data, mode="create")
    except FileExistsError:
        return False
    return True


@contextlib.contextmanager
def open_whole(filesystem: pafs.FileSystem, path: str) -> Iterator[Any]:
    """A stream to a file too large for memory; the file appears only when all of it is written.

    For a store the bytes are collected in a temporary file of this machine (TMPDIR): closing a half-written stream to
    a store would publish the half.
    """
    if filesystem.type_name == "local":
        with local_files.open_whole(Path(path)) as stream:
            yield stream
    elif filesystem.type_name in RENAMING:
        with _open_renamed(filesystem, path) as stream:
            yield stream
    else:
        with tempfile.TemporaryFile() as file:
            yield file
            _upload(filesystem, path, file)


@contextlib.contextmanager
def _open_renamed(filesystem: pafs.FileSystem, path: str) -> Iterator[pafs.NativeFile]:
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


def _upload(filesystem: pafs.FileSystem, path: str, file: IO[bytes]) -> None:
    if filesystem.type_name != "s3":
        file.seek(0)
        with filesystem.open_output_stream(path) as stream:
            shutil.copyfileobj(file, stream, COPIED_AT_ONCE)
        return
    file.flush()
    if not os.fstat(file.fileno()).st_size:
        s3.put(filesystem, path, b"")  # nothing cannot be mapped
        return
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        s3.put(filesystem, path, data)


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
    try:
        infos = filesystem.get_file_info(selector)
    except (
        FileNotFoundError
    ):  # another process made the directory after pyarrow looked in vain, before it looked why
        infos = filesystem.get_file_info(selector)
    return sorted((i for i in infos if i.type == pafs.FileType.File), key=lambda info: info.path)


def delete(filesystem: pafs.FileSystem, path: str) -> None:
    """Remove a file; one that is gone already is no error."""
    if filesystem.type_name == "s3":
        s3.delete(filesystem, path)
        return
    with contextlib.suppress(FileNotFoundError):
        filesystem.delete_file(path)


def move(filesystem: pafs.FileSystem, path: str, to: str) -> None:
    """Give a file another name on the same store; one that another process has moved already is no error."""
    if filesystem.type_name != "s3":  # where a folder would be an object of its own
        filesystem.create_dir(posixpath.dirname(to), recursive=True)
    try:
        filesystem.move(path, to)
    except OSError:
        if exists(filesystem, path) or not exists(filesystem, to):
            raise


def remove_abandoned(filesystem: pafs.FileSystem, path: str) -> None:
    """Remove a temporary file whose writer is dead; where that cannot be known, it is taken for dead."""
    if filesystem.type_name == "local":
        local_files.remove_abandoned(Path(path))
    else:
        delete(filesystem, path)


def abandon_uploads(filesystem: pafs.FileSystem, folder: str) -> None:
    """Call off the unfinished uploads below a folder of a store; S3 keeps, and charges for, those of killed writers."""
    if filesystem.type_name == "s3":
        s3.abandon_uploads(filesystem, folder)


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
