"""Log-mel spectrograms: filters, the inverse, independence of neighbours."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from genai_core.sounds.spectrogram import (
    FRAMES_TOGETHER,
    LogMel,
    band_edges,
    hertz_to_mel,
    mel_filters,
    mel_to_hertz,
)

RATE = 8000
TRANSFORM = LogMel.covering(RATE, 40, 0.016, 0.5)


def chirps() -> torch.Tensor:
    """Rising from 300 to 2,000 Hz, falling from 1,000 to 500 Hz."""
    seconds = np.arange(TRANSFORM.samples) / RATE
    whole = seconds[-1]
    made = [
        0.5 * np.sin(2 * np.pi * (low * seconds + (high - low) * seconds**2 / (2 * whole)))
        for low, high in ((300, 2000), (1000, 500))
    ]
    return torch.from_numpy(np.stack(made)).float()


def test_the_mel_scale_is_that_of_htk() -> None:
    assert hertz_to_mel(np.array(1000.0)) == pytest.approx(1000, abs=0.1)
    assert np.allclose(mel_to_hertz(hertz_to_mel(np.linspace(0, 4000, 9))), np.linspace(0, 4000, 9))


@pytest.mark.parametrize(("rate", "mels", "hop"), [(8000, 32, 0.02), (8000, 256, 0.016), (44100, 80, 0.01)])
def test_no_band_is_empty_and_each_is_a_mean(rate: int, mels: int, hop: float) -> None:
    transform = LogMel.covering(rate, mels, hop, 0.3)
    filters = mel_filters(rate, transform.transform // 2 + 1, mels)
    assert np.isfinite(filters).all()
    assert np.allclose(filters.sum(1), 1)
    assert transform.frames % FRAMES_TOGETHER == 0
    assert transform.samples >= 0.3 * rate


def test_a_tone_is_loudest_in_its_band() -> None:
    seconds = torch.arange(TRANSFORM.samples) / RATE
    edges = band_edges(RATE, 40)
    for hertz in (500.0, 1500.0, 3000.0):
        found = TRANSFORM.decibels(torch.sin(2 * torch.pi * hertz * seconds)[None])[0, :, 5:-5].mean(1)
        band = int(found.argmax())
        assert edges[band] <= hertz <= edges[band + 2]


def test_silence_stays_silence() -> None:
    found = TRANSFORM.decibels(torch.zeros(1, TRANSFORM.samples))
    assert (found == -100).all()
    assert (TRANSFORM.sound(found) == 0).all()


def test_a_chirp_comes_back_with_nearly_its_spectrogram() -> None:
    wanted = TRANSFORM.decibels(chirps())
    found = TRANSFORM.decibels(TRANSFORM.sound(wanted))
    heard = wanted > wanted.amax() - 25
    assert (found - wanted)[heard].square().mean().sqrt() < 2.5, "decibels"


def test_a_clip_is_the_same_whatever_stands_beside_it() -> None:
    spectrograms = TRANSFORM.decibels(chirps())
    both = TRANSFORM.sound(spectrograms)
    assert torch.equal(TRANSFORM.sound(spectrograms[1:]), both[1:])
    assert torch.equal(TRANSFORM.sound(spectrograms), both)
