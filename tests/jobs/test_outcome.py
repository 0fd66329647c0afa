"""How commands end: the JSON line, the exit code, and where everything else is printed."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys

import numpy as np
import pytest

from genai_core.errors import InvalidData, JobFailed
from jobs.outcome import Outcome, jsonable, settle


def ends(capfd: pytest.CaptureFixture[str], work, **more) -> tuple[int, dict, str]:
    """Exit code, the last line of standard output, standard error."""
    code = settle(work, {"file": "job.yaml"}, **more)
    out, error = capfd.readouterr()
    return code, json.loads(out.splitlines()[-1]), error


def raises(error: BaseException):
    def work(emit):
        raise error

    return work


def test_success(capfd) -> None:
    code, line, error = ends(capfd, lambda emit: Outcome({"rows": 3}))
    assert code == 0 and error == ""
    assert line.pop("seconds") >= 0
    assert line == {"status": "done", "file": "job.yaml", "rows": 3}


ERRORS = {
    "bad input": (InvalidData("no rows"), 2, "invalid", "no rows"),
    "failed": (JobFailed("3 shards"), 1, "failed", "3 shards"),
    "interrupted": (KeyboardInterrupt(), 130, "failed", "the same command resumes"),
    "disk full": (
        OSError(errno.ENOSPC, "No space left on device", "out/x"),
        1,
        "failed",
        "no space left at out/x",
    ),
    "system": (
        PermissionError(errno.EACCES, "Permission denied", "out"),
        1,
        "failed",
        "error: permission denied: out",
    ),
    "memory": (MemoryError(), 1, "failed", "out of memory"),
    "unexpected": (ZeroDivisionError("by zero"), 1, "failed", "unexpected error: ZeroDivisionError: by zero"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_an_error_has_a_code_a_line_and_a_sentence(case: str, capfd) -> None:
    error, code, status, sentence = ERRORS[case]
    found, line, said = ends(capfd, raises(error))
    assert (found, line["status"]) == (code, status)
    assert line["error"] and sentence in said
    assert "Traceback" not in said


def test_debug_shows_the_traceback(capfd) -> None:
    assert "Traceback" in ends(capfd, raises(ZeroDivisionError("x")), debug=True)[2]


def test_silent_says_it_in_the_line_alone(capfd) -> None:
    _, line, error = ends(capfd, raises(InvalidData("no rows")), silent=True)
    assert error == "" and line["error"] == "no rows"


def test_whatever_libraries_print_goes_to_standard_error(capfd) -> None:
    def work(emit):
        print("chatter of a library")
        os.write(1, b"chatter of its C code\n")
        emit({"part": 1})
        return Outcome()

    code = settle(work, {})
    out, error = capfd.readouterr()
    assert [list(json.loads(line)) for line in out.splitlines()] == [["part"], ["status", "seconds"]]
    assert "library" in error and "C code" in error and code == 0


def test_standard_output_is_given_back(capfd) -> None:
    settle(lambda emit: Outcome(), {})
    print("after")
    assert capfd.readouterr().out.splitlines()[-1] == "after"


def test_termination_is_an_interruption_and_the_handler_goes_away(capfd) -> None:
    before = signal.getsignal(signal.SIGTERM)
    code, line, error = ends(capfd, lambda emit: os.kill(os.getpid(), signal.SIGTERM) or signal.pause())
    assert (code, line["status"], line["error"]) == (143, "failed", "terminated")
    assert "the same command resumes" in error
    assert signal.getsignal(signal.SIGTERM) == before


def test_error_texts_cannot_command_the_terminal(capfd) -> None:
    _, line, error = ends(capfd, raises(InvalidData("bad \x1b[31m value")))
    assert "\x1b" not in error and line["error"] == "bad \x1b[31m value"


def test_the_line_is_strict_json(capfd) -> None:
    strange = {
        "nan": float("nan"),
        "inf": np.float32("inf"),
        "n": np.int64(3),
        "path": os.curdir,
        5: {np.bool_(True)},
        "t": sys,
    }
    settle(lambda emit: Outcome(strange), {})
    line = json.loads(capfd.readouterr().out, parse_constant=lambda text: pytest.fail(text))
    assert line["nan"] is None and line["inf"] is None and line["n"] == 3 and line["5"] == [True]


def test_plain_values() -> None:
    assert jsonable({"a": (1, 2.5, None, True, "x", np.float64(0.5))}) == {
        "a": [1, 2.5, None, True, "x", 0.5]
    }
