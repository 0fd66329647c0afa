"""Sound files as bytes: read at one rate and mixed down, written as 16-bit WAV"""

from __future__ import annotations

import io
import math
import wave
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from genai_core.errors import Unavailable

BYTES = "bytes"  # of a struct<bytes, path>, as data sets of sounds have it
RIFF_HEAD = 8
UNKNOWN_LENGTH = (0, 0xFFFFFFFF)  # what programs write that do not know yet how long a stream will be
MARGIN = 0.05  # seconds read beyond the record, for the filter that resamples
RATES = range(100, 1_000_001)


class Unreadable(Exception):
    """Why a sound cannot be read; what stands before the colon is counted."""


class Sound(NamedTuple):
    """One channel, float32 (samples,), and how much of it the file held."""

    samples: np.ndarray
    rate: int
    seconds: float  # of the whole file


def library() -> Any:
    """soundfile. Raises Unavailable when it is not installed."""
    try:
        import soundfile
    except (ImportError, OSError) as error:  # OSError: the package is there, libsndfile is not
        raise Unavailable(
            f"reading sounds needs soundfile ({error}); pip install 'genai-core[audio]'"
        ) from None
    return soundfile


def holds_sounds(kind: pa.DataType) -> bool:
    """Whether a column of a type can hold sound files: binary, or a struct with binary `bytes`."""
    if pt.is_struct(kind):
        return any(f.name == BYTES and holds_sounds(f.type) for f in kind.fields)
    return pt.is_binary(kind) or pt.is_large_binary(kind) or pt.is_binary_view(kind)


def files_in(column: pa.Array) -> Iterator[bytes | None]:
    """The bytes of every row, null where there are none."""
    if pt.is_struct(column.type):
        valid = column.is_valid().to_pylist()
        inner = column.field(BYTES)
        yield from (value.as_py() if fine else None for value, fine in zip(inner, valid, strict=True))
    else:
        yield from (value.as_py() for value in column)


def read(data: bytes | None, rate: int | None, seconds: float) -> Sound:
    """The beginning of a sound, at most `seconds` of it at `rate` (None: its own). Raises Unreadable."""
    if data is None:
        raise Unreadable("missing: null")
    if not data:
        raise Unreadable("empty: no bytes")
    _refuse_cut_wav(data)
    samples, own, length = _decoded(data, seconds)
    if not np.isfinite(samples).all():
        raise Unreadable("not a number: a sample is NaN or infinite")
    mono = samples.mean(1)
    return Sound(
        _resampled(mono, own, rate or own)[: math.ceil(seconds * (rate or own))], rate or own, length / own
    )


def _decoded(data: bytes, seconds: float) -> tuple[np.ndarray, int, int]:
    soundfile = library()
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            if file.samplerate not in RATES:
                raise Unreadable(f"corrupt: a rate of {file.samplerate} Hz")
            wanted = min(math.ceil((seconds + MARGIN) * file.samplerate), file.frames)
            samples = file.read(wanted, dtype="float32", always_2d=True)
            rate, length = file.samplerate, file.frames
    except (soundfile.SoundFileError, RuntimeError, ValueError, TypeError) as error:
        # str() of libsndfile's errors names the buffer by its address, which is another in every run
        reason = str(getattr(error, "error_string", error))
        raise Unreadable(f"corrupt: {reason.strip()[:100]}") from None
    if len(samples) < wanted:
        raise Unreadable(f"truncated: {len(samples)} of {wanted} samples are there")
    if not wanted:
        raise Unreadable("empty: a clip of no samples")
    return samples, rate, length


def _refuse_cut_wav(data: bytes) -> None:
    """libsndfile reads what there is of a cut WAV without a word."""
    if data[:4] == b"RIFF" and len(data) >= RIFF_HEAD:
        promised = int.from_bytes(data[4:8], "little")
        if promised not in UNKNOWN_LENGTH and promised + RIFF_HEAD > len(data):
            raise Unreadable(f"truncated: {len(data)} of {promised + RIFF_HEAD} bytes are there")


def _resampled(samples: np.ndarray, own: int, rate: int) -> np.ndarray:
    if own == rate:
        return samples
    from scipy.signal import resample_poly  # 0.3 s

    common = math.gcd(own, rate)
    return resample_poly(samples, rate // common, own // common).astype(np.float32)


def wav(samples: np.ndarray, rate: int) -> bytes:
    """A mono WAV file of 16 bits; what lies beyond -1 .. 1 is clipped."""
    whole = np.rint(np.clip(samples, -1, 1) * 32767).astype("<i2")
    kept = io.BytesIO()
    with wave.open(kept, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(whole.tobytes())
    return kept.getvalue()


def write_column(clips: np.ndarray, rate: int, kind: pa.DataType) -> pa.Array:
    """WAV files of clips (rows, samples), in a column of a type; the other fields of a struct are null."""
    files = [wav(clip, rate) for clip in clips]
    if not pt.is_struct(kind):
        return pa.array(files, kind)
    columns = [
        pa.array(files, f.type) if f.name == BYTES else pa.nulls(len(files), f.type) for f in kind.fields
    ]
    return pa.StructArray.from_arrays(columns, fields=list(kind.fields))
