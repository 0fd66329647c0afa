"""Sounds from end to end: folders of files are learnt, sounds generated, scored and listened to, by job files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import yaml

from genai_core.sounds.files import files_in, read
from jobs.execute import Voice, run_file

RATE, SECONDS = 4000, 0.24
TONES = {"high": 1200.0, "low <b>": 400.0}  # a folder's name is text on the page, never markup
READING = {"kind": "audio", "column": "audio", "label": "label", "seconds": SECONDS, "mels": 16, "hop": 0.015}


def sine(hertz: float, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    time = np.arange(round(RATE * SECONDS)) / RATE
    return random.uniform(0.3, 0.6) * np.sin(2 * np.pi * (hertz * time + random.random()))


def write_lake(place: Path, many: int) -> None:
    for word, hertz in TONES.items():
        folder = place / "lake" / word
        folder.mkdir(parents=True)
        for i in range(many):
            soundfile.write(folder / f"{i:03}.{'flac' if i % 2 else 'wav'}", sine(hertz, i), RATE)


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*jobs: dict[str, Any]) -> list[dict[str, Any]]:
    """What each job says of itself."""
    Path("job.yaml").write_text(yaml.safe_dump_all([job | {"track": {"enabled": False}} for job in jobs]))
    done: list[dict[str, Any]] = []
    outcome = run_file("job.yaml", [], Voice(quiet=True), done.append)
    assert outcome.code == 0, outcome.sentence
    return done


def training(kind: str, epochs: int, reading: dict[str, Any] | None = None, **model: Any) -> dict[str, Any]:
    return {
        "job": "train",
        "name": "tones",
        "source": {"kind": "audio", "path": "lake"},
        "modality": READING | (reading or {}),
        "model": {"kind": kind, **model},
        "fit": {"seed": 1, "max_epochs": epochs, "batch_size": 16},
        "sink": {"path": "model"},
    }


GENERATE = {
    "job": "generate",
    "model": "model",
    "rows": 6,
    "sink": {"path": "out"},
    "where": {"label": "high"},
}


def pitch(data: bytes) -> float:
    samples, rate, _ = read(data, None, 1.0)
    return float(np.abs(np.fft.rfft(samples)).argmax() * rate / len(samples))


def test_spectrograms_are_learnt_generated_and_scored(workplace: Path) -> None:
    write_lake(workplace, 40)
    odd = workplace / "new" / "high"
    odd.mkdir(parents=True)
    for i in range(12):
        soundfile.write(odd / f"{i:02}.wav", sine(TONES["high"], 100 + i), RATE)
    soundfile.write(odd / "noise.wav", np.random.default_rng(0).normal(0, 0.2, 960), RATE)
    (odd / "cut.wav").write_bytes((odd / "00.wav").read_bytes()[:900])
    score = {
        "job": "score",
        "model": "model",
        "source": {"kind": "audio", "path": "new"},
        "top_k": 3,
        "keep": ["file"],
        "sink": {"path": "scores"},
    }
    trained, generated, scored = run(training("vae", 16, hidden=64, channels=8, latent=4), GENERATE, score)
    assert (trained["rows"], generated["rows"], scored["rows"]) == (80, 6, 14)

    made = pq.read_table("out/data")
    assert made["label"].to_pylist() == ["high"] * 6
    assert np.median([pitch(data.as_py()) for data in made["audio"]]) == pytest.approx(TONES["high"], abs=150)
    page = Path("out/_listen.html").read_text()
    assert page.count("<audio controls") == 6
    assert set(re.findall(r'(?:src|href)="([a-z]+):', page)) == {"data"}, "nothing is fetched from elsewhere"

    rows = {row["file"]: row for row in pq.read_table("scores/data").to_pylist()}
    assert rows["high/cut.wav"]["fault"].startswith("truncated")
    assert rows["high/cut.wav"]["cepstral_distance"] is None
    worst = pq.read_table("scores/_anomalies.parquet").to_pylist()[0]
    assert worst["file"] == "high/noise.wav"
    assert worst["why"][0]["value"].endswith("Hz")
    assert worst["heat_map"].startswith(b"\x89PNG")
    assert "high/noise.wav" not in Path("scores/_listen.html").read_text()
    assert Path("scores/_listen.html").read_text().count("<audio controls") == 3


def test_waveforms_are_learnt_and_generated(workplace: Path) -> None:
    write_lake(workplace, 10)
    where = {"where": {"label": "low <b>"}}
    run(training("autoregressive", 2, {"seconds": 0.05}, hidden=8, layers=4), GENERATE | where)
    made = pq.read_table("out/data")
    sounds = [read(data, None, 1.0) for chunk in made["audio"].chunks for data in files_in(chunk)]
    assert [(len(s.samples), s.rate) for s in sounds] == [(200, RATE)] * 6
    page = Path("out/_listen.html").read_text()
    assert "low &lt;b&gt;" in page and "low <b>" not in page
    manifest = json.loads(Path("out/_MANIFEST.json").read_text())
    assert manifest["summary"]["overview"] == "_listen.html"
