"""A Ray cluster's Jobs API: submit, look up, follow and stop jobs, over HTTP to the cluster's dashboard.

The head keeps what it knows of jobs in its memory. What must last lies in the output and in MLflow: `job_state`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from genai_core.errors import InvalidInput, JobFailed, Unavailable
from pipelines.masking import mask_text
from pipelines.running.ray_session import last_line

ADDRESS_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")  # in this order, as Ray reads them
STATES = {
    "PENDING": "pending",
    "RUNNING": "running",
    "SUCCEEDED": "done",
    "FAILED": "failed",
    "STOPPED": "stopped",
}
ENDED = ("done", "failed", "invalid", "stopped")
BAD_INPUT = 2  # exit code of a job that was refused before it started
REQUEST_SECONDS = 60.0  # Ray's client would wait for ever
LOST_SECONDS = 300.0  # how long a cluster that does not answer is waited for
SILENT_SECONDS = 60.0  # after so long without a line a stream is opened anew: a dead connection says nothing
POLL_SECONDS = 1.0
TALKATIVE = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env",
)
Say = Callable[[str], None]


class Lost(Unavailable):
    """The cluster does not answer; it may again."""


class Taken(Unavailable):
    """A submission of this id exists: somebody was faster."""


@dataclass(frozen=True)
class Submission:
    """A job as the head knows it; times in seconds since 1970, `state` one of STATES' values, or invalid."""

    id: str
    state: str
    message: str = ""
    started: float | None = None
    ended: float | None = None
    exit_code: int | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_over(self) -> bool:
        return self.state in ENDED


@dataclass(frozen=True)
class Parcel:
    """What travels: a command, the folder that it runs in, the packages it imports, and what it needs."""

    entrypoint: str
    directory: Path
    packages: Sequence[Path]
    variables: Mapping[str, str]
    metadata: Mapping[str, str]
    cpus: float = 0.0
    gpus: float = 0.0


class Cluster:
    """A cluster, by the address of its dashboard. Raises Unavailable when it cannot be used, Lost when it is away."""

    def __init__(self, address: str, say: Say) -> None:
        self.address, self._say = address, say
        if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"):
            os.environ.setdefault("RAY_AUTH_MODE", "token")  # else Ray, once imported, would not send it
        with self._explained():
            self._client = _connected(address)

    def submissions(self) -> list[Submission]:
        """The jobs that `genai submit` brought here, as far as the head remembers; the oldest first."""
        with self._explained():
            found = [_submission(info) for info in self._client.list_jobs() if info.submission_id]
        return sorted((one for one in found if "genai" in one.metadata), key=lambda one: one.started or 0.0)

    def find(self, identifier: str) -> Submission | None:
        """One job; None when the head does not know it."""
        with self._explained():
            try:
                return _submission(self._client.get_job_info(identifier))
            except RuntimeError as error:
                if _status_code(error) == 404:
                    return None
                raise

    def submit(self, identifier: str, parcel: Parcel) -> None:
        """Hand a job over. Raises Taken when there is one of that id."""
        environment = {
            "working_dir": str(parcel.directory),
            "py_modules": [str(path) for path in parcel.packages],  # kept apart: sent once for many jobs
            "env_vars": dict(parcel.variables),
        }
        with self._explained():
            self._client.submit_job(
                entrypoint=parcel.entrypoint,
                submission_id=identifier,
                runtime_env=environment,
                metadata=dict(parcel.metadata),
                entrypoint_num_cpus=parcel.cpus or None,
                entrypoint_num_gpus=parcel.gpus or None,
            )

    def logs(self, identifier: str) -> str:
        """What the job has said so far; empty when it has not started."""
        with self._explained():
            return str(self._client.get_job_logs(identifier))

    def stop(self, identifier: str) -> Submission | None:
        """End a job and wait until it has ended; None when the head does not know it."""
        if self.find(identifier) is None:
            return None
        with self._explained():
            self._client.stop_job(identifier)
        return self.wait(identifier)

    def wait(self, identifier: str) -> Submission:
        """The job when it is over. A lost connection is taken up again. Raises JobFailed when it stays lost."""
        patience = _Patience(self._say, identifier)
        while True:
            with patience:
                found = self._known(identifier)
                if found.is_over:
                    return found
            time.sleep(POLL_SECONDS)

    def follow(self, identifier: str) -> Iterator[str]:
        """Pieces of what the job says, until it is over; a lost connection is taken up where it broke off."""
        patience, shown = _Patience(self._say, identifier), 0
        while True:
            with patience:
                over = self._known(identifier).is_over
                for text in self._tail(identifier, shown):
                    patience.regained()
                    shown += len(text)
                    yield text
                if over or self._known(identifier).is_over:
                    return
            time.sleep(POLL_SECONDS)

    def _known(self, identifier: str) -> Submission:
        found = self.find(identifier)
        if found is None:
            raise JobFailed(
                f"the cluster no longer knows {identifier}: its head was started anew. What was committed stays; "
                "submit the same file again to go on"
            )
        return found

    def _tail(self, identifier: str, skip: int) -> Iterator[str]:
        """The stream from its start, without the first `skip` characters; ends when it is silent for long."""
        loop = asyncio.new_event_loop()
        stream = self._client.tail_job_logs(identifier)
        try:
            while True:
                with self._explained():
                    text = loop.run_until_complete(_next(stream))
                if text is None:
                    return
                if rest := text[skip:]:
                    yield rest
                skip = max(skip - len(text), 0)
        finally:
            _close(loop, stream)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """What the HTTP libraries and Ray's client raise, as Unavailable, Taken or Lost. No token is in any of them."""
        import aiohttp
        import requests
        from ray.exceptions import AuthenticationError

        try:
            yield
        except AuthenticationError as error:
            raise Unavailable(_refused(self.address, str(error))) from None
        except (requests.exceptions.InvalidURL, requests.exceptions.JSONDecodeError):
            raise Unavailable(_no_dashboard(self.address)) from None
        except (
            requests.exceptions.RequestException,
            aiohttp.ClientError,
            ConnectionError,
            TimeoutError,
        ) as error:
            raise Lost(_away(self.address, error)) from None
        except RuntimeError as error:
            raise self._answered(error) from None

    def _answered(self, error: RuntimeError) -> Exception:
        text, code = str(error), _status_code(error)
        if "already exists" in text:
            return Taken("a submission of this id exists already")
        if "websocket" in text.lower() or (code or 0) >= 500:
            return Lost(f"the cluster at {self.address} answers with an error: {mask_text(last_line(text))}")
        if "404" in text and code is None:
            return Unavailable(_no_dashboard(self.address))
        return Unavailable(f"the cluster at {self.address} refuses: {mask_text(last_line(text))}")


class _Patience:
    """A context that swallows Lost, waits a little, and gives up when the cluster stays away for too long."""

    def __init__(self, say: Say, identifier: str) -> None:
        self._say, self._identifier = say, identifier
        self.regained()

    def regained(self) -> None:
        self._since: float | None = None
        self._pause = 1.0

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if kind is None:
            self.regained()
        if not isinstance(error, Lost):
            return False
        if self._since is None:
            self._since = time.monotonic()
            self._say(f"{error}; the job does not need this connection. Trying again")
        if time.monotonic() - self._since > LOST_SECONDS:
            raise JobFailed(
                f"{error}, for {LOST_SECONDS:.0f} s now. {self._identifier} may go on without us: ask again later "
                "with `genai status`, which looks at the output too when it is given the job's file"
            ) from None
        time.sleep(self._pause)
        self._pause = min(2 * self._pause, 10.0)
        return True


def dashboard_address(given: str | None) -> str:
    """What the user gave, else what Ray's own variables say. InvalidInput unless it is a dashboard's URL."""
    name, address = "--address", given
    if not address:
        found = [(name, os.environ[name]) for name in ADDRESS_VARIABLES if os.environ.get(name)]
        if not found:
            raise InvalidInput(
                "which cluster? Give --address http://HOST:8265, the cluster's dashboard, or set RAY_API_SERVER_ADDRESS"
            )
        name, address = found[0]
    parts = urlsplit(address)
    if parts.scheme == "ray":
        raise InvalidInput(
            f"{name} {mask_text(address)}: Ray Client (ray://) loses a job with its connection; give the dashboard's "
            "address, such as http://HOST:8265"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidInput(
            f"{name} {mask_text(address)!r} is not the URL of a dashboard; give it as http://HOST:8265 "
            "(`ray start --head` prints it; 6379 is another port)"
        )
    if parts.username or parts.password or parts.query:
        raise InvalidInput(
            f"{name}: leave user, password and query out of the URL; the token is RAY_AUTH_TOKEN"
        )
    return f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/")


def _connected(address: str) -> Any:
    """Ray's own client, with a time limit."""
    from ray.job_submission import JobSubmissionClient

    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.ERROR)

    class Client(JobSubmissionClient):
        def _do_request(self, *arguments: Any, **options: Any) -> Any:
            return super()._do_request(*arguments, **({"timeout": REQUEST_SECONDS} | options))

    with _only(address):
        return Client(address)


@contextmanager
def _only(address: str) -> Iterator[None]:
    """Ray's client prefers its variables to the address that it is given."""
    before = {name: os.environ.pop(name, None) for name in ADDRESS_VARIABLES}
    os.environ[ADDRESS_VARIABLES[0]] = address
    try:
        yield
    finally:
        del os.environ[ADDRESS_VARIABLES[0]]
        os.environ.update({name: value for name, value in before.items() if value is not None})


def _submission(info: Any) -> Submission:
    state = STATES[str(info.status.value)]
    if state == "failed" and info.driver_exit_code == BAD_INPUT:
        state = "invalid"
    return Submission(
        info.submission_id,
        state,
        info.message or "",
        info.start_time / 1000 if info.start_time else None,
        info.end_time / 1000 if info.end_time else None,
        info.driver_exit_code,
        info.metadata or {},
    )


async def _next(stream: Any) -> str | None:
    """The next piece; None at the end, and after a long silence."""
    try:
        return str(await asyncio.wait_for(anext(stream), SILENT_SECONDS))
    except (StopAsyncIteration, TimeoutError):
        return None


def _close(loop: asyncio.AbstractEventLoop, stream: Any) -> None:
    """Also after an interruption in the middle of a wait, whose task is still there."""
    with contextlib.suppress(Exception):
        for task in asyncio.all_tasks(loop):
            task.cancel()
            loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
        loop.run_until_complete(stream.aclose())
    loop.close()


def _status_code(error: RuntimeError) -> int | None:
    found = re.search(r"status code (\d{3})", str(error))
    return int(found[1]) if found else None


def _refused(address: str, said: str) -> str:
    """A 401 is a token that was not sent, a 403 a wrong one."""
    if "Invalid authentication token" in said:
        return (
            f"the cluster at {address} refuses the token (403): it is another cluster's. Set RAY_AUTH_TOKEN, or "
            "RAY_AUTH_TOKEN_PATH, to the one that this cluster was started with; on its head it is in ~/.ray/auth_token"
        )
    return (
        f"the cluster at {address} wants a token (401). Set RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH) to the one that "
        "it was started with; on its head it is in ~/.ray/auth_token, and there RAY_AUTH_MODE=token is enough"
    )


def _no_dashboard(address: str) -> str:
    return f"{address} answers, but not as a Ray dashboard; give the address that `ray start --head` prints (port 8265)"


def _away(address: str, error: BaseException) -> str:
    reason = "it took too long" if "imeout" in type(error).__name__ else "nothing there speaks HTTP"
    return f"no answer from the cluster at {address} ({reason}); is its head up, and the way to it open?"
