"""Sounds: what is read and how, what is a fault, what comes back, what explains a score."""

from __future__ import annotations

import io
import json
import sys
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import soundfile

from genai_core.errors import InvalidData, MissingCapability, Unavailable
from genai_core.hyperparameters import AudioSettings
from genai_core.modalities.audio import HEAT_MAP, AudioCodec
from genai_core.sounds.files import wav

RATE, SECONDS = 8000, 0.25
VIEWS = ("waveform", "log_mel")


def tone(hertz: float, rate: int = RATE, seconds: float = SECONDS, loud: float = 0.5) -> np.ndarray:
    return loud * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)


def encoded(samples: np.ndarray, rate: int = RATE, **how: Any) -> bytes:
    kept = io.BytesIO()
    soundfile.write(kept, samples, rate, **({"format": "WAV", "subtype": "PCM_16"} | how))
    return kept.getvalue()


def table(clips: list[Any], labels: list[str] | None = None, kind: pa.DataType | None = None) -> pa.Table:
    columns = {"sound": pa.array(clips, kind or pa.binary())}
    return pa.table(columns | ({} if labels is None else {"word": pa.array(labels)}))


def fitted(data: pa.Table, view: str = "waveform", **settings: Any) -> AudioCodec:
    how = AudioSettings(view=view, **({"seconds": SECONDS, "mels": 24} | settings))
    return AudioCodec.fit(data.to_batches(), data.schema, how)


WORDS = table([encoded(tone(300 + 100 * (i % 3))) for i in range(12)], ["low", "mid", "high"] * 4)


def random() -> np.random.Generator:
    return np.random.default_rng(0)


def heard(data: bytes) -> tuple[np.ndarray, int]:
    return soundfile.read(io.BytesIO(data))


@pytest.mark.parametrize("view", VIEWS)
def test_a_sound_comes_back_nearly_as_it_was(view: str) -> None:
    codec = fitted(WORDS, view, label="word")
    records = codec.encode(WORDS)
    back = codec.decode(records.tokens.astype(np.int64), random())
    assert back.schema.equals(codec.schema)
    assert back["word"].to_pylist() == WORDS["word"].to_pylist()
    samples, rate = heard(back["sound"][1].as_py())
    assert rate == RATE
    spectrum = np.abs(np.fft.rfft(samples))
    assert spectrum.argmax() * rate / len(samples) == pytest.approx(400, abs=25)
    if view == "waveform":
        assert len(samples) == RATE * SECONDS
        assert np.abs(samples - tone(400)).max() < 0.02
    assert codec.decode(records.tokens.astype(np.int64), random()).equals(back), "the same bytes every time"


def test_silence_is_exact_and_every_level_comes_back() -> None:
    codec = fitted(table([encoded(tone(300))] * 10))
    assert (codec.encode(table([encoded(np.zeros(500))])).tokens == 128).all()
    levels = codec.view.clips(np.arange(256)[None])[0]
    assert levels[128] == 0
    assert np.array_equal(codec.view.levels(levels[None])[0][1:], np.arange(1, 256))
    assert np.diff(levels)[128] < 0.02 * np.diff(levels)[-1], "finest near silence"


@pytest.mark.parametrize(
    ("how", "close"),
    [
        ({"subtype": "PCM_U8"}, 2),
        ({"subtype": "PCM_24"}, 1),
        ({"subtype": "FLOAT"}, 1),
        ({"subtype": "ULAW"}, 4),
        ({"format": "FLAC", "subtype": "PCM_16"}, 1),
        ({"format": "OGG", "subtype": "VORBIS"}, 12),
    ],
    ids=str,
)
def test_formats_and_subtypes(how: dict[str, str], close: float) -> None:
    codec = fitted(table([encoded(tone(300))] * 10))
    plain, other = (codec.encode(table([encoded(tone(300), **h)])).tokens.astype(int) for h in ({}, how))
    assert np.abs(plain - other).mean() < close


def test_other_rates_are_resampled_and_channels_mixed_down() -> None:
    codec = fitted(table([encoded(tone(300))] * 10), seconds=0.2)
    expected = codec.view.clips(codec.encode(table([encoded(tone(300))])).tokens)[0]
    stereo = np.stack([tone(300, loud=0.8), tone(300, loud=0.2)], 1)
    for clip in (encoded(tone(300, 44100), 44100), encoded(tone(300, 16000), 16000), encoded(stereo)):
        found = codec.view.clips(codec.encode(table([clip])).tokens)[0]
        assert np.abs(found - expected)[100:-100].max() < 0.05


def test_lengths_are_cut_or_padded_and_counted() -> None:
    clips = [encoded(tone(300, seconds=s)) for s in [0.1] * 3 + [0.25] * 5 + [0.4] * 4]
    codec = fitted(table(clips))
    assert (codec.counts["padded"], codec.counts["cut"], codec.rows) == (3, 4, 12)
    tokens = codec.encode(table(clips)).tokens
    assert tokens.shape == (12, 2000)
    assert (tokens[0, 800:] == 128).all()


FAULTS = {
    "missing": None,
    "empty": b"",
    "empty ": encoded(np.zeros(0)),
    "corrupt": b"RIFF\x00\x00\x00\x00WAVE, or so it says",
    "corrupt ": np.random.default_rng(0).bytes(500),
    "truncated": encoded(tone(300))[:1000],
    "truncated ": encoded(np.random.default_rng(0).normal(0, 0.1, 8000), format="FLAC")[:3000],
    "not a number": encoded(np.array([0.0, np.nan, 0.1]), subtype="FLOAT"),
}


@pytest.mark.parametrize("view", VIEWS)
def test_what_cannot_be_read_is_a_fault_of_its_row(view: str) -> None:
    codec = fitted(WORDS, view, label="word", seconds=1.0)
    clips = [encoded(tone(300)), *FAULTS.values(), encoded(tone(400))]
    records = codec.encode(table(clips, ["low"] * (len(clips) - 1) + ["loud"]))
    reasons = [records.faults[i].partition(":")[0] for i in range(1, 1 + len(FAULTS))]
    assert reasons[:6] == [name.strip() for name in FAULTS][:6]
    assert reasons[6] in ("truncated", "corrupt")
    assert reasons[7] == "not a number"
    assert not any("0x" in reason for reason in records.faults.values()), "an address is another in every run"
    assert "label" in records.faults[len(clips) - 1]
    assert 0 not in records.faults
    alone = codec.encode(table(clips[:1], ["low"])).tokens
    assert np.array_equal(records.tokens[:1], alone), "neighbours change nothing"


def test_structs_with_bytes_and_path() -> None:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    clips = [{"bytes": encoded(tone(300)), "path": "a.wav"}] * 10 + [{"bytes": None, "path": "b.wav"}, None]
    codec = fitted(data := table(clips, kind=kind))
    records = codec.encode(data)
    assert set(records.faults) == {10, 11}
    back = codec.decode(records.tokens[:2].astype(np.int64), random())
    assert back.schema.field("sound").type == kind
    assert heard(back["sound"][0].as_py()["bytes"])[1] == RATE


@pytest.mark.parametrize("view", VIEWS)
def test_its_state_is_all_of_it(view: str) -> None:
    codec = fitted(WORDS, view, label="word")
    state, arrays = codec.state()
    again = AudioCodec.from_state(json.loads(json.dumps(state)), arrays)
    assert again.fingerprint == codec.fingerprint
    assert again.space.entries == codec.space.entries
    assert np.array_equal(again.encode(WORDS).tokens, codec.encode(WORDS).tokens)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (table([b"no sound"] * 12), "none of the 12 sounds in column 'sound' is readable: 12 corrupt"),
        (WORDS.slice(0, 3), "found 3"),
        (pa.table({"a": [b"x"] * 12, "b": [b"y"] * 12}), "name the one with modality.column"),
        (pa.table({"a": ["x"] * 12}), "no column can hold sounds"),
    ],
)
def test_what_cannot_be_learnt_is_said(data: pa.Table, said: str) -> None:
    with pytest.raises(InvalidData, match=said):
        fitted(data)


def test_without_soundfile_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(Unavailable, match=r"genai-core\[audio\]"):
        fitted(WORDS)


def test_a_prompt_is_for_texts() -> None:
    with pytest.raises(MissingCapability, match="sounds"):
        fitted(WORDS).given({}, "la")


def test_reasons_name_time_and_pitch() -> None:
    codec = fitted(WORDS, "log_mel", label="word", seconds=0.5)
    entries = np.zeros((1, codec.space.entries), np.float32)
    entries[:, 1:].reshape(codec.space.height, codec.space.width)[2:5, 20:23] = 1.0
    entries[0, 0] = 2.0
    found = codec.explain(WORDS.slice(0, 1), entries)
    first, second = found["why"][0]
    assert (first["column"], second["column"], second["value"]) == ("sound", "word", "low")
    assert first["nats"] == pytest.approx(9)
    assert first["value"].startswith("100 % in 0.2")
    assert first["value"].endswith("Hz")
    assert found[HEAT_MAP][0].startswith(b"\x89PNG")
    assert codec.explain(WORDS, None)["why"] == [None] * 12


def test_written_files_are_clipped_not_wrapped() -> None:
    samples, _ = heard(wav(np.array([2.0, -2.0, 0.0]), RATE))
    assert np.allclose(samples, [1, -1, 0], atol=1e-3)
