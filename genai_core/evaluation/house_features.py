"""House features: records of any modality as vectors on one scale, so that distances and neighbours mean the same.

    tabular   numbers as normal scores of their ranks among real rows, with a mark where missing; categories as codes
              of the 48 commonest values, rarer ones share 16 codes among them
    image     random convolutions at three scales (networks/picture_features.py), of pictures made 32 x 32
    audio     log spectrograms of 24 bands and 32 frames
    text      weighted counts of three letters in a row

All but tables are turned to their first 64 principal components. Everything is fitted on real records. Features of
networks that were trained on photographs are not among them: they know nothing of tables and sounds.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa

from genai_core.errors import InvalidData
from genai_core.evaluation.utility import Features

COMMON, SHARED = 48, 16  # codes of a category: of common values, and of all rarer ones
KNOTS = 1_001  # of a rank
EXTREME = 3.3  # normal score of the ends
COMPONENTS = 64
SIDE = 32  # pixels


class HouseFeatures:
    """Fitted on real records: `features(table)` is float32 (rows, d). Records that cannot be read are left out."""

    def __init__(self, kind: str, table: pa.Table, column: str | None = None, seed: int = 0) -> None:
        """kind: modality; column: where the payload lies, None of tables, all of whose columns count."""
        if kind not in MAKERS:
            raise InvalidData(f"modality {kind!r} has no features to compare records by")
        self._of = MAKERS[kind](table if column is None else table.select([column]), seed)
        self._column = column

    def __call__(self, table: pa.Table) -> np.ndarray:
        found = self._of(table if self._column is None else table.select([self._column]))
        return found[np.isfinite(found).all(1)]


Vectors = Callable[[pa.Table], np.ndarray]


def _of_tables(table: pa.Table, seed: int) -> Vectors:
    del seed
    columns = Features(table, None)
    matrix = columns(table)
    parts = [
        _codes(matrix[:, i]) if categorical else _ranks(matrix[:, i])
        for i, categorical in enumerate(columns.categorical)
    ]

    def vectors(other: pa.Table) -> np.ndarray:
        found = columns(other)
        return np.concatenate([part(found[:, i]) for i, part in enumerate(parts)], 1).astype(np.float32)

    return vectors


def _ranks(real: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Normal scores (Van der Waerden 1952), and a mark of missing values where there are any."""
    from scipy.special import ndtri

    known = np.sort(real[~np.isnan(real)])
    known = known if len(known) else np.zeros(1)
    values, counts = np.unique(known, return_counts=True)
    scores = ndtri((np.cumsum(counts) - counts / 2) / counts.sum()).clip(-EXTREME, EXTREME)
    knots = np.unique(np.linspace(0, len(values) - 1, KNOTS).astype(int))
    values, scores = values[knots], scores[knots]

    def vectors(x: np.ndarray) -> np.ndarray:
        missing = np.isnan(x)
        placed = np.interp(np.where(missing, 0, x), values, scores)
        return np.stack([np.where(missing, 0, placed), missing.astype(float)], 1)

    return vectors


def _codes(real: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """One-hot codes; of two records that differ, the squared distance is 1, as of two numbers one deviation apart."""

    def code(x: np.ndarray) -> np.ndarray:  # x: rank by frequency among real rows
        rare = COMMON + 1 + np.nan_to_num(x) % SHARED
        return np.where(np.isnan(x), 0, np.where(x < COMMON, x + 1, rare)).astype(int)

    width = int(code(real).max(initial=0)) + 2  # the last: what no real row has

    def vectors(x: np.ndarray) -> np.ndarray:
        return np.eye(width)[np.minimum(code(x), width - 1)] * 0.5**0.5

    return vectors


def _of_pictures(table: pa.Table, seed: int) -> Vectors:
    import torch

    from genai_core.networks.picture_features import PictureFeatures

    network = PictureFeatures(3)

    def raw(other: pa.Table) -> np.ndarray:
        pixels = _pixels(other)
        fine = np.isfinite(pixels).all((1, 2, 3))
        found = np.full((len(pixels), 9 * 112), np.inf, np.float32)
        found[fine] = network(torch.from_numpy(pixels[fine])).numpy()
        return found

    return _components(raw, table, seed)


def _pixels(table: pa.Table) -> np.ndarray:
    """(rows, 3, SIDE, SIDE) in -1 .. 1; infinite where a picture cannot be read."""
    from PIL import Image

    from genai_core.pictures.columns import images
    from genai_core.pictures.encoded import Unreadable, bombs_refused

    with bombs_refused():
        found = [image for chunk in table.column(0).chunks for image in images(chunk)]
    pixels = np.full((len(found), 3, SIDE, SIDE), np.inf, np.float32)
    for row, image in enumerate(found):
        if not isinstance(image, Unreadable):
            small = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
            pixels[row] = np.asarray(small, np.float32).transpose(2, 0, 1) / 127.5 - 1
    return pixels


def _of_sounds(table: pa.Table, seed: int) -> Vectors:
    from genai_core.evaluation.record_distance import spectra

    return _components(spectra, table, seed)


def _of_texts(table: pa.Table, seed: int) -> Vectors:
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    from genai_core.evaluation.record_distance import texts

    counts = TfidfVectorizer(analyzer="char", ngram_range=(3, 3), max_features=20_000)
    weights = counts.fit_transform(texts(table))
    size = min(COMPONENTS, min(weights.shape) - 1)
    turned = TruncatedSVD(size, random_state=seed).fit(weights)
    return lambda other: turned.transform(counts.transform(texts(other))).astype(np.float32)


def _components(raw: Vectors, table: pa.Table, seed: int) -> Vectors:
    """The principal components of raw features, in units of the largest one's deviation."""
    from sklearn.decomposition import PCA

    known = raw(table)
    known = known[np.isfinite(known).all(1)]
    if len(known) < 2:
        raise InvalidData("fewer than two real records can be read; nothing could be compared with them")
    turned = PCA(min(COMPONENTS, *known.shape), svd_solver="randomized", random_state=seed).fit(known)
    scale = float(np.sqrt(turned.explained_variance_.sum() / turned.n_components_)) or 1.0

    def vectors(other: pa.Table) -> np.ndarray:
        found = raw(other)
        fine = np.isfinite(found).all(1)
        out = np.full((len(found), turned.n_components_), np.inf, np.float32)
        if fine.any():
            out[fine] = turned.transform(found[fine]) / scale
        return out

    return vectors


MAKERS: dict[str, Callable[[pa.Table, int], Vectors]] = {
    "audio": _of_sounds,
    "image": _of_pictures,
    "image_codes": _of_pictures,
    "tabular": _of_tables,
    "text": _of_texts,
}
