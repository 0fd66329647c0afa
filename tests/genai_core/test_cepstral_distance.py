"""Distance in aligned cepstra: what is late, slow or loud is no anomaly, what sounds otherwise is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from genai_core.errors import MissingCapability
from genai_core.scores import cepstral_distance
from genai_core.sounds.views import Spectrogram, Waveform
from genai_core.spaces import Grid, Sequence

RATE, SAMPLES = 8000, 4032
VIEWS = {
    "log_mel": Spectrogram(RATE, 32, 128, 32, -80.0, 0.0),
    "waveform": Waveform(RATE, SAMPLES),
}


def word(
    seed: int = 0, at: int = 400, stretch: float = 1.0, loud: float = 0.5, hertz: float = 400
) -> np.ndarray:
    """A tone that rises by half, with noise far below it, somewhere in a clip."""
    random = np.random.default_rng(seed)
    many = round(2000 * stretch)
    rise = np.linspace(1, 1.5, many)
    tone = loud * np.sin(2 * np.pi * np.cumsum(hertz * rise) / RATE) * np.hanning(many)
    clip = np.zeros(3968, np.float32)
    clip[at : at + many] = tone + loud * random.normal(0, 1e-3, many)
    return clip


def encoded(view: str, clips: list[np.ndarray]) -> Tensor:
    samples = VIEWS[view].samples
    padded = np.stack([np.pad(clip, (0, max(samples - len(clip), 0)))[:samples] for clip in clips])
    return torch.from_numpy(VIEWS[view].levels(padded).astype(np.int64))


def model(view: str) -> Any:
    return SimpleNamespace(space=VIEWS[view].space())


def learnt(view: str) -> dict[str, Tensor]:
    train = encoded(view, [word(i, hertz=380 + 4 * i) for i in range(12)])
    return cepstral_distance.fit(model(view), train, torch.Generator().manual_seed(0))


def scores(view: str, clips: list[np.ndarray]) -> list[float]:
    x = encoded(view, clips)
    return cepstral_distance.score(model(view), x, torch.zeros(len(x), 1), learnt(view)).tolist()


@pytest.mark.parametrize("view", VIEWS)
def test_late_slow_and_quiet_words_are_near_and_other_words_far(view: str) -> None:
    same, late, slow, quiet, higher, steady, silence = scores(
        view,
        [
            word(50),
            word(50, at=1500),
            word(50, stretch=1.3),
            word(50, loud=0.2),
            word(50, hertz=900),
            word(50)[::-1].copy(),
            np.zeros(10, np.float32),
        ],
    )
    assert max(same, late, slow, quiet) * 2 < min(higher, steady, silence)


@pytest.mark.parametrize("view", VIEWS)
def test_a_score_depends_on_nothing_but_its_row_and_is_shared_out(view: str) -> None:
    state = learnt(view)
    x = encoded(view, [word(70 + i, hertz=300 + 100 * i) for i in range(6)])
    together = cepstral_distance.score(model(view), x, torch.zeros(6, 1), state)
    alone = torch.cat(
        [cepstral_distance.score(model(view), row[None], torch.zeros(1, 1), state) for row in x]
    )
    assert torch.equal(together, alone)
    shares = cepstral_distance.entries(model(view), x, state)
    assert shares.shape == x.shape
    assert torch.allclose(shares.sum(1), together, rtol=1e-3)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cepstral_distance, "MEMORY", 5)
    assert len(learnt("log_mel")["sounds"]) == 5


def test_texts_have_no_cepstra() -> None:
    text = SimpleNamespace(space=Sequence(256, 16, end=0))
    with pytest.raises(MissingCapability, match="sounds"):
        cepstral_distance.spectrograms(text, torch.zeros(2, 16, dtype=torch.long))
    assert isinstance(model("log_mel").space, Grid)
