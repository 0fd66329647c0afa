"""The two ways in which models see a sound: mu-law levels of its samples, or levels of its log-mel spectrogram"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from genai_core.codec import whole
from genai_core.pictures.heat_maps import hottest_window
from genai_core.spaces import Grid, Sequence

if TYPE_CHECKING:  # checking a job file must not import torch
    from genai_core.sounds.spectrogram import LogMel

MU = 255  # of the companding (ITU-T G.711, 1972)
LEVELS = 256
SILENCE = -100.0  # decibels, see `genai_core.sounds.spectrogram.FLOOR`
RANGE = 80.0  # decibels below the loudest of all clips that are told apart
CLIPS_TOGETHER = 64
LARGEST = {"rate": 1_000_000, "samples": 60_000_000, "mels": 256, "hop": 1_000_000, "frames": 120_001}


class View(Protocol):
    """Clips (rows, samples) <-> levels (rows, size)."""

    kind: ClassVar[str]

    @property
    def samples(self) -> int:
        """Of a clip."""
        ...

    def space(self, **names: Any) -> Any:
        """The space of the levels; names and classes as the codec says."""
        ...

    def levels(self, clips: np.ndarray) -> np.ndarray:
        """uint8 (rows, size)."""
        ...

    def clips(self, levels: np.ndarray) -> np.ndarray:
        """The inverse, as near as it can be."""
        ...

    def heat(self, nats: np.ndarray) -> np.ndarray | None:
        """Nats (size,) of a record as a picture, high notes on top; None when the view is none."""
        ...

    def place(self, nats: np.ndarray) -> str:
        """Where most of the nats (size,) of a record are, in seconds and Hertz."""
        ...

    def state(self) -> dict[str, Any]:
        """JSON-able."""
        ...


@dataclass(frozen=True)
class Waveform:
    """Mu-law levels: 256 steps, fine near silence, which is level 128 exactly."""

    kind: ClassVar[str] = "waveform"
    rate: int
    samples: int

    def space(self, **names: Any) -> Sequence:
        """Levels in the order of time."""
        return Sequence(LEVELS, self.samples, ordered=True, **names)

    def levels(self, clips: np.ndarray) -> np.ndarray:
        """Of samples in -1 .. 1; what lies beyond is clipped."""
        folded = np.sign(clips) * np.log1p(MU * np.minimum(np.abs(clips), 1)) / np.log1p(MU)
        return np.clip(np.rint(128 + 127.5 * folded), 0, LEVELS - 1).astype(np.uint8)

    def clips(self, levels: np.ndarray) -> np.ndarray:
        """Within half a step of what was encoded."""
        folded = np.clip((levels.astype(np.float64) - 128) / 127.5, -1, 1)
        return (np.sign(folded) * np.expm1(np.abs(folded) * np.log1p(MU)) / MU).astype(np.float32)

    def heat(self, nats: np.ndarray) -> None:
        """A waveform is no picture."""
        return

    def place(self, nats: np.ndarray) -> str:
        """The tenth of a clip that holds most."""
        found = hottest_window(nats[None], 10)
        return "everywhere" if found is None else f"{_seconds(found.column, found.wide, self.rate)} s"

    def state(self) -> dict[str, Any]:
        return {"view": self.kind, **asdict(self)}


@dataclass(frozen=True)
class Spectrogram:
    """Levels of decibels from `low` (and below) to `high`; a row is a band, the lowest notes first."""

    kind: ClassVar[str] = "log_mel"
    rate: int
    mels: int
    hop: int
    frames: int
    low: float
    high: float

    @cached_property
    def transform(self) -> LogMel:
        """Imports torch."""
        from genai_core.sounds.spectrogram import LogMel

        return LogMel(self.rate, self.mels, self.hop, self.frames)

    @property
    def samples(self) -> int:
        return (self.frames - 1) * self.hop

    def space(self, **names: Any) -> Grid:
        """One channel, bands x frames."""
        return Grid(1, self.mels, self.frames, levels=LEVELS, **names)

    def levels(self, clips: np.ndarray) -> np.ndarray:
        """Nearest levels; what is louder or quieter than all training data gets the outermost ones."""
        made = np.zeros((len(clips), self.mels * self.frames), np.uint8)
        for start in range(0, len(clips), CLIPS_TOGETHER):
            part = decibels(self.transform, clips[start : start + CLIPS_TOGETHER])
            scaled = np.rint((part - self.low) * ((LEVELS - 1) / (self.high - self.low)))
            made[start : start + CLIPS_TOGETHER] = np.clip(scaled, 0, LEVELS - 1).reshape(len(part), -1)
        return made

    def clips(self, levels: np.ndarray) -> np.ndarray:
        """Sounds with such spectrograms; the phase is found anew."""
        import torch

        wanted = self.low + levels.astype(np.float32) * ((self.high - self.low) / (LEVELS - 1))
        wanted[levels == 0] = SILENCE
        with torch.inference_mode():
            return self.transform.sound(torch.from_numpy(wanted).view(-1, self.mels, self.frames)).numpy()

    def heat(self, nats: np.ndarray) -> np.ndarray:
        """(mels, frames)."""
        return nats.reshape(self.mels, self.frames)[::-1]

    def place(self, nats: np.ndarray) -> str:
        """The fifth of bands and frames that holds most."""
        found = hottest_window(nats.reshape(self.mels, self.frames))
        if found is None:
            return "everywhere"
        from genai_core.sounds.spectrogram import band_edges

        edges = band_edges(self.rate, self.mels)
        low, high = edges[found.row], edges[found.row + found.high + 1]
        when = _seconds(found.column, found.wide, self.rate / self.hop)
        return f"{round(100 * found.share)} % in {when} s, {low:.0f}-{high:.0f} Hz"

    def state(self) -> dict[str, Any]:
        return {"view": self.kind, **asdict(self)}


def _seconds(first: int, many: int, rate: float) -> str:
    return f"{first / rate:.2f}-{(first + many) / rate:.2f}"


def decibels(transform: LogMel, clips: np.ndarray) -> np.ndarray:
    """float32 (rows, mels, frames); imports torch."""
    import torch

    with torch.inference_mode():
        return transform.decibels(torch.from_numpy(np.ascontiguousarray(clips, dtype=np.float32))).numpy()


class Loudness:
    """The loudest band of a stream of clips: where a spectrogram's range ends."""

    def __init__(self, transform: LogMel) -> None:
        self.transform = transform
        self.high = SILENCE

    def add(self, clips: np.ndarray) -> None:
        """Of clips (rows, samples)."""
        self.high = max(self.high, float(decibels(self.transform, clips).max(initial=SILENCE)))

    def range(self) -> tuple[float, float]:
        """(low, high) decibels."""
        return self.high - RANGE, self.high


def from_state(state: dict[str, Any]) -> View:
    """The inverse of `state`."""
    plain = {name: value for name, value in state.items() if name != "view"}
    for name in plain.keys() & LARGEST.keys():
        whole(plain, name, 1, LARGEST[name])
    if plain.get("hop", 1) * plain.get("frames", 1) > 2 * LARGEST["samples"]:
        raise ValueError("a clip is longer than any that is learnt")
    return Waveform(**plain) if state["view"] == Waveform.kind else Spectrogram(**plain)
