"""Progress for people, on standard error: a bar on a terminal, a plain line now and then elsewhere, or nothing."""

from __future__ import annotations

import os
import sys
import threading
import time
import unicodedata
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, Literal, TextIO

Show = Literal["bar", "lines", "nothing"]
JOINERS = "\u200c\u200d"  # harmless, and part of correct Persian, Hindi and emoji
WINDOW_SECONDS = (
    30.0  # speed is that of the last half minute: the start of a cluster must not dim every estimate
)


def printable(text: object, keep: str = "") -> str:
    r"""The text with control characters and direction overrides written out as `\x1b`, except those in `keep`.

    Names and values come from users' files: printed raw, they could move the cursor or retitle the terminal.
    """
    return "".join(c if c in keep or not _is_control(c) else _written_out(c) for c in str(text))


def _is_control(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") and character not in JOINERS


def _written_out(character: str) -> str:
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def clock(seconds: float) -> str:
    """`0:07`, `12:30`, `3:05:00`."""
    whole = max(0, round(seconds))
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def is_terminal(stream: TextIO) -> bool:
    """Whether a moving bar makes sense there."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


class Progress:
    """One phase at a time: `start(total, unit)`, then `advance(n, rows=...)` from any thread; `message` between."""

    def __init__(
        self,
        show: Show = "nothing",
        *,
        stream: TextIO | None = None,
        every_seconds: float = 5.0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.show = show
        self._stream = stream
        self._every = every_seconds
        self._now = now
        self._lock = threading.RLock()
        self._bar: Any = None
        self._running = False
        self._reset(None, "", 0, "")

    @classmethod
    def silent(cls) -> Progress:
        """Shows nothing."""
        return cls("nothing")

    @classmethod
    def to_stderr(cls, quiet: bool = False) -> Progress:
        """A bar where standard error is a terminal, plain lines where it is not, nothing when quiet."""
        if quiet:
            return cls.silent()
        return cls("bar" if is_terminal(sys.stderr) else "lines")

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish()

    def start(self, total: float | None, unit: str = "steps", *, done: float = 0, title: str = "") -> None:
        """Begin a phase of `total` units (None: unknown), of which `done` were there already."""
        with self._lock:
            self.finish()
            self._reset(total, unit, done, title)
            self._running = True
            if self.show == "bar":
                self._open_bar()

    def advance(self, n: float = 1, *, rows: int = 0, **facts: float | str) -> None:
        """`n` more units and `rows` more rows are done; `facts` (loss=0.12) stand beside until the next ones."""
        with self._lock:
            self._done += n
            self._rows += round(n) if self._unit == "rows" else rows
            self._facts.update(facts)
            self._remember()
            self._draw()

    def message(self, text: str) -> None:
        """A line of its own, above the bar."""
        if self.show == "nothing":
            return
        with self._lock:
            self._write(printable(text, keep="\n"))

    def finish(self) -> None:
        """End the phase; its last state stays to be read."""
        with self._lock:
            if not self._running:
                return
            self._running = False
            if self._bar is not None:
                self._bar.stop()
                self._bar = None
            elif self.show == "lines":
                self._write(self.describe(final=True))

    def describe(self, final: bool = False) -> str:
        """Such as `generate: 12/32 shards, 786,432 rows, 95,113 rows/s, 0:12 left`."""
        parts = [self._count(), *self._speed(final), *self._fact_texts()]
        return printable(
            (f"{self._title}: " if self._title else "") + ", ".join(part for part in parts if part)
        )

    def _reset(self, total: float | None, unit: str, done: float, title: str) -> None:
        self._total, self._unit, self._done, self._title = total, unit, done, title
        self._first = done
        self._rows = 0
        self._facts: dict[str, float | str] = {}
        self._started = self._spoke = self._now()
        self._marks: deque[tuple[float, float, int]] = deque([(self._started, done, 0)])

    def _remember(self) -> None:
        now = self._now()
        self._marks.append((now, self._done, self._rows))
        while len(self._marks) > 2 and self._marks[1][0] < now - WINDOW_SECONDS:
            self._marks.popleft()

    def _count(self) -> str:
        done = f"{self._done:,.0f}"
        if self._unit == "%":
            return f"{done} %"
        whole = "" if self._total is None else f"/{self._total:,.0f}"
        return f"{done}{whole} {self._unit}".strip()

    def _speed(self, final: bool) -> list[str]:
        rows = [f"{self._rows:,} rows"] if self._rows and self._unit != "rows" else []
        elapsed = self._now() - self._started
        if final:
            rate = [f"{self._rows / elapsed:,.0f} rows/s"] if self._rows and elapsed > 0 else []
            return [*rows, *rate, f"{clock(elapsed)} in all"]
        since, done_then, rows_then = self._marks[0]
        window = self._now() - since
        if window <= 0 or self._done <= done_then:
            return rows
        rate = [f"{(self._rows - rows_then) / window:,.0f} rows/s"] if self._rows else []
        return [*rows, *rate, *self._left((self._done - done_then) / window)]

    def _left(self, units_per_second: float) -> list[str]:
        if self._total is None or self._done >= self._total:
            return []
        return [f"{clock((self._total - self._done) / units_per_second)} left"]

    def _fact_texts(self) -> list[str]:
        return [f"{k} {v if isinstance(v, str) else format(v, '.5g')}" for k, v in self._facts.items()]

    def _draw(self) -> None:
        if self._bar is not None:
            self._bar.update(0, completed=self._done, description=self.describe())
        elif self.show == "lines" and self._running and self._now() - self._spoke >= self._every:
            self._spoke = self._now()
            self._write(self.describe())

    def _write(self, text: str) -> None:
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            stream = self._stream or sys.stderr
            stream.write(text + "\n")
            stream.flush()

    def _open_bar(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, SpinnerColumn, TextColumn
        from rich.progress import Progress as Bar

        text = TextColumn("{task.description}", markup=False)
        console = Console(file=self._stream or sys.stderr)
        self._bar = Bar(SpinnerColumn(), BarColumn(bar_width=24), text, console=console, refresh_per_second=4)
        self._bar.add_task(self.describe(), total=self._total, completed=int(self._done))
        self._bar.start()
