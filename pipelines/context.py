"""What a verb gets beside its job: the file it came from, progress, and what earlier jobs promise to make."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.progress import Progress, printable
from pipelines.settings import NEWEST


def say(text: str) -> None:
    """One line for people, on standard error."""
    sys.stderr.write(printable(text, keep="\n") + "\n")
    sys.stderr.flush()


def registered_name(uri: str) -> str | None:
    """The `flights` of `models:/flights`, `models:/flights@latest` and `models:/flights/3`; None for other places."""
    if not uri.startswith("models:/"):
        return None
    return uri.removeprefix("models:/").strip("/").split("@")[0].split("/")[0] or None


@dataclass(frozen=True)
class Context:
    """Handed to every `run(job, context)` and `check(job, context)`.

    `spec_text` is the job's own YAML document, with the `--set` overrides as comments above it.
    `earlier` holds the jobs that stand above this one in the same file: `genai check` runs none of them, so what
    they will make is not there yet; ask `promised_model` and `promised_output` before calling it missing.
    """

    spec_text: str = ""
    spec_path: Path | None = None
    progress: Progress = field(default_factory=Progress.silent)
    log: Callable[[str], None] = say
    earlier: Sequence[Any] = ()

    def promised_model(self, uri: str) -> Any | None:
        """The last earlier train job that registers the model of this URI, or has it as its sink.

        Its family is `.model.kind`. A numbered version (`models:/flights/3`) is a thing of the past: no later run
        can make it.
        """
        name = registered_name(uri)
        if name is None:
            made = self.promised_output(uri)
            return made if getattr(made, "job", None) == "train" else None
        if "/" in uri.removeprefix("models:/").strip("/"):
            return None
        alias = uri.partition("@")[2]
        return next((job for job in reversed(self.earlier) if _registers(job, name, alias)), None)

    def promised_output(self, path: str) -> Any | None:
        """The last earlier job whose sink is this path, or holds it."""
        return next((job for job in reversed(self.earlier) if _writes(job, path)), None)


def _registers(job: Any, name: str, alias: str) -> bool:
    track = getattr(job, "track", None)
    if track is None or getattr(job, "job", None) != "train" or not getattr(track, "enabled", True):
        return False
    return track.register_as == name and alias in ("", "latest", NEWEST, getattr(track, "alias", None))


def _writes(job: Any, path: str) -> bool:
    sink = getattr(getattr(job, "sink", None), "path", None)
    if not sink:
        return False
    sink, path = sink.rstrip("/"), path.rstrip("/")
    return path == sink or path.startswith(sink + "/")
