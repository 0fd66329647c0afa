"""Identifiers: found in the data and not learnt; what is made instead has the form, and is unique."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from genai_core.errors import InvalidData, InvalidInput
from genai_core.hyperparameters import TabularSettings
from genai_core.modalities.tabular import TabularCodec
from genai_core.tables.declarations import MadeByPattern
from genai_core.tables.identifiers import infer_pattern, make, parse_pattern, values_of_pattern

ROWS = 500


@pytest.fixture(scope="module")
def people() -> pa.Table:
    random = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = np.array(["late", "again", "the", "train", "was", "good", "why"])

    def text(low: int, high: int) -> str:
        return "".join(random.choice(letters, random.integers(low, high)))

    return pa.table(
        {
            "id": random.permutation(ROWS) + 7000,
            "plate": [f"{text(3, 4).upper()}-{random.integers(1000, 9999)}" for _ in range(ROWS)],
            "email": [f"{text(4, 9)}@example.com" for _ in range(ROWS)],
            "note": [" ".join(random.choice(words, 9)) + f" {random.random()}" for _ in range(ROWS)],
            "town": random.choice(["Ulm", "Rom", "Bern"], ROWS),
            "age": random.integers(20, 80, ROWS),
            "amount": random.integers(0, 10**9, ROWS),
        }
    )


def codec(table: pa.Table, **settings: Any) -> TabularCodec:
    return TabularCodec.fit(table.to_batches(), table.schema, TabularSettings.model_validate(settings))


def drawn(fitted: TabularCodec, rows: int, seed: int = 0, first: int = 0) -> pa.Table:
    tokens = np.zeros((rows, fitted.space.entries), np.int64)
    return fitted.complete(fitted.decode(tokens, np.random.default_rng(0)), seed, first)


def test_columns_that_name_a_row_are_not_learnt_and_said_so(people: pa.Table) -> None:
    fitted = codec(people)
    assert fitted.schema.names == ["town", "age", "amount"]  # unique numbers that are no numbering are learnt
    assert fitted.written.equals(people.schema)
    assert [note.split(":")[0] for note in fitted.notes] == [
        "'id' numbers the rows",
        "100% of the values of 'plate' are different; codes like [A-Z]{3}-[0-9]{4}",
        r"100% of the values of 'email' are different; codes like [a-z]{4,8}@example\.com",
        "100% of the values of 'note' are different; free text without a pattern",
    ]


def test_no_value_of_a_person_is_in_the_model(people: pa.Table) -> None:
    settings, arrays = codec(people).state()
    kept = repr(settings) + repr(arrays)
    for name in ("plate", "email", "note"):
        assert not any(value in kept for value in people[name].to_pylist())
    assert people["email"][0].as_py() in repr(codec(people, identifiers="learn").state())


def test_what_is_made_has_the_form_and_does_not_repeat_over_shards(people: pa.Table) -> None:
    fitted = codec(people)
    restored = TabularCodec.from_state(*fitted.state())
    parts = [drawn(fitted, 400, seed, first) for seed, first in ((5, 0), (6, 400), (7, 800))]
    assert parts[1].equals(drawn(restored, 400, 6, 400))
    whole = pa.concat_tables(parts)
    assert whole.schema.equals(people.schema)
    assert whole["id"].to_pylist() == list(range(7000, 8200))
    assert whole["note"].null_count == 1200
    for name, pattern in (("plate", r"[A-Z]{3}-[0-9]{4}"), ("email", r"[a-z]{8}@example\.com")):
        assert (
            len(whole[name].unique()) == 1200 or not fitted.made[name].unique
        )  # of few codes some come twice
        assert all(re.fullmatch(pattern, value) for value in whole[name].to_pylist())
    made = list(fitted.made)
    assert parts[0].select(made).slice(0, 10).equals(drawn(fitted, 10, 5).select(made))


def test_refused_with_advice_or_learnt_when_asked(people: pa.Table) -> None:
    with pytest.raises(InvalidData, match=r"'id' numbers the rows.*modality.exclude.*identifiers: learn"):
        codec(people, identifiers="refuse")
    assert codec(people, identifiers="learn").schema.equals(people.schema)
    field = people.schema.field("note").with_nullable(False)
    strict = people.select(["note", "age"]).cast(pa.schema([field, people.schema.field("age")]))
    with pytest.raises(InvalidData, match="free text without a pattern: it is not learnt"):
        codec(strict)


def test_a_table_too_short_to_tell_is_learnt(people: pa.Table) -> None:
    assert codec(people.slice(0, 60)).schema.equals(people.schema)


def test_columns_are_made_as_the_job_says(people: pa.Table) -> None:
    pytest.importorskip("faker")
    made = {
        "id": {"kind": "sequence", "start": 10},
        "email": {"kind": "faker", "provider": "email"},
        "plate": {"kind": "pattern", "pattern": r"[A-Z]{2}\d{4}", "unique": True},
        "note": {"kind": "empty"},
    }
    fitted = codec(people, made=made)
    assert not fitted.notes
    table = drawn(fitted, 20, seed=1)
    assert table["id"].to_pylist() == list(range(10, 30))
    assert all("@" in value for value in table["email"].to_pylist())
    assert all(re.fullmatch(r"[A-Z]{2}\d{4}", value) for value in table["plate"].to_pylist())
    assert not set(table["email"].to_pylist()) & set(people["email"].to_pylist())
    assert table.equals(drawn(fitted, 20, seed=1))


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ({"plat": {"kind": "empty"}}, "did you mean 'plate'"),
        ({"age": {"kind": "pattern", "pattern": "[A-Z]"}}, "does not fit the column's type int64"),
        ({"plate": {"kind": "pattern", "pattern": "(a|b)"}}, "cannot be read at"),
        ({"plate": {"kind": "pattern", "pattern": "[Z-A]"}}, "is no range"),
        ({"plate": {"kind": "pattern", "pattern": "a{5,2}"}}, "the smaller number first"),
        ({"email": {"kind": "faker", "provider": "no_such_thing"}}, "no provider 'no_such_thing'"),
        ({"email": {"kind": "faker", "provider": "email", "locale": "xx_XX"}}, "in the locale 'xx_XX'"),
    ],
)
def test_what_cannot_be_made_is_refused_before_anything_is_read(
    people: pa.Table, made: dict[str, Any], message: str
) -> None:
    if "faker" in str(made):
        pytest.importorskip("faker")
    with pytest.raises((InvalidData, InvalidInput), match=message):
        TabularCodec.learnt_columns(people.schema, TabularSettings.model_validate({"made": made}))


def test_a_pattern_that_is_used_up_says_so() -> None:
    field, how = pa.field("code", pa.string()), MadeByPattern(kind="pattern", pattern="[A-C][0-9]")
    random = np.random.default_rng(0)
    assert len(set(make(how, field, 30, 0, random, 0).to_pylist())) == 30
    with pytest.raises(InvalidInput, match="has 30 values, and row 31 needs one"):
        make(how, field, 1, 30, random, 0)
    loose = how.model_copy(update={"unique": False, "pattern": "[A-C]{1,3}"})
    assert {len(v) for v in make(loose, field, 200, 10**6, random, 0).to_pylist()} == {1, 2, 3}
    assert values_of_pattern(parse_pattern("[A-C]{1,3}"), unique=False) == 3 + 9 + 27


def test_a_pattern_is_found_only_where_there_is_one() -> None:
    assert infer_pattern([f"N{i}{chr(65 + i % 26)}" for i in range(100, 999)]) == "N[0-9]{3}[A-Z]"
    assert infer_pattern(["a.b", "a.c"]) == r"a\.[a-z]"
    assert infer_pattern(["a b", "c d"]) is None
    assert infer_pattern(["ab", "1", "-", "A2", "b3"]) is None
