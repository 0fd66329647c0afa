"""An HTTP proxy on loopback that stands before a store and fails as real ones do; not a test by itself."""

from __future__ import annotations

import contextlib
import http.client
import random
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

FAULTS = (
    "500",  # InternalError, the store did nothing
    "503",  # SlowDown, the store did nothing
    "reset",  # the connection breaks before the store sees the request
    "lost",  # the store did it, the answer is lost
    "stall",  # no answer at all until the client gives up
    "cut",  # half of the body arrives: of a PUT at the store, of a GET at the client
)
SHORT = "short"  # of a GET: half of the body arrives, and the header says that this is all
CODES = {
    "403": "AccessDenied",
    "501": "NotImplemented",
    "409": "ConditionalRequestConflict",
    "500": "InternalError",
    "503": "SlowDown",
}
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "expect"}


@dataclass
class Request:
    """What a client asked for: `GET /bucket/key`, the query, and what was done to it."""

    method: str
    key: str
    query: str
    fault: str | None = None
    ended_in: str = ""  # the status that the store answered with


@dataclass
class FaultProxy:
    """Requests go on to `upstream`, unless a rule says how one shall fail."""

    upstream: str
    seen: list[Request] = field(default_factory=list)
    rules: list[Callable[[str, str, str], str | None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.released = threading.Event()  # ends all stalls
        self.lock = threading.Lock()
        self.server = _Server(("127.0.0.1", 0), _Handler)
        self.server.proxy = self
        self.address = f"http://127.0.0.1:{self.server.server_port}"

    @contextlib.contextmanager
    def running(self) -> Iterator[FaultProxy]:
        thread = threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )
        thread.start()
        try:
            yield self
        finally:
            self.released.set()
            self.server.shutdown()
            thread.join()
            self.server.server_close()

    def fail(self, fault: str, method: str, part: str = "", times: int | None = 1, after: int = 0) -> None:
        """Requests `method` whose key or query has `part` fail, from the `after`-th on, so many times."""
        count = [0]

        def rule(asked: str, key: str, query: str) -> str | None:
            if asked != method or part not in f"{key}?{query}":
                return None
            count[0] += 1
            hit = count[0] > after and (times is None or count[0] <= after + times)
            return fault if hit else None

        self.rules.append(rule)

    def fail_at_random(self, seed: int, rate: float, faults: tuple[str, ...]) -> None:
        """Every request fails with this probability, in one of these ways."""
        chance = random.Random(seed)

        def rule(_asked: str, _key: str, _query: str) -> str | None:
            return chance.choice(faults) if chance.random() < rate else None

        self.rules.append(rule)

    def heal_rules(self) -> None:
        """No more faults."""
        with self.lock:
            self.rules.clear()

    def heal(self) -> None:
        """The same; and what was seen is forgotten."""
        self.heal_rules()
        with self.lock:
            self.seen.clear()

    def fault_for(self, method: str, key: str, query: str) -> str | None:
        with self.lock:
            found = [rule(method, key, query) for rule in self.rules]
        return next((fault for fault in found if fault), None)

    def asked(self, method: str, part: str = "") -> list[Request]:
        """The requests so far of a method, whose key or query has `part`."""
        with self.lock:
            return [r for r in self.seen if r.method == method and part in f"{r.key}?{r.query}"]

    def faults(self) -> list[str]:
        with self.lock:
            return [r.fault for r in self.seen if r.fault]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    proxy: FaultProxy

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hung up is what these tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    disable_nagle_algorithm = True

    def _handle(self) -> None:
        url = urlsplit(self.path)
        key, proxy = unquote(url.path), self.server.proxy
        fault = proxy.fault_for(self.command, key, url.query)
        request = Request(self.command, key, url.query, fault)
        with proxy.lock:
            proxy.seen.append(request)
        request.ended_in = self._fail(fault) if fault else self._pass_on()

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _handle

    def _fail(self, fault: str) -> str:
        if fault == "cut":
            return self._cut_put() if self.command == "PUT" else self._cut_get()
        if fault == SHORT:
            return self._pass_on(part=0.5)
        if fault == "reset":
            return self._hang_up()
        body = self._body()
        if fault == "lost":
            status = str(self._forward(body).status)
            self._hang_up()
            return status
        if fault == "stall":
            self.server.proxy.released.wait(60)
            return self._hang_up()
        return self._refuse(fault)

    def _refuse(self, status: str) -> str:
        text = f"<?xml version='1.0'?><Error><Code>{CODES[status]}</Code><Message>injected</Message></Error>"
        body = b"" if self.command == "HEAD" else text.encode()
        self._answer(int(status), {"Content-Type": "application/xml"}, len(body))
        self.wfile.write(body)
        return status

    def _hang_up(self) -> str:
        """As a crashed machine does: RST instead of an orderly end."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RD)
        self.connection.close()
        return ""

    def _pass_on(self, part: float = 1) -> str:
        answer = self._forward(self._body())
        data = answer.read()
        data = data[: int(len(data) * part)]
        length = len(data) if part < 1 else int(answer.headers.get("Content-Length", len(data)))
        self._answer(answer.status, dict(answer.headers.items()), length)
        self.wfile.write(data)
        return str(answer.status)

    def _cut_get(self) -> str:
        answer = self._forward(self._body())
        data = answer.read()
        self._answer(answer.status, dict(answer.headers.items()), len(data))
        self.wfile.write(data[: len(data) // 2])
        self.wfile.flush()
        self._hang_up()
        return str(answer.status)

    def _cut_put(self) -> str:
        """The store is promised the whole body, and gets half of it."""
        body, target = self._body(), urlsplit(self.server.proxy.upstream)
        lines = [f"{self.command} {self.path} HTTP/1.1", f"Content-Length: {len(body)}"]
        lines += [f"{k}: {v}" for k, v in self._headers().items()]
        with socket.create_connection((str(target.hostname), int(target.port or 80))) as store:
            store.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body[: len(body) // 2])
        return self._hang_up()

    def _forward(self, body: bytes) -> http.client.HTTPResponse:
        target = urlsplit(self.server.proxy.upstream)
        store = http.client.HTTPConnection(str(target.hostname), target.port, timeout=60)
        self.store = store
        store.request(self.command, self.path, body, self._headers() | {"Content-Length": str(len(body))})
        return store.getresponse()

    def _headers(self) -> dict[str, str]:
        left_out = HOP_BY_HOP | {"content-length"}
        return {k: v for k, v in self.headers.items() if k.lower() not in left_out}

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            return b"".join(self._chunks())
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline().split(b";")[0], 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass  # trailers

    def _answer(self, status: int, headers: dict[str, str], length: int) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in HOP_BY_HOP | {"content-length"}:
                self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_message(self, *_words: object) -> None:
        """Tests look at `seen`."""
