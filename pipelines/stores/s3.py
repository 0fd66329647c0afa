"""Writing to S3 where pyarrow's client falls short: one request an object, only if it is new, uploads called off

Tried with pyarrow 25: it makes a multipart upload of every file (three requests instead of one), publishes the half
of a file whose writer failed, leaves the parts of a failed upload at the store, puts a folder marker where it deletes,
and drops If-None-Match. Reading and listing stay with it.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import pyarrow.fs as pafs

PART_BYTES = 64 << 20  # above this an object goes up in parts; S3 takes at most 10,000 of at least 5 MiB
ATTEMPTS = 5  # of one request, with a random and growing pause of at most 20 s between
PLACE = ("endpoint_override", "scheme", "anonymous", "connect_timeout", "request_timeout")
KEYS = ("access_key", "secret_key", "session_token")
EXISTS, CONFLICT, GONE = "PreconditionFailed", "ConditionalRequestConflict", "NoSuchUpload"
FORBIDDEN = ("AccessDenied", "MethodNotAllowed", "NotImplemented")  # to list uploads, or to call them off


def put(filesystem: pafs.S3FileSystem, path: str, data: Any, replace: bool = True) -> bool:
    """Store an object, all of it or nothing; without `replace`, False when there is one already.

    data  anything with the buffer protocol
    """
    client, place = _client(filesystem), _place(path)
    with memoryview(
        data
    ) as view:  # released also when an error's traceback holds it: a mapped file can be closed
        if not replace:
            return _put_new(client, place, view)
        if len(view) > PART_BYTES:
            _put_parts(client, place, view)
        else:
            _told(lambda: client.put_object(**place, Body=bytes(view)))
    return True


def _put_new(client: Any, place: dict[str, str], view: memoryview) -> bool:
    """If-None-Match: the store itself sees to it that of all writers one succeeds."""
    for attempt in range(ATTEMPTS):
        put = lambda: client.put_object(**place, Body=bytes(view), IfNoneMatch="*")  # noqa: E731
        answer = _told(put, EXISTS, CONFLICT)
        if answer == EXISTS:
            return False
        if answer != CONFLICT:  # that is another writer who is at it just now
            return True
        time.sleep(random.uniform(0, 0.2 * 2**attempt))
    raise OSError(f"AWS Error CONDITIONAL_REQUEST_CONFLICT for {place['Key']}, {ATTEMPTS} times")


def _put_parts(client: Any, place: dict[str, str], view: memoryview) -> None:
    """An upload that fails is called off, or its parts would be paid for, for ever."""
    upload = {**place, "UploadId": _told(lambda: client.create_multipart_upload(**place))["UploadId"]}
    try:
        parts = [_put_part(client, upload, view, start) for start in range(0, len(view), PART_BYTES)]
        _told(lambda: client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts}))
    except BaseException:
        _abort(client, upload)
        raise


def _abort(client: Any, upload: dict[str, str]) -> None:
    _told(lambda: client.abort_multipart_upload(**upload), GONE, *FORBIDDEN)


def _put_part(client: Any, upload: dict[str, str], view: memoryview, start: int) -> dict[str, Any]:
    number = start // PART_BYTES + 1
    part = bytes(view[start : start + PART_BYTES])
    answer = _told(lambda: client.upload_part(**upload, PartNumber=number, Body=part))
    return {"PartNumber": number, "ETag": answer["ETag"]}


def delete(filesystem: pafs.S3FileSystem, path: str) -> None:
    """Remove an object; one that is gone already is no error."""
    _told(lambda: _client(filesystem).delete_object(**_place(path)))


def abandon_uploads(filesystem: pafs.S3FileSystem, folder: str) -> int:
    """Call off the unfinished uploads of killed writers below a folder; returns how many there were.

    Who may not list them (s3:ListBucketMultipartUploads) leaves them to the bucket's lifecycle rule.
    """
    client, place = _client(filesystem), _place(folder + "/")
    found = _told(lambda: list(_uploads(client, place)), *FORBIDDEN)
    if isinstance(found, str):
        return 0
    for upload in found:
        _abort(client, upload)
    return len(found)


def _uploads(client: Any, place: dict[str, str]) -> Iterator[dict[str, str]]:
    pages = client.get_paginator("list_multipart_uploads").paginate(
        Bucket=place["Bucket"], Prefix=place["Key"]
    )
    for page in pages:
        for upload in page.get("Uploads", ()):
            yield {"Bucket": place["Bucket"], "Key": upload["Key"], "UploadId": upload["UploadId"]}


def _place(path: str) -> dict[str, str]:
    bucket, _, key = path.partition("/")
    return {"Bucket": bucket, "Key": key}


def _told(call: Callable[[], Any], *expected: str) -> Any:
    """What a call answers, or the code of an expected error; OSError, as pyarrow raises it, for any other."""
    from botocore import exceptions

    try:
        return call()
    except exceptions.ClientError as error:
        answer = error.response.get("Error", {})
        code, text = str(answer.get("Code", "")), str(answer.get("Message", ""))
        if code in expected:
            return code
        raise OSError(f"AWS Error {_upper(code)} during {error.operation_name}: {text}") from error
    except (exceptions.ConnectionError, exceptions.HTTPClientError) as error:
        raise OSError(f"AWS Error NETWORK_CONNECTION: {error}") from error
    except exceptions.BotoCoreError as error:
        raise OSError(f"AWS Error {_upper(type(error).__name__)}: {error}") from error


def _upper(code: str) -> str:
    """NoSuchBucket as NO_SUCH_BUCKET, which is pyarrow's spelling."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", code).upper()


def _client(filesystem: pafs.S3FileSystem) -> Any:
    """A client of the same place, with the same keys, as the file system."""
    options = filesystem.__reduce__()[1][0]
    return _connect(filesystem.region, *(options[name] for name in (*PLACE, *KEYS)))


@lru_cache(maxsize=16)
def _connect(
    region: str,
    endpoint: str,
    scheme: str,
    anonymous: bool,
    connect_timeout: float,
    request_timeout: float,
    *keys: str | None,
) -> Any:
    import botocore.session
    from botocore import UNSIGNED
    from botocore.config import Config

    config = Config(
        connect_timeout=connect_timeout,
        read_timeout=request_timeout,
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        s3={"addressing_style": "path" if endpoint else "auto"},
        # stores other than Amazon's do not all know the checksums that are sent by default since 2025
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        **({"signature_version": UNSIGNED} if anonymous else {}),
    )
    access, secret, token = keys
    return botocore.session.get_session().create_client(
        "s3",
        region_name=region,
        endpoint_url=(endpoint if "://" in endpoint else f"{scheme}://{endpoint}") if endpoint else None,
        aws_access_key_id=access,
        aws_secret_access_key=secret,
        aws_session_token=token,
        config=config,
    )
