"""`genai run` and `genai check`: the jobs of one file, checked all together, then run one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from genai_core.errors import InvalidInput
from jobs.outcome import DONE, INVALID, STATUS, Outcome, complain, explain
from jobs.slots import Slot
from jobs.spec import STDIN, Entry, entries
from pipelines.context import Context
from pipelines.progress import Progress, clock

Emit = Callable[[Any], None]


@dataclass(frozen=True)
class Voice:
    """How much is said on standard error."""

    quiet: bool = False

    def context(self, entry: Entry, file: str, earlier: Sequence[Entry] = ()) -> Context:
        """What the verb gets."""
        progress = Progress.to_stderr(self.quiet)
        return Context(
            spec_text=entry.text,
            spec_path=None if file == STDIN else Path(file),
            progress=progress,
            log=progress.message,  # above the bar, where there is one
            earlier=tuple(one.job for one in earlier),
        )

    def tell(self, text: str) -> None:
        if not self.quiet:
            complain(text)


def check_file(file: str, overrides: Sequence[str], voice: Voice, slot: Slot | None = None) -> Outcome:
    """Everything that can be known before work; every job is checked, whatever the others say."""
    found = entries(file, overrides, slot)
    checked = [_check(entry, file, found[:index], voice) for index, entry in enumerate(found)]
    faults = [f"{one['place']}: {one['error']}" for one in checked if one["status"] != "done"]
    if faults:
        sentence = "\n".join(f"error: {fault}" for fault in faults)
        return Outcome({"jobs": checked}, INVALID, "\n".join(faults), sentence)
    voice.tell(f"{file}: {len(checked)} job{'s' * (len(checked) != 1)} can run")
    return Outcome({"jobs": checked})


def run_file(
    file: str, overrides: Sequence[str], voice: Voice, emit: Emit, slot: Slot | None = None
) -> Outcome:
    """Run every job; the first that does not end well ends the run. Several are checked before the first starts."""
    found = entries(file, overrides, slot)
    if slot is not None:
        voice.tell(f"slot {slot}")
    if len(found) == 1:
        return _run(found[0], file, voice)
    if (checked := check_file(file, overrides, Voice(quiet=True), slot)).code != DONE:
        return checked
    done: list[dict[str, Any]] = []
    for entry in found:
        outcome = _run(entry, file, voice)
        done.append(outcome.line())
        emit(done[-1])
        if outcome.code != DONE:
            left = [_label(other) | {"status": "not started"} for other in found[len(done) :]]
            return replace(outcome, facts={"jobs": done + left})
    return Outcome({"jobs": done})


def _check(entry: Entry, file: str, earlier: Sequence[Entry], voice: Voice) -> dict[str, Any]:
    label = _label(entry) | {"place": entry.place}
    try:
        facts = _verb(entry).check(entry.job, voice.context(entry, file, earlier))
    except InvalidInput as error:
        return label | {"status": "invalid", "error": str(error)}
    voice.tell("\n".join([f"{entry.place}: {_title(entry)}", *(f"  {fact}" for fact in facts)]))
    return label | {"status": "done", "facts": facts}


def _run(entry: Entry, file: str, voice: Voice) -> Outcome:
    """One job; whatever happens becomes its outcome, so that the jobs before it are still told of."""
    context = voice.context(entry, file)
    try:
        with context.progress:
            result = _verb(entry).run(entry.job, context)
    except (Exception, KeyboardInterrupt) as error:
        outcome = explain(error)
        outcome.facts = _label(entry)
        outcome.sentence = f"{_title(entry)}: {outcome.sentence}"
        return outcome
    code = {status: number for number, status in STATUS.items()}.get(result.get("status", "done"), 1)
    voice.tell(_told(entry, result))
    facts = {key: value for key, value in result.items() if key != "status"}
    return Outcome(_label(entry) | {"run_id": None} | facts, code)


def _verb(entry: Entry) -> Any:
    return import_module(f"pipelines.{entry.job.job}")


def _label(entry: Entry) -> dict[str, Any]:
    return {"job": entry.job.job, "name": getattr(entry.job, "name", None)}


def _title(entry: Entry) -> str:
    return " ".join(filter(None, (entry.job.job, getattr(entry.job, "name", None))))


def _told(entry: Entry, result: dict[str, Any]) -> str:
    rows, seconds, flagged = result.get("rows"), result.get("seconds"), result.get("flagged")
    output = result.get("output") or result.get("model")
    parts = [
        "already" if result.get("reused") else "",
        f"{rows:,} rows" if isinstance(rows, int) else "",
        f"({flagged:,} flagged)" if isinstance(flagged, int) else "",
        f"in {clock(seconds)}" if isinstance(seconds, int | float) else "",
        f"-> {output}" if output else "",
    ]
    return f"{_title(entry)}: {result.get('status', 'done')} {' '.join(filter(None, parts))}".rstrip()
