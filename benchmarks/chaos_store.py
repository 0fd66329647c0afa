"""An S3 store that outlives its own death: moto behind a journal of every request that changes something

python -m benchmarks.chaos_store PORT JOURNAL

Moto keeps its data in memory. Here a change is written to the journal before moto sees it, and a new process answers
the whole journal again before it listens.
"""

from __future__ import annotations

import base64
import io
import json
import os
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from moto.moto_api._internal import mock_random
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server
from werkzeug.test import Client

CHANGES = ("DELETE", "POST", "PUT")
HOP = ("HTTP_TRANSFER_ENCODING", "HTTP_EXPECT", "HTTP_CONNECTION")


class Journal:
    """A WSGI application in front of moto's."""

    def __init__(self, file: Path) -> None:
        self.inner = DomainDispatcherApplication(create_backend_app)
        self.lock, self.changes = threading.Lock(), 0
        for line in _whole_lines(file):
            self._replay(json.loads(line))
        self.file = file.open("ab", buffering=0)

    def _next_change(self) -> None:
        """The same ids of uploads in every life."""
        self.changes += 1
        mock_random.seed(self.changes)

    def _replay(self, entry: dict[str, Any]) -> None:
        self._next_change()
        environ = entry["environ"] | {"wsgi.input": io.BytesIO(base64.b64decode(entry["body"]))}
        Client(self.inner).run_wsgi_app(environ, buffered=True)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Requests come one at a time: their order in the journal is that in which they happened."""
        with self.lock:
            if environ["REQUEST_METHOD"] in CHANGES:
                length = environ.get("CONTENT_LENGTH")  # none when the body comes in chunks
                body = environ["wsgi.input"].read(int(length) if length else -1)
                environ |= {"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
                environ.pop("wsgi.input_terminated", None)
                for name in HOP:
                    environ.pop(name, None)
                plain = {key: value for key, value in environ.items() if isinstance(value, str)}
                entry = {"environ": plain, "body": base64.b64encode(body).decode()}
                self._next_change()
                self.file.write(json.dumps(entry).encode() + b"\n")
            return list(self.inner(environ, start_response))


def _whole_lines(file: Path) -> list[bytes]:
    """Without the last one, if the store died while it wrote it; that request was never answered."""
    data = file.read_bytes() if file.exists() else b""
    whole = data[: data.rfind(b"\n") + 1]
    file.write_bytes(whole)
    return whole.splitlines()


if __name__ == "__main__":
    os.urandom = mock_random.randbytes  # what moto makes ids of uploads from
    make_server("127.0.0.1", int(sys.argv[1]), Journal(Path(sys.argv[2])), threaded=True).serve_forever()
