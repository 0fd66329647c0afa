"""Texts as records: exact types, cut lengths, unreadable rows, prompts, byte pairs, marked odd words."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from genai_core.errors import InvalidData, InvalidInput, MissingCapability, SchemaMismatch, Unavailable
from genai_core.hyperparameters import TextSettings
from genai_core.modalities.text import TextCodec
from genai_core.texts import tokens as text_tokens

WORDS = ["the cat", "sat on", "", "the mat", "größe", "日本", "a\nb", "cats", "mats", "hat", "naïve café"]
TYPES = [
    pa.string(),
    pa.large_string(),
    pa.string_view(),
    pa.binary(),
    pa.large_binary(),
    pa.binary_view(),
    pa.dictionary(pa.int32(), pa.string()),
    pa.dictionary(pa.int64(), pa.large_string()),
]
TOKENS = ("bytes", "bpe")


def texts(kind: pa.DataType = pa.string(), words: list = WORDS) -> pa.Table:  # noqa: B008
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    array = pa.array([w.encode() if isinstance(w, str) else w for w in words], pa.large_binary()).cast(plain)
    if pa.types.is_dictionary(kind):
        encoded = array.dictionary_encode()
        array = pa.DictionaryArray.from_arrays(encoded.indices.cast(kind.index_type), encoded.dictionary)
    return pa.table({"text": array})


def fitted(table: pa.Table, **settings: object) -> TextCodec:
    return TextCodec.fit(table.to_batches(), table.schema, TextSettings(**{"length": 40, **settings}))


def decoded(codec: TextCodec, tokens: np.ndarray) -> pa.Table:
    return codec.decode(tokens.astype(np.int64), np.random.default_rng(0))


@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("kind", TYPES, ids=str)
def test_texts_come_back_in_their_own_type(kind: pa.DataType, tokens: str) -> None:
    table = texts(kind)
    codec = fitted(table, tokens=tokens)
    records = codec.encode(table)
    assert not records.faults
    back = decoded(codec, records.tokens)
    assert back.schema.equals(table.schema, check_metadata=True)
    assert back.to_pydict() == table.to_pydict()
    assert records.tokens.max() == codec.space.end == codec.space.vocabulary - 1
    assert records.tokens.dtype == codec.space.dtype


@pytest.mark.parametrize("tokens", TOKENS)
def test_state_round_trip(tokens: str) -> None:
    table = texts().append_column("kind", pa.array(["a", "b"] * 5 + ["a"]))
    codec = fitted(table, tokens=tokens, label="kind")
    state, arrays = codec.state()
    again = TextCodec.from_state(json.loads(json.dumps(state)), arrays)
    assert again.fingerprint == codec.fingerprint
    assert np.array_equal(again.encode(table).tokens, codec.encode(table).tokens)
    assert decoded(again, codec.encode(table).tokens).equals(table)


def test_fitting_does_not_depend_on_batches() -> None:
    table = texts(words=WORDS * 50)
    for tokens in TOKENS:
        settings = TextSettings(tokens=tokens)
        prints = {
            TextCodec.fit(table.to_batches(max_chunksize=size), table.schema, settings).fingerprint
            for size in (7, 550)
        }
        assert len(prints) == 1


def test_byte_pairs_are_the_same_in_every_process() -> None:
    code = (
        "from genai_core.texts.tokens import PairTokens; import hashlib;"
        "print(hashlib.sha256(PairTokens.fit(['the cat sat', 'on the mat']*9, 280).rules.encode()).hexdigest())"
    )
    prints = {subprocess.check_output([sys.executable, "-c", code]) for _ in range(2)}
    assert len(prints) == 1


def test_a_text_codec_needs_no_torch() -> None:
    code = "import sys, genai_core.modalities.text; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("tokens", TOKENS)
def test_long_texts_are_cut_at_whole_characters_and_counted(tokens: str) -> None:
    table = texts(words=["ab" * 300, "é" * 300, "日" * 300, *WORDS])
    codec = fitted(table, tokens=tokens, length=16, vocabulary=260)
    assert codec.cut == 3
    assert "3 of 14 texts have more than 16 tokens" in codec.notes[0]
    back = decoded(codec, codec.encode(table).tokens)["text"].to_pylist()
    for whole, read in zip(table["text"].to_pylist(), back, strict=True):
        assert whole.startswith(read)
        assert (read == whole) == (len(whole) < 300)
    assert len(back[0]) >= 16


def test_a_huge_text_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    codec = fitted(texts())
    lengths = []
    encode = codec.tokens.encode
    monkeypatch.setattr(
        codec.tokens, "encode", lambda t: (lengths.append(len(t.to_pylist()[0])), encode(t))[1]
    )
    records = codec.encode(pa.table({"text": ["the " * 25_000_000]}))
    assert lengths == [40]
    assert not records.faults


@pytest.mark.parametrize("tokens", TOKENS)
def test_what_is_no_text_is_a_fault_and_an_empty_one_is_none(tokens: str) -> None:
    codec = fitted(texts(), tokens=tokens)
    bad = [None, b"\xff\xfe", "ok", b"", "é".encode()[:1], "日".encode() * 20 + b"\xff"]
    records = codec.encode(texts(pa.binary(), bad))
    assert set(records.faults) == {0, 1, 4} | ({5} if tokens == "bpe" else set())  # bytes: not read so far
    assert records.faults[0] == "text missing"
    assert records.faults[1] == "text is not UTF-8: byte 0xff at 0"
    assert (records.tokens[3] == codec.space.end).all()


def test_strings_that_were_never_checked_are_faults_too() -> None:
    values = pa.array([b"fine", b"\xff"])
    unchecked = pa.Array.from_buffers(pa.string(), 2, values.buffers())  # as a Parquet file may hold them
    assert set(fitted(texts()).encode(pa.table({"text": unchecked})).faults) == {1}


def test_unreadable_rows_are_not_learnt_from() -> None:
    table = texts(pa.binary(), [*WORDS, None, b"\xff\xff"])
    codec = fitted(table)
    assert 0xFF not in codec.tokens.seen
    with pytest.raises(InvalidData, match=r"found 0 text\(s\)"):
        fitted(texts(words=[None] * 20))


def test_unseen_bytes_have_a_token_that_is_never_taken_for_another() -> None:
    codec = fitted(texts())
    other = codec.space.end - 1
    tokens = codec.encode(pa.table({"text": ["Q", "cat"]})).tokens
    assert tokens[0, 0] == other
    assert other not in tokens[1]
    assert decoded(codec, tokens)["text"].to_pylist() == ["\N{REPLACEMENT CHARACTER}", "cat"]


@pytest.mark.parametrize("tokens", TOKENS)
def test_any_tokens_become_valid_text(tokens: str) -> None:
    codec = fitted(texts(), tokens=tokens)
    drawn = np.random.default_rng(0).integers(0, codec.space.vocabulary, (200, 40))
    for text in decoded(codec, drawn)["text"].to_pylist():
        assert text == text.encode().decode()


@pytest.mark.parametrize("tokens", TOKENS)
def test_prompts(tokens: str) -> None:
    codec = fitted(texts(), tokens=tokens)
    (condition,) = codec.given({}, "the größe").conditions
    assert codec.tokens.written(condition.prefix.tolist()) == "the größe".encode()
    with pytest.raises(InvalidInput, match="at most 40"):
        codec.given({}, "the " * 200)
    if tokens == "bytes":
        with pytest.raises(InvalidInput, match="holds 'Z', which no training text does"):
            codec.given({}, "the Z")


def test_labels() -> None:
    table = texts().append_column("kind", pa.array([3, 5] * 5 + [3]))
    codec = fitted(table, label="kind")
    records = codec.encode(table)
    assert records.tokens[:, 0].tolist() == [0, 1] * 5 + [0]
    assert codec.space.fields == ("kind", "text")
    assert decoded(codec, records.tokens).equals(table)
    assert codec.encode(table.set_column(1, "kind", pa.array([4] * 11))).faults.keys() == set(range(11))
    with pytest.raises(InvalidInput, match="is no class"):
        codec.given({"kind": 4})


def test_columns_are_chosen_or_asked_for() -> None:
    two = pa.schema([("file", pa.string()), ("note", pa.string())])
    with pytest.raises(InvalidData, match=r"columns file, note can hold texts; name the one"):
        TextCodec.learnt_columns(two, TextSettings())
    assert TextCodec.learnt_columns(two, TextSettings(column="note")).names == ["note"]
    usual = pa.schema([("file", pa.string()), ("text", pa.string())])
    assert TextCodec.learnt_columns(usual, TextSettings()).names == ["text"]
    assert TextCodec.learnt_columns(usual, TextSettings(label="file")).names == ["text", "file"]
    with pytest.raises(InvalidData, match="which holds no texts"):
        TextCodec.learnt_columns(pa.schema([("n", pa.int64())]), TextSettings(column="n"))
    small = pa.schema([("text", pa.dictionary(pa.int8(), pa.string()))])
    with pytest.raises(InvalidData, match="numbers its values with int8"):
        TextCodec.learnt_columns(small, TextSettings())
    with pytest.raises(SchemaMismatch, match=r"column 'text' \(string\) is missing"):
        fitted(texts()).encode(pa.table({"txet": ["a"]}))


def test_a_missing_library_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_tokens, "find_spec", lambda name: None)
    with pytest.raises(Unavailable, match=r"pip install 'genai-core\[text\]'"):
        TextCodec.learnt_columns(texts().schema, TextSettings(tokens="bpe"))
    assert fitted(texts()).encode(texts()).tokens.shape == (11, 40)


def test_a_picture_is_not_prompted() -> None:
    from genai_core.payload import PayloadCodec

    with pytest.raises(MissingCapability, match="a prompt starts a text"):
        type("Other", (PayloadCodec,), {"what": "sounds", "classes": None})().given({}, "x")


@pytest.mark.parametrize("tokens", TOKENS)
def test_odd_words_are_marked_with_their_place(tokens: str) -> None:
    codec = fitted(texts(words=[*WORDS, "a größe zap on"]), tokens=tokens)
    table = pa.table({"text": ["the größe zap on"]})
    records = codec.encode(table)
    entries = np.zeros(records.tokens.shape, np.float32)
    written = [codec.tokens.written([t]) for t in records.tokens[0] if t != codec.space.end]
    at = next(i for i in range(len(written)) if len(b"".join(written[: i + 1])) > len("the größe ".encode()))
    entries[0, at] = 4.0
    entries[0, len(written)] = 1.5  # the end
    (why,) = codec.explain(table, entries)["why"]
    assert why == [
        {"column": "text[10:13]", "nats": 4.0, "value": "the größe >>zap<< on"},
        {"column": "text[16:16]", "nats": 1.5, "value": "the größe zap on>><<"},
    ]
    assert codec.explain(table, None) == {"why": [None]}


def test_nats_of_words_add_up() -> None:
    codec = fitted(texts().append_column("kind", pa.array(["a"] * 11)), label="kind")
    table = pa.table({"text": ["cats sat on", "日" * 30, ""], "kind": ["a"] * 3})
    entries = np.random.default_rng(0).random((3, 41)).astype(np.float32)
    entries[:, 1:][(codec.encode(table).tokens[:, 1:] == codec.space.end).cumsum(1) > 1] = 0
    for row, why in enumerate(codec.explain(table, entries)["why"]):
        assert sum(reason["nats"] for reason in why) == pytest.approx(
            entries[row].sum(), abs=1e-4 + (row == 1)
        )
        assert [reason["nats"] for reason in why] == sorted((r["nats"] for r in why), reverse=True)
        assert "kind" in {reason["column"] for reason in why}
