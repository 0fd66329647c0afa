"""YAML text to plain values that remember their lines; refuses what a job file has no use for.

Scalars follow YAML 1.2's core schema, because version 1.1 surprises: there `NO` (the airport, the country) is false,
`12:30` is 750, `010` is 8 and `1e-3` is text. Dates stay text: the column that they are compared with gives the type.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from genai_core.errors import InvalidSpec

MAX_BYTES = 256_000  # a file of that size takes three seconds; the shipped ones have 1 kB
MAX_DEPTH = 32
Path = tuple[str | int, ...]

_NULL = re.compile(r"~|null|Null|NULL|")
_TRUE = re.compile(r"true|True|TRUE")
_FALSE = re.compile(r"false|False|FALSE")
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9_]*)")  # a leading zero stays text: postal codes, flight numbers
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_LONG = 4000  # Python refuses to read longer numbers
_SPECIAL = {"inf": float("inf"), "-inf": float("-inf"), "+inf": float("inf"), "nan": float("nan")}


@dataclass
class Document:
    """One YAML document: its value, its text, and where each path of keys stands."""

    value: Any
    text: str
    line: int
    places: dict[Path, str] = field(default_factory=dict)
    overrides: list[str] = field(default_factory=list)

    def full_text(self) -> str:
        """The text with the overrides as comments above it."""
        return "".join(f"# {override}\n" for override in self.overrides) + self.text

    def place(self, path: Path) -> str:
        """`file.yaml:7`, or the `--set` that wrote it; the nearest parent's place when the path is not there."""
        while path not in self.places and path:
            path = path[:-1]
        return self.places.get(path, "")


def parse(text: str, name: str) -> list[Document]:
    """Every document that holds something; InvalidSpec names the line of what is refused."""
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise InvalidSpec(f"{name}: larger than {MAX_BYTES // 1000} kB; a job file is a few lines of YAML")
    try:
        starts = _refuse_extras(text, name)
        nodes = list(yaml.compose_all(text, Loader=yaml.SafeLoader))
    except yaml.YAMLError as error:
        raise _syntax_error(error, text, name) from None
    return list(_documents(text, name, nodes, starts))


def parse_value(text: str, name: str) -> Any:
    """The value of one `--set`: plain YAML such as `8`, `[a, b]` or `{origin: JFK}`."""
    try:
        found = parse(text, name)
    except InvalidSpec as error:
        raise InvalidSpec(str(error).replace(f"{name}:1: ", f"{name}: ", 1)) from None
    if len(found) > 1:
        raise InvalidSpec(f"{name}: holds several documents; give one value")
    return found[0].value if found else None


def _refuse_extras(text: str, name: str) -> list[int]:
    """Walk the events before anything is built; returns the line (from 0) where each document starts."""
    starts, depth = [], 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line = event.start_mark.line if event.start_mark else 0
        where = f"{name}:{line + 1}"
        if isinstance(event, yaml.DocumentStartEvent):
            starts.append(line if event.explicit else 0)
        if anchor := getattr(event, "anchor", None):
            raise InvalidSpec(
                f"{where}: the anchor or alias {anchor!r} is not read; write the value out where it is needed"
            )
        if tag := getattr(event, "tag", None):
            raise InvalidSpec(f"{where}: the tag {tag!r} is not read; write the value without it")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise InvalidSpec(f"{where}: nested more than {MAX_DEPTH} deep; a job file has three levels")
    return starts


def _documents(text: str, name: str, nodes: list[yaml.Node], starts: list[int]) -> Iterator[Document]:
    lines = text.splitlines(keepends=True)
    for index, node in enumerate(nodes):
        begin = starts[index] if index else 0
        end = starts[index + 1] if index + 1 < len(nodes) else len(lines)
        document = Document(None, "".join(lines[begin:end]), node.start_mark.line + 1)
        document.places[()] = f"{name}:{document.line}"
        document.value = _build(node, (), document, name)
        if document.value is not None:
            yield document


def _build(node: yaml.Node, path: Path, document: Document, name: str) -> Any:
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, path, document, name)
    if isinstance(node, yaml.SequenceNode):
        items = []
        for index, item in enumerate(node.value):
            document.places[(*path, index)] = f"{name}:{item.start_mark.line + 1}"
            items.append(_build(item, (*path, index), document, name))
        return items
    assert isinstance(node, yaml.ScalarNode)
    return _scalar(node)


def _mapping(node: yaml.MappingNode, path: Path, document: Document, name: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise InvalidSpec(
                f"{name}:{line}: a list or a mapping stands where a key is expected; keys are words"
            )
        if key.value in found:
            first = document.places[(*path, key.value)].rpartition(":")[2]
            raise InvalidSpec(
                f"{name}:{line}: {key.value!r} stands here a second time (first on line {first}); keep one"
            )
        document.places[(*path, key.value)] = f"{name}:{line}"
        found[key.value] = _build(value, (*path, key.value), document, name)
    return found


def _scalar(node: yaml.ScalarNode) -> Any:
    text: str = node.value
    if node.style is not None:  # quoted, or a block
        return text
    if _NULL.fullmatch(text):
        return None
    if _TRUE.fullmatch(text) or _FALSE.fullmatch(text):
        return text[0] in "tT"
    if _INTEGER.fullmatch(text) and len(text) < _LONG:
        return int(text.replace("_", ""))
    if _FLOAT.fullmatch(text) and not re.match(r"[-+]?0[0-9]", text):
        return float(text.replace("_", ""))
    return _SPECIAL.get(text.lower().replace(".", "", 1), text) if "." in text[:2] else text


def _syntax_error(error: yaml.YAMLError, text: str, name: str) -> InvalidSpec:
    if isinstance(error, yaml.reader.ReaderError):
        line = text.count("\n", 0, error.position) + 1
        return InvalidSpec(
            f"{name}:{line}: holds the character {chr(error.character)!r}; YAML is printable text"
        )
    mark = getattr(error, "problem_mark", None)
    line_text = "" if mark is None else f":{mark.line + 1}"
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    return InvalidSpec(f"{name}{line_text}: not readable as YAML: {problem}{_advice(str(error))}")


def _advice(problem: str) -> str:
    if "\\t" in problem:
        return "; indent with spaces, not with tabs"
    if "mapping values are not allowed" in problem:
        return "; put quotes around a value that holds ': '"
    if "while scanning a quoted scalar" in problem:
        return "; a quote is not closed"
    return ""
