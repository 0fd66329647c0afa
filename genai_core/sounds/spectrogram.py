"""Sound to a log-mel spectrogram and back, by torch's Fourier transform alone"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

FLOOR = 1e-10  # of a band's power, -100 dB: digital silence
FRAMES_TOGETHER = 8  # frames come in multiples of this, so that networks can halve a spectrogram thrice
WINDOW_HOPS = 4  # a window is this many hops long; with fewer the phase is hard to find again
ITERATIONS = 32
MOMENTUM = 0.99
NONNEGATIVE_STEPS = 30


def hertz_to_mel(hertz: np.ndarray) -> np.ndarray:
    """Mel scale of O'Shaughnessy (1987), as in HTK."""
    return 2595 * np.log10(1 + np.asarray(hertz, np.float64) / 700)


def mel_to_hertz(mel: np.ndarray) -> np.ndarray:
    """The inverse of `hertz_to_mel`."""
    return 700 * (10 ** (np.asarray(mel, np.float64) / 2595) - 1)


def band_edges(rate: int, mels: int) -> np.ndarray:
    """Hertz, (mels + 2,): band i rises from edge i to its centre i + 1 and falls to edge i + 2."""
    return mel_to_hertz(np.linspace(0, hertz_to_mel(np.array(rate / 2)), mels + 2))


def mel_filters(rate: int, bins: int, mels: int) -> np.ndarray:
    """Triangles (mels, bins) that sum to 1 each: a band's power is a weighted mean of its bins' powers."""
    edges, at = band_edges(rate, mels)[:, None], np.linspace(0, rate / 2, bins)[None]
    rising = (at - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - at) / (edges[2:] - edges[1:-1])
    filters = np.maximum(np.minimum(rising, falling), 0)
    return filters / filters.sum(1, keepdims=True)


@dataclass(frozen=True)
class LogMel:
    """Clips (batch, samples) of one rate <-> log-mel power in decibels (batch, mels, frames).

    rate    samples a second
    mels    bands, evenly spaced on the mel scale from 0 to rate / 2
    hop     samples from frame to frame
    frames  frames of a clip; the first stands at its first sample, the last at its last
    """

    rate: int
    mels: int
    hop: int
    frames: int

    @classmethod
    def covering(cls, rate: int, mels: int, hop_seconds: float, seconds: float) -> LogMel:
        """At least so many seconds, in a multiple of FRAMES_TOGETHER frames."""
        hop = max(round(hop_seconds * rate), 1)
        wanted = -(-round(seconds * rate) // hop) + 1
        return cls(rate, mels, hop, -(-wanted // FRAMES_TOGETHER) * FRAMES_TOGETHER)

    @property
    def samples(self) -> int:
        """Of a clip."""
        return (self.frames - 1) * self.hop

    @property
    def window(self) -> int:
        """Samples under the Hann window."""
        return WINDOW_HOPS * self.hop

    @cached_property
    def transform(self) -> int:
        """Length of the Fourier transform: a power of two, fine enough that every band holds a bin."""
        narrowest = float(np.diff(band_edges(self.rate, self.mels)).min())
        return 2 ** int(np.ceil(np.log2(max(self.window, self.rate / narrowest))))

    @cached_property
    def filters(self) -> Tensor:
        """See `mel_filters`; float32 (mels, bins)."""
        return torch.from_numpy(mel_filters(self.rate, self.transform // 2 + 1, self.mels)).float()

    @cached_property
    def _inverse(self) -> Tensor:
        return torch.linalg.pinv(self.filters.double()).float()

    def decibels(self, clips: Tensor) -> Tensor:
        """float32 (batch, mels, frames); silence is -100."""
        power = self._fourier(clips).abs() ** 2 / float(self._hann.sum()) ** 2
        return 10 * torch.log10((self.filters @ power).clamp(min=FLOOR))

    def sound(self, decibels: Tensor) -> Tensor:
        """Clips (batch, samples) whose spectrograms are near; each clip depends on its own spectrogram alone.

        The phase is found by Griffin & Lim (1984) with the momentum of Perraudin et al. (2013), from the same random
        phases for every clip.
        """
        return torch.stack([self._one(each) for each in decibels])

    def _one(self, decibels: Tensor) -> Tensor:
        power = 10 ** (decibels.float() / 10)
        magnitude = self._bins(torch.where(decibels > 10 * np.log10(FLOOR) + 0.5, power, 0.0)).sqrt()[None]
        magnitude = magnitude * float(self._hann.sum())
        found = torch.polar(magnitude, self._first_phase)
        before = torch.zeros_like(found)
        for _ in range(ITERATIONS):
            again = self._fourier(self._clip(found))
            step = again + MOMENTUM * (again - before)
            before = again
            found = magnitude * step / step.abs().clamp(min=1e-12)
        return self._clip(found)[0]

    def _bins(self, bands: Tensor) -> Tensor:
        """Powers of bins (bins, frames) >= 0 whose bands are near: pseudo-inverse, then Lee & Seung's (2001) steps."""
        found = (self._inverse @ bands).clamp(min=0) + 1e-3 * (self.filters.T @ bands)
        target, weights = self.filters.T @ bands, self.filters.T @ self.filters
        for _ in range(NONNEGATIVE_STEPS):
            found = found * target / (weights @ found).clamp(min=1e-20)
        return found

    @cached_property
    def _hann(self) -> Tensor:
        return torch.hann_window(self.window)

    @cached_property
    def _first_phase(self) -> Tensor:
        shape = (1, self.transform // 2 + 1, self.frames)
        return 2 * torch.pi * torch.rand(shape, generator=torch.Generator().manual_seed(0))

    def _fourier(self, clips: Tensor) -> Tensor:
        return torch.stft(
            clips,
            self.transform,
            self.hop,
            self.window,
            self._hann,
            center=True,
            pad_mode="constant",
            return_complex=True,
        )

    def _clip(self, spectrum: Tensor) -> Tensor:
        return torch.istft(
            spectrum, self.transform, self.hop, self.window, self._hann, center=True, length=self.samples
        )
