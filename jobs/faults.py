"""What validation found wrong with a job, in the words of the file: where, what, the nearest word, what is accepted."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from genai_core.errors import nearest
from jobs.documents import Document, Path
from jobs.shape import Model, dotted, keys, models_in, narrow, tags

EXPECTED = {
    "int_type": "a whole number", "int_parsing": "a whole number", "int_from_float": "a whole number",
    "int_parsing_size": "a whole number of a sane size",
    "float_type": "a number", "float_parsing": "a number", "finite_number": "a finite number",
    "bool_type": "true or false", "bool_parsing": "true or false",
    "string_type": "text",
    "list_type": "a list such as [a, b]", "tuple_type": "a list such as [a, b]", "set_type": "a list such as [a, b]",
    "dict_type": "a mapping such as {key: value}", "mapping_type": "a mapping such as {key: value}",
    "is_instance_of": "another type of value", "none_required": "nothing",
    "byte_size": "a number of bytes, or such as 256MB", "byte_size_unit": "a number of bytes, or such as 256MB",
}  # fmt: skip
BOUNDS = {
    "greater_than": ("gt", "more than"), "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"), "less_than_equal": ("le", "at most"),
}  # fmt: skip
SHOWN = 60


@dataclass
class Fault:
    """One thing that is wrong at one path; `expected` collects what the members of a union would have taken."""

    path: Path
    text: str = ""
    expected: list[str] = field(default_factory=list)

    def sentence(self, value: Any) -> str:
        if not self.expected:
            return self.text
        wanted = " or ".join(dict.fromkeys(self.expected))
        if wanted == "text" and isinstance(value, int | float):
            wanted = "text; put quotes around it"
        return f"{name_of(self.path)} is {show(value)}; expected {wanted}"


def name_of(path: Path) -> str:
    """`fit.seed`, `scores[1]`, or `the job` for the document itself."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text or "the job"


def show(value: Any) -> str:
    """The value as it may stand in a message."""
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    if value is None:
        return "empty"
    text = repr(value) if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."


def found_faults(error: ValidationError, model: Model, document: Document) -> list[str]:
    """`file:line: sentence` for every fault, in the order of the lines."""
    faults: dict[Path, Fault] = {}
    details = error.errors(include_url=False)
    misspelt = [detail["loc"] for detail in details if detail["type"] == "extra_forbidden"]
    for detail in details:
        if detail["type"] != "missing" or not any(_meant(loc, detail["loc"]) for loc in misspelt):
            _collect(faults, detail, model, document.value)
    lines = [(document.place(f.path), f.sentence(value_at(document.value, f.path))) for f in faults.values()]
    return [f"{place}: {sentence}" for place, sentence in sorted(set(lines), key=_line_number)]


def _meant(written: tuple[int | str, ...], missing: tuple[int | str, ...]) -> bool:
    """Whether a missing key is there, misspelt: one fault, told once."""
    return written[:-1] == missing[:-1] and bool(nearest(str(written[-1]), [str(missing[-1])]))


def _line_number(found: tuple[str, str]) -> tuple[int, str]:
    number = found[0].rpartition(":")[2]
    return (int(number) if number.isdigit() else -1, found[1])


def value_at(value: Any, path: Path) -> Any:
    """What stands at a path; None where nothing does."""
    for step in path:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def _collect(faults: dict[Path, Fault], detail: ErrorDetails, model: Model, value: Any) -> None:
    path, models = _resolve(detail, model, value)
    fault = faults.setdefault(path, Fault(path))
    kind = detail["type"]
    if kind in EXPECTED:
        fault.expected.append(EXPECTED[kind])
    elif not fault.text:
        fault.text = _describe(detail, path, models, model)


def _resolve(detail: ErrorDetails, model: Model, value: Any) -> tuple[Path, tuple[Model, ...]]:
    """Pydantic's location to the file's: names of union members fall out. Also the classes that own the place."""
    path: Path = ()
    here: tuple[Model, ...] = (model,)
    owner = here
    loc = detail["loc"]
    for index, step in enumerate(loc):
        last = index == len(loc) - 1
        if isinstance(step, int):
            path = (*path, step)
        elif len(here) > 1 and step in tags(here):
            here = narrow(here, {"kind": step})
        elif len(here) == 1 and step in keys(here[0]):
            owner, path = here, (*path, step)
            here = models_in(keys(here[0])[step].annotation)
        elif here or _has(value, path, step):
            owner, path, here = here, (*path, step), ()
        elif last and detail["type"] == "missing":
            path = (*path, step)
    return path, owner if detail["type"] in ("extra_forbidden", "missing") else here


def _has(value: Any, path: Path, step: str) -> bool:
    inside = value_at(value, path)
    return isinstance(inside, dict) and step in inside


def _describe(detail: ErrorDetails, path: Path, models: tuple[Model, ...], job: Model) -> str:
    kind, context, name = detail["type"], detail.get("ctx", {}), name_of(path)
    if kind == "extra_forbidden":
        return _unknown_key(path, models, job)
    if kind == "missing":
        return f"{name_of(path[:-1])} needs the key {str(path[-1])!r}"
    if kind == "union_tag_invalid":
        return wrong_word(f"{name}.kind", context["tag"], tags(models))
    if kind == "union_tag_not_found":
        return f"{name} needs the key 'kind'; accepted are {', '.join(tags(models))}"
    if kind in ("literal_error", "enum"):
        accepted = [word.strip(" '") for word in str(context["expected"]).replace(" or ", ",").split(",")]
        return wrong_word(name, detail["input"], accepted)
    if kind in ("model_type", "model_attributes_type", "dataclass_type"):
        return f"{name} is {show(detail['input'])}; expected a mapping with the keys {_key_list(models)}"
    if kind in BOUNDS:
        limit, words = BOUNDS[kind]
        return f"{name} is {show(detail['input'])}; it must be {words} {context[limit]}"
    if kind == "value_error":
        return f"{name}: {context.get('error', detail['msg'])}"
    return f"{name}: {detail['msg'][:1].lower()}{detail['msg'][1:]}, found {show(detail['input'])}"


def wrong_word(name: str, word: Any, accepted: Iterable[str]) -> str:
    """`source.kind is 'parqet'; did you mean 'parquet'? accepted are csv, parquet`."""
    words = sorted(accepted)
    hint = nearest(str(word), words)
    return f"{name} is {show(word)}{hint or ';'} accepted are {', '.join(words)}"


def _unknown_key(path: Path, models: tuple[Model, ...], job: Model) -> str:
    key, where = str(path[-1]), name_of(path[:-1])
    accepted = [word for model in models for word in keys(model)]
    hint = nearest(key, accepted) or _elsewhere(key, job)
    return f"{key!r} is not a key of {where}{hint or ';'} accepted are {', '.join(accepted)}"


def _elsewhere(key: str, job: Model) -> str:
    """A key that is right, in the wrong section."""
    places = [path for path in dotted((job,)) if path.rpartition(".")[2] == key]
    return f"; did you mean {' or '.join(map(repr, dict.fromkeys(places)))}?" if places else ""


def _key_list(models: tuple[Model, ...]) -> str:
    return ", ".join(dict.fromkeys(key for model in models for key in keys(model)))
