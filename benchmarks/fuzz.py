"""The fuzzer: job files, data, pictures, sounds, models and outputs, damaged in more than 100,000 ways

    python -m benchmarks.fuzz                       all targets, results/fuzz.json; about 15 CPU-minutes
    python -m benchmarks.fuzz --only filters        one of them anew; the others' figures stay
    python -m benchmarks.fuzz --share 0.1           a tenth, of which no figures are kept

An input is done right when it is accepted, or refused by an error of genai_core.errors that says something; within
LIMIT_SECONDS of CPU and LIMIT_BYTES more memory; and nothing is written, started or asked outside of its folder.
Targets run in processes of their own: one that a library crashes is a finding, and the rest goes on.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded

from benchmarks.fuzz_bench import Bench, Target, prepared
from benchmarks.fuzz_guard import MIB, Guard, Surroundings, limit_memory, peak_memory
from benchmarks.fuzz_targets import TARGETS
from benchmarks.record import RESULTS, save
from genai_core.catalog import MODALITIES, MODELS, codec_class, model_class
from genai_core.errors import GenAIError

SEED = 4
BLOCK = 1000  # inputs of one process
LIMIT_SECONDS = 5.0
LIMIT_BYTES = 1024 * MIB
LONGEST_MESSAGE = 20_000
SHOWN = 2000
KEPT = 40  # findings of a target


class Judge:
    """Runs inputs and says what was wrong with how they ended; `note` keeps the input for when the process dies."""

    def __init__(self, target: Target, bench: Bench, note: Callable[[int, str], None], guard: Guard) -> None:
        self.target, self.bench, self.note, self.guard = target, bench, note, guard
        self.counts: Counter[str] = Counter()
        self.findings: list[dict[str, Any]] = []
        self.slowest = 0.0

    def __call__(self, value: Any) -> None:
        """One input."""
        self.note(self.counts.total(), repr(value)[:SHOWN])
        started, memory = time.process_time(), peak_memory()
        with self.guard.watching(self.bench.folder) as seen:
            ending, fault = self._run(value)
        seconds = time.process_time() - started
        self.slowest = max(self.slowest, seconds)
        more = peak_memory() - memory
        faults = [fault, *seen]
        if seconds > LIMIT_SECONDS:
            faults.append(f"took {seconds:.1f} CPU-seconds")
        if more > LIMIT_BYTES // 2:
            faults.append(f"took {more // MIB} MiB more")
        self.counts[ending] += 1
        if any(faults) and len(self.findings) < KEPT:
            self.findings.append({"input": repr(value)[:SHOWN], "faults": [f for f in faults if f]})

    def _run(self, value: Any) -> tuple[str, str]:
        try:
            self.target.run(self.bench, value)
        except GenAIError as error:
            text = str(error)
            if not text.strip() or len(text) > LONGEST_MESSAGE:
                return "refused", f"a message of {len(text)} characters: {text[:100]}"
            return "refused", ""
        except BaseException as error:
            frames = traceback.extract_tb(error.__traceback__)
            ours = [
                f"{Path(f.filename).name}:{f.lineno}" for f in frames if "site-packages" not in f.filename
            ]
            return "fault", f"{type(error).__name__}: {str(error)[:200]} at {' '.join(ours[-4:])}"
        return "accepted", ""


def drawn(target: Target, seed: str, count: int, judge: Callable[[Any], None]) -> None:
    """Draw so many inputs of a target and judge them."""
    if callable(target.draw):
        for number in range(count):
            judge(target.draw(Random(f"{seed}/{number}")))
        return
    options = settings(
        max_examples=count, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    seeded(seed)(options(given(target.draw)(lambda value: judge(value))))()


def _child(
    target: Target, folder: Path, model: Path, seed: str, count: int, page: mmap.mmap, report: Path
) -> None:
    """In a process of its own: prepare, limit, judge, write down."""
    sys.dont_write_bytecode = True
    warnings.simplefilter("ignore")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    bench = prepared(folder / "inside", model)
    around = Surroundings(folder, bench.folder)

    def note(number: int, text: str) -> None:
        data = text.encode("utf-8", "backslashreplace")[: len(page) - 16]
        page[:16] = number.to_bytes(8, "little") + len(data).to_bytes(8, "little")
        page[16 : 16 + len(data)] = data

    judge = Judge(target, bench, note, Guard())
    memory = limit_memory(LIMIT_BYTES)
    drawn(target, seed, count, judge)
    if changed := around.changed():
        judge.findings.append(
            {"input": f"one of block {seed}", "faults": [f"changed outside: {changed[:5]}"]}
        )
    found = {"counts": judge.counts, "findings": judge.findings, "slowest": judge.slowest,
             "more": peak_memory() - memory}  # fmt: skip
    report.write_text(json.dumps(found))


def block(target: Target, model: Path, seed: str, count: int) -> dict[str, Any]:
    """What one process found; when it died, or had to be ended, that is a finding."""
    page = mmap.mmap(-1, 8192)
    with tempfile.TemporaryDirectory(
        prefix="fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None
    ) as name:
        folder = Path(name)
        report = Path(f"{name}.json")
        process = os.fork()
        if process == 0:
            code = 1
            try:
                _child(target, folder, model, seed, count, page, report)
                code = 0
            except BaseException:
                report.write_text(json.dumps({"broken": traceback.format_exc()}))
            os._exit(code)
        ended = _wait(process, page)
        found = json.loads(report.read_text()) if report.exists() else {}
        report.unlink(missing_ok=True)
    if "broken" in found:
        raise RuntimeError(found["broken"])
    if ended or not found:
        number, length = (int.from_bytes(page[i : i + 8], "little") for i in (0, 8))
        text = page[16 : 16 + length].decode(errors="replace")
        return {"counts": {"crash": 1, "lost": number}, "findings": [{"input": text, "faults": [ended or "no report"]}],
                "slowest": 0.0, "more": 0}  # fmt: skip
    return found


def _wait(process: int, page: mmap.mmap) -> str:
    """Until it ends; one input that takes twice the limit of CPU, or a minute, is a hang. Returns how it died."""
    number, since, cpu = -1, time.monotonic(), 0.0
    while True:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return f"killed by signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else ""
        now, used = int.from_bytes(page[:8], "little"), _cpu(process)
        if now != number:
            number, since, cpu = now, time.monotonic(), used
        elif used - cpu > 4 * LIMIT_SECONDS or time.monotonic() - since > 120:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            return f"hang: {used - cpu:.0f} CPU-seconds, {time.monotonic() - since:.0f} s"
        time.sleep(0.05)


def _cpu(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def fuzz(target: Target, model: Path, inputs: int, seed: int) -> dict[str, Any]:
    """All blocks of a target."""
    total: Counter[str] = Counter()
    findings: list[dict[str, Any]] = []
    slowest, more, before = 0.0, 0, resource.getrusage(resource.RUSAGE_CHILDREN)
    for number, count in enumerate(_blocks(inputs)):
        found = block(target, model, f"{seed}/{target.name}/{number}", count)
        total.update(found["counts"])
        findings += found["findings"]
        slowest, more = max(slowest, found["slowest"]), max(more, found["more"])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    kinds = Counter(fault.partition(":")[0][:60] for one in findings for fault in one["faults"])
    return {
        "inputs": total.total(), "accepted": total["accepted"], "refused": total["refused"], "findings": len(findings),
        "kinds": dict(kinds), "examples": findings[:20], "slowest_cpu_seconds": round(slowest, 2),
        "most_memory_mib": more // MIB, "cpu_seconds": round(cpu, 1),
    }  # fmt: skip


def _blocks(inputs: int) -> Iterator[int]:
    for start in range(0, inputs, BLOCK):
        yield min(BLOCK, inputs - start)


def small_model(directory: Path) -> Path:
    """A model of the lake that inputs are put beside."""
    import genai_core
    from benchmarks.fuzz_inputs import table

    sizes = {"context": 16, "hidden": 8, "embedding": 4}
    genai_core.fit(table(60, Random(0)), "autoregressive", max_epochs=1, model=sizes).save(directory)
    return directory


def _kept(seed: int) -> dict[str, Any]:
    """What an earlier run with this seed found in the targets that are still there."""
    path = RESULTS / "fuzz.json"
    known = json.loads(path.read_text()) if path.exists() else {"settings": {}}
    names = [target.name for target in TARGETS]
    kept = known["figures"]["targets"] if known["settings"].get("seed") == seed else {}
    return {name: kept[name] for name in names if name in kept}


def main() -> None:
    """Fuzz, and write results/fuzz.json unless only a part was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="*", default=[], help="names of targets")
    parser.add_argument("--share", type=float, default=1.0, help="of the inputs")
    parser.add_argument("--seed", type=int, default=SEED)
    chosen = parser.parse_args()
    for kind in MODALITIES:  # once, and not in every process; and none sees another version of the code
        codec_class(kind)
    for kind in MODELS:
        model_class(kind)
    whole = chosen.share == 1
    found = _kept(chosen.seed) if chosen.only and whole else {}
    with tempfile.TemporaryDirectory() as directory:
        model = small_model(Path(directory) / "model")
        for target in TARGETS:
            if chosen.only and target.name not in chosen.only:
                continue
            found[target.name] = fuzz(target, model, max(1, int(target.inputs * chosen.share)), chosen.seed)
            print(target.name, json.dumps(found[target.name], indent=1, ensure_ascii=True), file=sys.stderr)
    sums = {
        key: sum(one[key] for one in found.values()) for key in ("inputs", "accepted", "refused", "findings")
    }
    sums["cpu_seconds"] = round(sum(one["cpu_seconds"] for one in found.values()), 1)
    if whole and len(found) == len(TARGETS):
        save("fuzz", {"all": sums, "targets": found}, seed=chosen.seed, limit_seconds=LIMIT_SECONDS,
             limit_mib=LIMIT_BYTES // MIB)  # fmt: skip
    else:
        print(json.dumps(sums))


if __name__ == "__main__":
    main()
