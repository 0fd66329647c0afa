"""How unlike two records are, for finding the training record that a synthetic one is most like.

For people who look, not for a test: each modality has one plain distance that needs no model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

SIDE = 16  # pixels along each side of a picture that is compared
RATE, SECONDS = 8000, 4.0  # of sounds that are compared
BANDS, FRAMES = 24, 32


def nearest(
    kind: str, table: pa.Table, reference: pa.Table, column: str | None
) -> tuple[np.ndarray, np.ndarray]:
    """For each row of `table` the row of `reference` that is most like it, int64, and how unlike it is, float.

    kind    modality; of tables all columns of `table` are compared, else the payload in `column`
    """
    distances = DISTANCES[kind](_payload(table, column), _payload(reference, column))
    best = distances.argmin(1)
    return best, distances[np.arange(len(best)), best]


def _payload(table: pa.Table, column: str | None) -> pa.Table:
    return table if column is None else table.select([column])


def of_rows(table: pa.Table, reference: pa.Table) -> np.ndarray:
    """Gower's distance (1971), 0 to 1: numbers by their range in `reference`, categories equal or not, nulls alike."""
    total = np.zeros((table.num_rows, reference.num_rows))
    for name in table.column_names:
        total += _column_distance(table.column(name), reference.column(name))
    return total / max(len(table.column_names), 1)


def _column_distance(own: pa.ChunkedArray, others: pa.ChunkedArray) -> np.ndarray:
    if _is_measured(own.type):
        a, b = _numbers(own), _numbers(others)
        known = b[~np.isnan(b)]
        span = float(np.ptp(known)) if len(known) else 0.0
        apart = np.abs(a[:, None] - b[None]) / (span or 1.0)
        missing = np.isnan(a)[:, None].astype(int) + np.isnan(b)[None]
        return np.where(missing == 0, np.minimum(np.nan_to_num(apart), 1.0), (missing == 1).astype(float))
    mine, theirs = own.to_pylist(), others.to_pylist()
    code = {value: number for number, value in enumerate(dict.fromkeys([*mine, *theirs]))}
    return np.not_equal.outer([code[v] for v in mine], [code[v] for v in theirs]).astype(float)


def _is_measured(kind: pa.DataType) -> bool:
    return (
        pt.is_integer(kind)
        or pt.is_floating(kind)
        or pt.is_decimal(kind)
        or (pt.is_temporal(kind) and not pt.is_interval(kind))
    )


def _numbers(column: pa.ChunkedArray) -> np.ndarray:
    if pt.is_temporal(column.type):
        whole = pa.int32() if column.type.bit_width == 32 else pa.int64()
        column = column.cast(whole)
    return pc.cast(column, pa.float64(), safe=False).to_numpy(zero_copy_only=False).astype(float)


def of_pictures(table: pa.Table, reference: pa.Table) -> np.ndarray:
    """Root mean square of the differences of levels (0 to 1), of pictures made 16 x 16."""
    a, b = _pixels(table), _pixels(reference)
    return _euclidean(a, b) / np.sqrt(a.shape[1])


def _pixels(table: pa.Table) -> np.ndarray:
    from PIL import Image

    from genai_core.pictures.columns import images
    from genai_core.pictures.encoded import Unreadable, bombs_refused

    with bombs_refused():
        found = [image for chunk in table.column(0).chunks for image in images(chunk)]
    flat = np.full((len(found), SIDE * SIDE * 3), np.inf)  # what cannot be read is like nothing
    for row, image in enumerate(found):
        if not isinstance(image, Unreadable):
            small = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX)
            flat[row] = np.asarray(small, float).ravel() / 255
    return flat


def of_sounds(table: pa.Table, reference: pa.Table) -> np.ndarray:
    """Root mean square of the differences of log spectrograms in nats, made 24 bands x 32 frames."""
    a, b = spectra(table), spectra(reference)
    return _euclidean(a, b) / np.sqrt(a.shape[1])


def spectra(table: pa.Table) -> np.ndarray:
    """(rows, bands * frames) of sounds in the first column, nats below the loudest; infinite: cannot be read."""
    from genai_core.sounds.files import Unreadable, files_in, read

    flat = np.full((table.num_rows, BANDS * FRAMES), np.inf)
    for row, data in enumerate(d for chunk in table.column(0).chunks for d in files_in(chunk)):
        try:
            flat[row] = _spectrum(read(data, RATE, SECONDS).samples)
        except Unreadable:
            continue
    return flat


def _spectrum(samples: np.ndarray) -> np.ndarray:
    """Mean log power in bands and frames of equal width, the loudest set to zero."""
    from scipy.signal import ShortTimeFFT, get_window

    window = 128
    padded = np.pad(samples, (0, max(FRAMES * window - len(samples), 0)))
    power = ShortTimeFFT(get_window("hann", window), window // 2, RATE).spectrogram(padded)
    logs = np.log(power + 1e-8)
    bands = np.stack([part.mean(0) for part in np.array_split(logs, BANDS)])
    frames = np.stack([part.mean(1) for part in np.array_split(bands, FRAMES, axis=1)], 1)
    return (frames - frames.max()).ravel()


def _euclidean(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(len(a), len(b)); infinite where either is."""
    fine_a, fine_b = np.isfinite(a).all(1), np.isfinite(b).all(1)
    found = np.full((len(a), len(b)), np.inf)
    x, y = a[fine_a], b[fine_b]
    squares = (x**2).sum(1)[:, None] + (y**2).sum(1)[None] - 2 * x @ y.T
    found[np.ix_(fine_a, fine_b)] = np.sqrt(np.maximum(squares, 0))
    return found


def of_texts(table: pa.Table, reference: pa.Table) -> np.ndarray:
    """1 - cosine of the weighted counts (TF-IDF) of three letters in a row, 0 to 1."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    ours, theirs = texts(table), texts(reference)
    try:
        weights = TfidfVectorizer(analyzer="char", ngram_range=(3, 3)).fit(theirs)
    except ValueError:  # no three letters anywhere
        return np.not_equal.outer(ours, theirs).astype(float)
    return 1 - (weights.transform(ours) @ weights.transform(theirs).T).toarray()


def texts(table: pa.Table) -> list[str]:
    """Of the first column; missing ones are empty."""
    values: Sequence[str | bytes | None] = table.column(0).to_pylist()
    return [v.decode("utf-8", "replace") if isinstance(v, bytes) else v or "" for v in values]


DISTANCES: dict[str, Callable[[pa.Table, pa.Table], np.ndarray]] = {
    "audio": of_sounds,
    "image": of_pictures,
    "image_codes": of_pictures,
    "tabular": of_rows,
    "text": of_texts,
}
