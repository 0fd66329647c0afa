"""Where in a picture a score comes from: the hottest region in words, the whole as a grey PNG"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image

from genai_core.pictures.encoded import png

PARTS = 5  # a region's sides are a fifth of the picture's


class Window(NamedTuple):
    """Part of a picture, and its share of what the whole adds."""

    row: int
    column: int
    high: int
    wide: int
    share: float


def hottest_window(heat: np.ndarray, parts: int = PARTS) -> Window | None:
    """The part that adds most, its sides a `parts`-th of the whole's; None when nothing does.

    heat (height, width), of which only excess counts.
    """
    excess = np.maximum(heat.astype(np.float64), 0)
    whole = excess.sum()
    if not whole > 0:
        return None
    high, wide = (max(-(-side // parts), 1) for side in heat.shape)
    sums = np.pad(excess.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    windows = sums[high:, wide:] - sums[:-high, wide:] - sums[high:, :-wide] + sums[:-high, :-wide]
    row, column = np.unravel_index(int(windows.argmax()), windows.shape)
    return Window(int(row), int(column), high, wide, float(windows[row, column] / whole))


def hottest_region(heat: np.ndarray) -> str:
    """Such as "31 % in rows 4-9, columns 10-15", counted from 0."""
    found = hottest_window(heat)
    if found is None:
        return "nowhere more than elsewhere"
    row, column, high, wide, share = found
    return f"{round(100 * share)} % in rows {row}-{row + high - 1}, columns {column}-{column + wide - 1}"


def heat_map(heat: np.ndarray) -> bytes:
    """A grey PNG: black is what adds nothing, white the hottest pixel."""
    excess = np.maximum(heat.astype(np.float64), 0)
    return png(Image.fromarray(np.rint(excess * (255 / (excess.max() or 1))).astype(np.uint8)))
