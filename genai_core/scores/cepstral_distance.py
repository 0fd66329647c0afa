"""Distance to the nearest training sound, in time-aligned cepstra: any model's, it asks the network nothing.

A sound is cut to its active part, stretched to one length, and described by the cosine transform of its decibels over
the bands (mel-frequency cepstra: Davis & Mermelstein 1980), each coefficient in units of its spread over the training
sounds. Faster or slower, later or louder is then no difference. On spoken digits the aligned distance reaches a mean
one-class AUROC of .99, that of plain spectrograms .97 (`benchmarks/audio.py`).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from genai_core.errors import MissingCapability
from genai_core.model import Model
from genai_core.scores import State
from genai_core.sounds.spectrogram import FLOOR, LogMel
from genai_core.spaces import Grid, Sequence

NEEDS = Model
UNIT = "squared standard deviations"
MEMORY = 4096  # training sounds that are remembered
PARTS = 24  # frames of an aligned sound
COEFFICIENTS = 14
LOUDNESS = 0.5  # weight of the first coefficient, which is how loud a frame is
RANGE = 0.625  # share of the levels below a sound's loudest that are told apart: 50 of 80 decibels
ACTIVE = 0.4375  # a frame this share of the levels below the loudest is silence
BANDS, FRAMES, DECIBELS = 32, 64, 80.0  # of the spectrogram of a waveform
TOGETHER = 64


def fit(model: Model, x: Tensor, generator: torch.Generator, effort: float = 1.0) -> dict[str, Tensor]:
    """The aligned spectrograms of training sounds, and the spread of their cepstra."""
    chosen = torch.randperm(len(x), generator=generator)[:MEMORY].sort().values
    aligned, _ = align(spectrograms(model, x[chosen]))
    spread = _cepstra(aligned).std((0, 2), correction=0)
    return {"sounds": (aligned * 255).round().to(torch.uint8), "spread": spread + 0.02 * spread.max() + 1e-6}


def score(model: Model, x: Tensor, log_measure: Tensor, state: State) -> Tensor:
    """(rows,)."""
    return _nearest(align(spectrograms(model, x))[0], state)[0]


def entries(model: Model, x: Tensor, state: State) -> Tensor:
    """(rows, entries): the score, shared out by where a sound differs from the nearest one; the label gets nothing."""
    aligned, frames = align(spectrograms(model, x))
    values, nearest = _nearest(aligned, state)
    difference = (aligned - state["sounds"][nearest].to(aligned) / 255).square() + 1e-12
    shares = difference / difference.sum((1, 2), keepdim=True) * values[:, None, None]
    own = shares.new_zeros(len(x), shares.shape[1], _frames(model.space))
    own.scatter_add_(2, frames.round().long().unsqueeze(1).expand_as(shares), shares)
    return torch.cat([values.new_zeros(len(x), model.space.labelled), _per_entry(model.space, own)], 1)


def spectrograms(model: Model, x: Tensor) -> Tensor:
    """(rows, bands, frames), 1 at a sound's loudest, 0 where it is RANGE below."""
    space, levels = model.space, x[:, model.space.labelled :].float()
    if isinstance(space, Grid):
        found = levels.view(-1, space.height, space.width) / (space.levels - 1)
    elif isinstance(space, Sequence) and space.ordered:
        found = torch.cat([_of_waveforms(space, part) for part in levels.split(TOGETHER)])
    else:
        raise MissingCapability("cepstral_distance is a score of sounds; this model learnt something else")
    return ((found - found.amax((1, 2), keepdim=True)) / RANGE + 1).clamp(min=0)


def _transform(space: Sequence) -> LogMel:
    """Of about FRAMES frames. The rate is unknown here: bands lie where those of 8 kHz would, in proportion."""
    hop = max(space.length // FRAMES, 1)
    return LogMel(8000, BANDS, hop, space.length // hop + 1)


def _of_waveforms(space: Sequence, levels: Tensor) -> Tensor:
    middle = space.vocabulary / 2
    folded = ((levels - middle) / middle).clamp(-1, 1)
    clips = folded.sign() * torch.expm1(folded.abs() * math.log(space.vocabulary)) / (space.vocabulary - 1)
    return (_transform(space).decibels(clips) - 10 * math.log10(FLOOR)) / DECIBELS


def align(found: Tensor) -> tuple[Tensor, Tensor]:
    """(rows, bands, PARTS), and the frame (rows, PARTS) that each part was read at."""
    active = (found.amax(1) > 1 - ACTIVE / RANGE).float()
    last_frame = found.shape[2] - 1
    first = active.argmax(1)
    last = last_frame - active.flip(1).argmax(1)
    at = first[:, None] + (last - first)[:, None] * torch.linspace(0, 1, PARTS)
    below = at.floor().clamp(max=max(last_frame - 1, 0)).long()
    weight = (at - below).unsqueeze(1)
    index = below.unsqueeze(1).expand(-1, found.shape[1], -1)
    above = (index + 1).clamp(max=last_frame)
    return found.gather(2, index) * (1 - weight) + found.gather(2, above) * weight, at


def _cepstra(aligned: Tensor) -> Tensor:
    """(rows, coefficients, PARTS): orthonormal cosine transform over the bands."""
    bands = aligned.shape[1]
    k, n = torch.arange(min(COEFFICIENTS, bands))[:, None], torch.arange(bands)[None]
    basis = torch.cos(math.pi / bands * (n + 0.5) * k) * math.sqrt(2 / bands)
    basis[0] /= math.sqrt(2)
    return basis @ aligned


def _features(aligned: Tensor, spread: Tensor) -> Tensor:
    """(rows, numbers) whose squared distance is the score."""
    weights = torch.ones_like(spread)
    weights[0] = LOUDNESS
    found = _cepstra(aligned) * (weights / spread)[:, None]
    return found.flatten(1) / math.sqrt(found[0].numel())


def _nearest(aligned: Tensor, state: State) -> tuple[Tensor, Tensor]:
    """Squared distance (rows,) to the nearest training sound, and which that is."""
    kept = _features(state["sounds"].to(aligned) / 255, state["spread"])
    own = _features(aligned, state["spread"])
    distances = torch.cdist(own, kept, compute_mode="donot_use_mm_for_euclid_dist")
    found = distances.min(1)
    return found.values.square(), found.indices


def _frames(space: Grid | Sequence) -> int:
    return space.width if isinstance(space, Grid) else _transform(space).frames


def _per_entry(space: Grid | Sequence, shares: Tensor) -> Tensor:
    """(rows, bands, frames) -> (rows, levels of a record)."""
    if isinstance(space, Grid):
        return shares.flatten(1)
    transform = _transform(space)  # a frame stands at the samples around it
    frame = ((torch.arange(space.length) + transform.hop // 2) // transform.hop).clamp(
        max=transform.frames - 1
    )
    many = torch.bincount(frame, minlength=transform.frames).clamp(min=1)
    return (shares.sum(1) / many)[:, frame]
