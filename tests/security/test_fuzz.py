"""The short form of benchmarks/fuzz.py, and that the fuzzer sees what it is there to see."""

from __future__ import annotations

import os
import pickle
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import fuzz
from benchmarks.fuzz_bench import Bench, Target, prepared
from benchmarks.fuzz_guard import Guard, Surroundings
from benchmarks.fuzz_targets import TARGETS
from genai_core.errors import InvalidInput

SHORT = 25


@pytest.fixture(scope="session")
def guard() -> Guard:
    return Guard()


@pytest.fixture
def bench(tmp_path: Path, forgeable_model: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.chdir(tmp_path)  # `prepared` goes elsewhere; this comes back
    return prepared(tmp_path / "around" / "inside", forgeable_model)


def judged(run: Callable[[Bench, Any], object], bench: Bench, guard: Guard) -> list[str]:
    judge = fuzz.Judge(Target("own", 1, lambda random: 0, run), bench, lambda number, text: None, guard)
    judge(0)
    return [fault for one in judge.findings for fault in one["faults"]]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_no_input_causes_anything_but_a_result_or_an_error_of_ours(
    target: Target, bench: Bench, guard: Guard
) -> None:
    around = Surroundings(bench.folder.parent, bench.folder)
    judge = fuzz.Judge(target, bench, lambda number, text: None, guard)
    fuzz.drawn(target, "short", SHORT, judge)
    assert not judge.findings and not around.changed()
    assert judge.counts.total() >= SHORT


def _writes_outside(bench: Bench, _: Any) -> None:
    (bench.folder.parent / "x").write_text("")


def _opens_a_connection(bench: Bench, _: Any) -> None:
    with socket.socket() as made:
        made.settimeout(0.1)
        made.connect_ex(("127.0.0.1", 9))


def _unpickles(bench: Bench, _: Any) -> None:
    pickle.loads(pickle.dumps(Path("x")))  # noqa: S301


def _starts_a_program(bench: Bench, _: Any) -> None:
    os.system("true")


def _raises(bench: Bench, _: Any) -> None:
    raise KeyError("x")


def _says_nothing(bench: Bench, _: Any) -> None:
    raise InvalidInput("")


@pytest.mark.parametrize(
    ("run", "fault"),
    [
        (_writes_outside, "open"),
        (_opens_a_connection, "socket.connect"),
        (_unpickles, "pickle.find_class"),
        (_starts_a_program, "os.system"),
        (_raises, "KeyError"),
        (_says_nothing, "a message of 0 characters"),
    ],
)
def test_the_fuzzer_sees(run: Callable[[Bench, Any], object], fault: str, bench: Bench, guard: Guard) -> None:
    assert any(found.startswith(fault) for found in judged(run, bench, guard))


def test_what_is_written_inside_is_no_fault(bench: Bench, guard: Guard) -> None:
    assert judged(lambda bench, _: (bench.folder / "x").write_text(""), bench, guard) == []


def test_a_file_that_a_library_writes_outside_is_seen(bench: Bench) -> None:
    import pyarrow.fs as pafs

    around = Surroundings(bench.folder.parent, bench.folder)
    pafs.LocalFileSystem().delete_file(str(bench.folder.parent / "precious" / "data.parquet"))
    assert [Path(path).name for path in around.changed()] == ["precious", "data.parquet"]


def _crashes(bench: Bench, _: Any) -> None:
    os.kill(os.getpid(), 11)


def _hangs(bench: Bench, _: Any) -> None:
    while True:
        pass


def _hungers(bench: Bench, _: Any) -> None:
    bytes(2 * fuzz.LIMIT_BYTES)


@pytest.mark.parametrize(
    ("run", "fault"), [(_crashes, "killed by signal 11"), (_hangs, "hang"), (_hungers, "MemoryError")]
)
def test_a_process_that_an_input_breaks_is_a_finding(
    run: Callable[[Bench, Any], object],
    fault: str,
    forgeable_model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fuzz, "LIMIT_SECONDS", 0.1)
    target = Target("own", 1, lambda random: random.randrange(9), run)
    found = fuzz.block(target, forgeable_model, "seed", 1)
    assert found["findings"][0]["faults"][0].startswith(fault)
