"""Progress: what is said, when, and that nothing reaches a terminal that it would obey."""

from __future__ import annotations

import io
import threading

import pytest

from pipelines.progress import WINDOW_SECONDS, Progress, clock, printable


class Watch:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


def lines(**more) -> tuple[Progress, io.StringIO, Watch]:
    out, watch = io.StringIO(), Watch()
    return Progress("lines", stream=out, now=watch, **more), out, watch


def test_a_line_every_five_seconds_and_one_at_the_end() -> None:
    progress, out, watch = lines()
    with progress:
        progress.start(32, "shards", title="generate")
        for _ in range(16):
            watch.time += 1
            progress.advance(1, rows=65_536)
    said = out.getvalue().splitlines()
    assert said[0] == "generate: 5/32 shards, 327,680 rows, 65,536 rows/s, 0:27 left"
    assert len(said) == 4
    assert said[-1] == "generate: 16/32 shards, 1,048,576 rows, 65,536 rows/s, 0:16 in all"


def test_speed_is_that_of_the_last_half_minute() -> None:
    progress, _, watch = lines()
    progress.start(100, "shards")
    watch.time += 100  # the start of a cluster
    progress.advance(1, rows=10)
    for _ in range(40):
        watch.time += 1
        progress.advance(1, rows=10)
    assert progress.describe() == "41/100 shards, 410 rows, 10 rows/s, 0:59 left"
    assert WINDOW_SECONDS < 40


def test_what_was_done_before_is_counted_but_not_as_speed() -> None:
    progress, _, watch = lines()
    progress.start(32, "shards", done=12)
    watch.time += 2
    progress.advance(1)
    assert progress.describe() == "13/32 shards, 0:38 left"


def test_unknown_total_and_facts() -> None:
    progress, _, watch = lines()
    progress.start(None, "steps", title="train")
    watch.time += 1
    progress.advance(10, loss=12.345678, best="yes")
    progress.advance(10, loss=11.0)
    assert progress.describe() == "train: 20 steps, loss 11, best yes"


def test_rows_as_the_unit_have_a_speed_and_percent_no_total() -> None:
    progress, _, watch = lines()
    progress.start(1000, "rows", title="reading")
    watch.time += 1
    progress.advance(250)
    assert progress.describe() == "reading: 250/1,000 rows, 250 rows/s, 0:03 left"
    progress.start(100, "%", title="training")
    watch.time += 1
    progress.advance(12.4)
    assert progress.describe() == "training: 12 %, 0:07 left"


def test_a_second_phase_ends_the_first() -> None:
    progress, out, _ = lines()
    with progress:
        progress.start(1, "files", title="read")
        progress.start(2, "shards", title="score")
    assert [line.split(":")[0] for line in out.getvalue().splitlines()] == ["read", "score"]


def test_silence_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    with Progress.silent() as progress:
        progress.start(3, "shards")
        progress.advance(3, rows=5)
        progress.message("hello")
    assert capfd.readouterr() == ("", "")


def test_it_speaks_on_standard_error_only(capfd: pytest.CaptureFixture[str]) -> None:
    with Progress.to_stderr() as progress:
        progress.start(3, "shards")
        progress.message("hello")
    out, error = capfd.readouterr()
    assert out == "" and "hello" in error


def test_quiet_wins() -> None:
    assert Progress.to_stderr(quiet=True).show == "nothing"


@pytest.mark.parametrize("show", ["lines", "bar"])
def test_nothing_printed_is_obeyed_by_a_terminal(show) -> None:
    out = io.StringIO()
    with Progress(show, stream=out, every_seconds=0) as progress:
        progress.start(2, "shards", title="a\x1b[2Jb")
        progress.advance(1, note="x\x07\u202ey")
        progress.message("[bold]no markup[/bold] \x1b]0;title\x07")
    said = out.getvalue()
    assert not set(said) & set("\x07\u202e") and "\x1b[2J" not in said and "\x1b]0" not in said
    assert "[bold]no markup[/bold] \\x1b]0;title\\x07" in said


def test_the_bar_shows_the_last_state() -> None:
    out = io.StringIO()
    with Progress("bar", stream=out) as progress:
        progress.start(4, "shards", title="score")
        progress.advance(4, rows=40)
    assert "score: 4/4 shards, 40 rows" in out.getvalue()


def test_many_threads_lose_nothing() -> None:
    progress, _, _ = lines()
    progress.start(4000, "shards")
    threads = [
        threading.Thread(target=lambda: [progress.advance(1, rows=2) for _ in range(500)]) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert progress.describe().startswith("4,000/4,000 shards, 8,000 rows")


@pytest.mark.parametrize(
    ("seconds", "text"), [(-1, "0:00"), (7.4, "0:07"), (59.6, "1:00"), (750, "12:30"), (11_100, "3:05:00")]
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_printable_keeps_words_and_escapes_commands() -> None:
    assert printable("Zürich 東京 می‌خواهم") == "Zürich 東京 می‌خواهم"
    assert printable("a\x1b[1mb\x9b\u2028\u202e\udc80\n") == "a\\x1b[1mb\\x9b\\u2028\\u202e\\udc80\\x0a"
    assert printable("a\n\tb", keep="\n") == "a\n\\x09b"
