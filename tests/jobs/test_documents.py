"""YAML to values: what is read, how, and what is refused at which line."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genai_core.errors import InvalidSpec
from jobs.documents import MAX_BYTES, MAX_DEPTH, parse, parse_value

SCALARS = {
    "NO": "NO",
    "yes": "yes",
    "on": "on",
    "12:30": "12:30",
    "010": "010",
    "00501": "00501",
    "0x1f": "0x1f",
    "2013-10-01": "2013-10-01",
    "1.2.3": "1.2.3",
    "nan": "nan",
    "inf": "inf",
    "'7'": "7",
    '"true"': "true",
    "": None,
    "~": None,
    "null": None,
    "true": True,
    "False": False,
    "0": 0,
    "-7": -7,
    "+7": 7,
    "10_000_000": 10_000_000,
    "1e-3": 0.001,
    "1.5": 1.5,
    ".5": 0.5,
    "0.5": 0.5,
    "-.inf": -math.inf,
    "[a, 1, NO]": ["a", 1, "NO"],
    "{NO: 1}": {"NO": 1},
    "month <= 9 and origin in ('JFK', 'LGA')": "month <= 9 and origin in ('JFK', 'LGA')",
}


@pytest.mark.parametrize(("text", "value"), SCALARS.items())
def test_a_value_is_what_it_looks_like(text: str, value: object) -> None:
    found = parse_value(text, "--set x")
    assert found == value and type(found) is type(value)


def test_nan_is_read() -> None:
    assert math.isnan(parse_value(".nan", "--set x"))


REFUSED = {
    "a: {b: 1, b: 2}": ("f.yaml:1", "'b' stands here a second time"),
    "a: 1\nb: 2\na: 3": ("f.yaml:3", "first on line 1"),
    "a: &x 1": ("f.yaml:1", "anchor or alias 'x'"),
    "a: 1\nb: *x": ("f.yaml:2", "anchor or alias 'x'"),
    "a: !!python/object/apply:os.system [ls]": ("f.yaml:1", "the tag"),
    "a: !!str 3": ("f.yaml:1", "the tag"),
    "a: !own x": ("f.yaml:1", "the tag"),
    "a:\n\t- b": ("f.yaml:2", "indent with spaces"),
    "a: b: c": ("f.yaml:1", "put quotes around a value"),
    "a: 'x": ("f.yaml:1", "a quote is not closed"),
    "? [1]\n: 2": ("f.yaml:1", "keys are words"),
    "a: [1,\nb: 2": ("f.yaml:2", "not readable as YAML"),
    "a: 1\nb: \x1b[31m": ("f.yaml:2", "'\\x1b'"),
    "[" * 5000: ("f.yaml:1", f"nested more than {MAX_DEPTH} deep"),
    "a: " + "x" * MAX_BYTES: ("f.yaml", "larger than"),
}


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: repr(text[:20]))
def test_a_refusal_names_line_and_reason(text: str) -> None:
    place, reason = REFUSED[text]
    with pytest.raises(InvalidSpec) as caught:
        parse(text, "f.yaml")
    assert str(caught.value).startswith(place + ":")
    assert reason in str(caught.value)


def test_many_aliases_are_refused_before_anything_is_built() -> None:
    bomb = "a: &a [x, x]\n" + "\n".join(
        f"{b}: &{b} [*{a}, *{a}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    with pytest.raises(InvalidSpec, match=r"^f\.yaml:1: the anchor"):
        parse(bomb, "f.yaml")


def test_documents_keep_their_own_text_and_lines() -> None:
    text = "# first\na: 1\n---\n# second\nb:\n  - x\n  - {y: 2}\n---\n# nothing here\n---\nc: 3\n"
    one, two, three = parse(text, "f.yaml")
    assert (one.text, two.text, three.text) == (
        "# first\na: 1\n",
        "---\n# second\nb:\n  - x\n  - {y: 2}\n",
        "---\nc: 3\n",
    )
    assert one.place(("a",)) == "f.yaml:2"
    assert two.place(("b", 1, "y")) == "f.yaml:7"
    assert two.place(("b", 1, "z")) == "f.yaml:7", "the nearest parent stands in for what is not there"
    assert three.place(()) == "f.yaml:11"


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "---\n---\n", "\ufeff"])
def test_nothing_is_no_document(text: str) -> None:
    assert parse(text, "f.yaml") == []


def test_line_ends_of_other_systems() -> None:
    (found,) = parse("a: 1\r\nb: 2\r\n", "f.yaml")
    assert found.value == {"a": 1, "b": 2} and found.place(("b",)) == "f.yaml:2"


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused_in_our_words(text: str) -> None:
    try:
        parse(text, "f.yaml")
    except InvalidSpec as error:
        assert str(error).startswith("f.yaml:")


@given(st.text(alphabet="abc:{}[]-,#&*!|>'\"%@`~ \n\t0.e", max_size=40))
def test_any_yaml_like_text_is_read_or_refused_in_our_words(text: str) -> None:
    try:
        parse(text, "f.yaml")
    except InvalidSpec as error:
        assert str(error).startswith("f.yaml:")
