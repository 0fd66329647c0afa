"""`--set fit.seed=8`: one value in every document of a job file that has a place for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from genai_core.errors import InvalidSpec, nearest
from jobs.documents import Document, parse_value
from jobs.shape import Model, child, dotted, holds, keys, models_in, narrow, section
from pipelines.progress import printable

Override = tuple[tuple[str, ...], Any, str]


def read_override(text: str) -> Override:
    """`a.b=c` to (("a", "b"), c, the text as it is quoted in messages)."""
    quoted = f"--set {printable(text)}"
    path, equals, value = text.partition("=")
    steps = tuple(path.strip().split("."))
    if not equals or not all(steps):
        raise InvalidSpec(f"{quoted}: write KEY=VALUE, such as --set fit.seed=8")
    if steps[0] == "job":
        raise InvalidSpec(f"{quoted}: the kind of job cannot be overridden; write another job file")
    return steps, parse_value(value, quoted), quoted


def apply(documents: Sequence[Document], kinds: Mapping[str, Model], texts: Sequence[str]) -> list[str]:
    """Write each override into the documents that have its key; returns the faults."""
    faults, read = [], []
    for text in texts:
        try:
            read.append(read_override(text))
        except InvalidSpec as error:
            faults.append(str(error))
    for override in sorted(read, key=lambda one: one[0][-1] != "kind"):  # a kind decides which keys there are
        fitting = _of_one_form([d for d in documents if _fits(d, kinds, override[0])], kinds, override)
        for document in fitting:
            _write(document, kinds[document.value["job"]], override)
        if not fitting and (known := _known(documents, kinds)):
            faults.append(_no_place(override, known))
    return faults


def job_class(document: Document, kinds: Mapping[str, Model]) -> Model | None:
    """The class that the document's `job:` names, None when it names none."""
    word = child(document.value, "job")
    return kinds.get(word) if isinstance(word, str) else None


def _fits(document: Document, kinds: Mapping[str, Model], path: tuple[str, ...]) -> bool:
    model = job_class(document, kinds)
    return model is not None and holds((model,), path, document.value)


def _of_one_form(found: list[Document], kinds: Mapping[str, Model], override: Override) -> list[Document]:
    """`model` is a section of one job and text in another: a plain value goes to those that take plain values."""
    path, value, _ = override
    sections = [bool(section((kinds[d.value["job"]],), path, d.value)) for d in found]
    matching = [
        d for d, is_section in zip(found, sections, strict=True) if is_section == isinstance(value, dict)
    ]
    return matching or found


def _known(documents: Sequence[Document], kinds: Mapping[str, Model]) -> list[str]:
    """Every path that some document of the file could take."""
    models = [(job_class(document, kinds), document.value) for document in documents]
    return [path for model, value in models if model for path in dotted((model,), value)]


def _no_place(override: Override, known: Sequence[str]) -> str:
    path, _, quoted = override
    hint = nearest(".".join(path), known) or nearest(path[-1], [word for word in known if "." not in word])
    sections = ", ".join(dict.fromkeys(word for word in known if "." not in word))
    return f"{quoted}: no job of this file has the key {'.'.join(path)!r}{hint or ';'} it can start with {sections}"


def _write(document: Document, model: Model, override: Override) -> None:
    path, value, quoted = override
    models: tuple[Model, ...] = (model,)
    here = document.value
    for depth, step in enumerate(path[:-1]):
        owner = next((m for m in narrow(models, here) if step in keys(m)), None)
        if owner is None:  # inside a free mapping such as `where`: the rest of the path is one key
            path = (*path[:depth], ".".join(path[depth:]))
            break
        if not isinstance(here.get(step), dict):
            here[step] = _default_kind(owner, step)
        here, models = here[step], models_in(keys(owner)[step].annotation)
    here[path[-1]] = value
    document.places = {p: place for p, place in document.places.items() if p[: len(path)] != path}
    document.places[path] = quoted
    document.overrides.append(quoted)


def _default_kind(owner: Model, key: str) -> dict[str, Any]:
    """A section that the file leaves out starts as its default's kind, so that one key of it can be set."""
    default = keys(owner)[key].get_default(call_default_factory=True)
    kind = getattr(default, "kind", None) if isinstance(default, BaseModel) else None
    return {} if kind is None else {"kind": kind}


def settable(models: Iterable[Model]) -> list[str]:
    """Every key that some job has, for completion."""
    return sorted({path for model in models for path in dotted((model,)) if path != "job"})
