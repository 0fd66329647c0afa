"""`genai explain`: why one row of an output is odd, in sentences"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from genai_core.errors import InvalidInput

SHOWN = 8  # columns that say why, and that differ


def wanted(rows: Sequence[str]) -> dict[str, str]:
    """`--row flight=2379 --row dest=JAC` as a mapping. Raises InvalidInput."""
    pairs = {}
    for text in rows:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InvalidInput(
                f"--row {text!r} names no value; write --row COLUMN=VALUE, such as --row source_row=7"
            )
        pairs[name] = value
    return pairs


def render(answers: Sequence[Mapping[str, Any]]) -> str:
    """The answers of `pipelines.explain.explain_rows` as text."""
    return "\n\n".join("\n".join(_lines(answer)) for answer in answers)


def _lines(answer: Mapping[str, Any]) -> Iterator[str]:
    from pipelines.scoring.explanations import reason_text

    score, p_value = answer["score"], answer["score"]["p_value"]
    yield ", ".join(f"{name} {value}" for name, value in answer["row"].items())
    said = "cannot be read" if score["value"] is None else f"{score['value']:.2f}"
    yield f"  {score['name']} {said}" + ("" if p_value is None else f", p = {p_value:.2g}")
    for reason in answer.get("why", ())[:SHOWN]:
        yield f"    {reason_text(reason)}"
    near = answer.get("nearest")
    if near:
        yield f"  the normal row most like it: {near['source_file']} row {near['source_row']}, which differs in"
        for name, values in list(near["different"].items())[:SHOWN]:
            yield f"    {name}: {_value(values['here'])} here, {_value(values['there'])} there"


def _value(text: str | None) -> str:
    return "missing" if text is None else text
