"""How a command ends: one JSON object as the last line of standard output, an exit code, a sentence for people."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from genai_core.errors import GenAIError
from pipelines.masking import mask_text
from pipelines.progress import printable

DONE, FAILED, INVALID, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143
STATUS = {DONE: "done", INVALID: "invalid"}
FULL = (errno.ENOSPC, errno.EDQUOT)


class Terminated(KeyboardInterrupt):
    """SIGTERM: what schedulers send before they kill."""


@dataclass
class Outcome:
    """What `settle` writes: `facts` of the work, and what went wrong if anything did."""

    facts: dict[str, Any] = field(default_factory=dict)
    code: int = DONE
    error: str = ""
    sentence: str = ""
    cause: BaseException | None = None

    def line(self) -> dict[str, Any]:
        status = {"status": STATUS.get(self.code, "failed")}
        return status | self.facts | ({"error": self.error} if self.error else {})


def settle(
    work: Callable[[Callable[[Any], None]], Outcome],
    facts: dict[str, Any],
    silent: bool = False,
    debug: bool = False,
) -> int:
    """Run `work(emit)`; whatever happens, end with the JSON line. Returns the exit code.

    `emit(value)` writes a JSON line before the last one. Libraries that print are sent to standard error.
    """
    started = time.monotonic()
    with _results() as out:
        try:
            outcome = work(lambda value: write_line(value, out))
        except (Exception, KeyboardInterrupt) as error:
            outcome = explain(error)
        if debug and outcome.cause is not None:
            show_traceback(outcome.cause)
        outcome.facts = facts | outcome.facts
        outcome.facts.setdefault("seconds", round(time.monotonic() - started, 3))
        if outcome.sentence and not silent:
            complain(outcome.sentence)
        write_line(outcome.line(), out)
    return outcome.code


def show_traceback(error: BaseException) -> None:
    """Of one exception, to standard error."""
    import traceback

    complain("".join(traceback.format_exception(error)).rstrip("\n"))


def explain(error: BaseException) -> Outcome:
    """Exit code and words for an exception; `error` of the JSON line says the same without advice."""
    outcome = _explain(error)
    outcome.error, outcome.sentence = mask_text(outcome.error), mask_text(outcome.sentence)
    outcome.cause = error
    return outcome


def _explain(error: BaseException) -> Outcome:
    if isinstance(error, GenAIError):
        return Outcome(code=error.exit_code, error=str(error), sentence=f"error: {error}")
    if isinstance(error, KeyboardInterrupt):
        ended = "terminated" if isinstance(error, Terminated) else "interrupted"
        advice = "what was committed stays; the same command resumes"
        return Outcome(
            code=TERMINATED if ended == "terminated" else INTERRUPTED,
            error=ended,
            sentence=f"{ended}: {advice}",
        )
    if isinstance(error, OSError) and error.errno in FULL:
        place = f" at {error.filename}" if error.filename else ""
        return _failed(
            f"no space left{place}; make room and run the same command again: what was committed stays"
        )
    if isinstance(error, OSError) and error.strerror:
        place = f": {error.filename}" if error.filename else ""
        return _failed(f"{error.strerror.lower()}{place} (--debug shows where); what was committed stays")
    if isinstance(error, MemoryError):
        return _failed("out of memory; use fewer workers, smaller shards or a machine with more memory")
    text = f"{type(error).__name__}: {error}".strip().rstrip(":")
    advice = "this is a fault of genai-core, not of your input; run again with --debug for the traceback, and report it"
    return Outcome(code=FAILED, error=text, sentence=f"unexpected error: {text}\n{advice}")


def _failed(text: str) -> Outcome:
    return Outcome(code=FAILED, error=text, sentence=f"error: {text}")


def complain(text: str) -> None:
    """To standard error, with no secret in it and nothing that a terminal would obey."""
    with contextlib.suppress(OSError, ValueError):
        print(printable(mask_text(text), keep="\n"), file=sys.stderr, flush=True)


def write_line(value: Any, out: TextIO) -> None:
    """One JSON line; a reader that has gone away is no error of the job."""
    with contextlib.suppress(BrokenPipeError):
        out.write(json.dumps(jsonable(value), allow_nan=False) + "\n")
        out.flush()


def jsonable(value: Any) -> Any:
    """Plain JSON: NaN and infinity become null, numpy scalars numbers, anything else its text."""
    if isinstance(value, dict):
        return {str(key): jsonable(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set):
        return [jsonable(inner) for inner in value]
    if hasattr(value, "item") and not getattr(value, "shape", True):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


@contextlib.contextmanager
def _results() -> Iterator[TextIO]:
    """The real standard output for results; meanwhile file descriptor 1 and `print` go to standard error."""
    sys.stdout.flush()
    try:
        kept = os.dup(1)
    except OSError:  # closed by the caller: there is nobody to tell
        with contextlib.redirect_stdout(sys.stderr), Path(os.devnull).open("w") as nowhere:
            yield nowhere
        return
    os.dup2(2, 1)
    before = _on_termination(_raise_terminated)
    try:
        with contextlib.redirect_stdout(sys.stderr), os.fdopen(os.dup(kept), "w", encoding="utf-8") as out:
            yield out
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        _on_termination(before)


def _raise_terminated(number: int, _frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)  # a second one ends it at once
    raise Terminated


def _on_termination(handler: Any) -> Any:
    """Only the main thread may set handlers; elsewhere the default stays."""
    with contextlib.suppress(ValueError):
        return signal.signal(signal.SIGTERM, handler)
    return signal.SIG_DFL
