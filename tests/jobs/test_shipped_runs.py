"""The job files that ship run as they stand, in small: only sizes, budgets and the registry are changed.

Those of tables and most of those of pictures run in tests of their own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import yaml
from PIL import Image

from jobs.execute import Voice, run_file

SPECS = Path(__file__).parents[2] / "jobs" / "specs"
BRIEF = {"max_seconds": None, "max_epochs": 1, "evaluations": 1, "batch_size": 8, "validation_fraction": 0.4}
TEXTS = {
    "train_text": {"hidden": 16, "layers": 1},
    "train_text_bpe": {"hidden": 16, "layers": 1},
    "train_text_vae": {"latent": 4, "embedding": 8},
    "train_text_gan": {"latent": 4, "embedding": 8},
}
SOUNDS = {
    "train_audio_autoregressive": {"hidden": 8, "layers": 3},
    "train_audio_gan": {"channels": 4, "latent": 4},
    "train_audio_vae": {"channels": 4, "latent": 4, "hidden": 16},
}
ANY_TEXT = {"prompt": None, "temperature": 1.0, "top_p": 1.0}  # what an autoregressive model alone can do
TRANSLATOR = {"channels": 4, "blocks": 1}


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Lakes where the files say that they lie."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for folder in ("messages", "books", "new-messages"):
        Path("lake", folder).mkdir(parents=True)
        lines = [
            " ".join(random.choice(["I", "will", "cats", "sat", "on", "mats"], 6))
            for _ in range(600 if folder == "books" else 60)
        ]
        Path("lake", folder, "a.txt").write_text("\n".join(lines))
    for folder in ("words/yes", "words/no", "new-words/yes", "voices/anna", "voices/ben"):
        Path("lake", folder).mkdir(parents=True)
        for i in range(10):
            soundfile.write(Path("lake", folder, f"{i}.wav"), random.normal(0, 0.1, 4000), 8000)
    for folder in ("summer", "winter"):
        Path("lake/seasons", folder).mkdir(parents=True)
        for i in range(8):
            Image.fromarray(random.integers(0, 255, (70, 90, 3), np.uint8)).save(
                Path("lake/seasons", folder, f"{i}.png")
            )
    return tmp_path


def run(spec: str, **changes: Any) -> list[dict[str, Any]]:
    """What the jobs of a shipped file say of themselves; `changes` go into those that have the key or train."""
    jobs = list(yaml.safe_load_all((SPECS / f"{spec}.yaml").read_text()))
    for job in jobs:
        job["track"] = {"enabled": False}
        own = dict(changes)
        if job["job"] == "train":
            job["sink"] = {"path": "model"}
            job["fit"] |= BRIEF
            job["modality"] |= {"length": 48} if job["modality"]["kind"] == "text" else {}
            job["model"] |= own.pop("size", {})
        else:
            job["model"] = "model"
            own.pop("size", None)
        job |= {key: value for key, value in own.items() if key in job}
    Path("job.yaml").write_text(yaml.safe_dump_all(jobs))
    done: list[dict[str, Any]] = []
    outcome = run_file("job.yaml", [], Voice(quiet=True), done.append)
    assert outcome.code == 0, outcome.sentence
    return done or [outcome.line()]


@pytest.mark.parametrize("spec", TEXTS)
def test_texts_are_learnt_drawn_and_scored(spec: str, workplace: Path) -> None:
    run(spec, size=TEXTS[spec])
    able = spec in ("train_text", "train_text_bpe")
    run("generate_text", rows=8, **({} if able else ANY_TEXT))
    made = pq.read_table("out/synthetic-messages/data")["text"].to_pylist()
    assert len(made) == 8 and (not able or all(text.startswith("I will") for text in made))
    run("score_text", **({} if able else {"scores": None}))
    scored = pq.read_table("out/odd-messages/data")
    assert scored.num_rows == 60 and {"file", "line", "text", "p_value"} <= set(scored.column_names)


@pytest.mark.parametrize("spec", SOUNDS)
def test_sounds_are_learnt_and_drawn(spec: str, workplace: Path) -> None:
    run(spec, size=SOUNDS[spec])
    run("generate_audio", rows=4)
    made = pq.read_table("out/synthetic-words/data")
    assert set(made["label"].to_pylist()) <= {"yes", "no"}
    assert all(data.startswith(b"RIFF") for data in made["audio"].to_pylist())
    if spec == "train_audio_vae":
        run("score_audio")
        assert pq.read_table("out/odd-words/data")["cepstral_distance"].null_count == 0


def test_every_recording_of_one_speaker_is_said_by_the_other(workplace: Path) -> None:
    run("train_audio_cyclegan", size=TRANSLATOR)
    (done,) = run("translate_audio")
    made = pq.read_table("out/in-bens-voice/data")
    assert done["rows"] == 10 and set(made["label"].to_pylist()) == {"ben"}
    assert all(file.startswith("anna/") for file in made["file"].to_pylist())


def test_every_picture_of_summer_is_shown_in_winter(workplace: Path) -> None:
    done = run("translate_images", size=TRANSLATOR)
    made = pq.read_table("out/in-winter/data")
    assert done[-1]["rows"] == 8 and all(file.startswith("summer/") for file in made["file"].to_pylist())
    assert set(made["label"].to_pylist()) == {"winter"}
