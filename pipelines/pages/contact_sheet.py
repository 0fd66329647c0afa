"""A contact sheet: many pictures on one, those of an anomaly list with their heat maps beside them"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
from PIL import Image, ImageDraw

from genai_core.modalities.image import HEAT_MAP
from genai_core.pictures.columns import images
from genai_core.pictures.encoded import Unreadable, bombs_refused, png

FILE = "_contact_sheet.png"
ROWS = 64
TILE, GAP, CAPTION = 112, 8, 14  # pixels
ACROSS = 8  # tiles, or half as many pairs of picture and heat map
PAPER, INK, HOT = (255, 255, 255), (60, 60, 60), (255, 32, 0)


def page(table: pa.Table, column: str, score: str | None = None) -> bytes:
    """PNG of the pictures in `column`, in the order of the rows; with `score` its values and the heat maps."""
    pictures = _read(table.column(column))
    if score is None:
        return _sheet([[picture] for picture in pictures], _labels(table, column), ACROSS)
    maps = _read(table.column(HEAT_MAP))
    tiles = [[picture, _overlaid(picture, heat)] for picture, heat in zip(pictures, maps, strict=True)]
    return _sheet(tiles, [f"{value:.5g}" for value in table.column(score).to_pylist()], ACROSS // 2)


def _read(column: pa.ChunkedArray) -> list[Image.Image | None]:
    with bombs_refused():
        found = [image for chunk in column.chunks for image in images(chunk)]
    return [None if isinstance(image, Unreadable) else image for image in found]


def _labels(table: pa.Table, column: str) -> list[str]:
    """What stands in the first other column of a generated table: the label, where there is one."""
    others = [name for name in table.column_names if name != column]
    values = table.column(others[0]).to_pylist() if others else [None] * table.num_rows
    return ["" if value is None else str(value)[:16] for value in values]


def _overlaid(picture: Image.Image | None, heat: Image.Image | None) -> Image.Image | None:
    """The heat in red on the picture in grey."""
    if picture is None or heat is None:
        return None
    grey = picture.convert("L").convert("RGB")
    return Image.composite(Image.new("RGB", grey.size, HOT), grey, heat.convert("L").resize(grey.size))


def _sheet(cells: Sequence[Sequence[Image.Image | None]], captions: Sequence[str], across: int) -> bytes:
    """Cells of one or two tiles each, row by row, with a line of text below."""
    in_cell = max((len(cell) for cell in cells), default=1)
    wide, high = in_cell * TILE + GAP, TILE + CAPTION + GAP
    columns, rows = max(min(across, len(cells)), 1), max(-(-len(cells) // across), 1)
    sheet = Image.new("RGB", (columns * wide + GAP, rows * high + GAP), PAPER)
    pen = ImageDraw.Draw(sheet)
    for number, (cell, caption) in enumerate(zip(cells, captions, strict=True)):
        left, top = GAP + number % across * wide, GAP + number // across * high
        for place, image in enumerate(cell):
            if image is not None:
                sheet.paste(_fitted(image), (left + place * TILE, top))
        pen.text((left, top + TILE), caption, fill=INK)
    return png(sheet)


def _fitted(image: Image.Image) -> Image.Image:
    """As large as a tile allows; small pictures keep their pixels visible."""
    scale = TILE / max(image.size)
    size = (max(round(image.width * scale), 1), max(round(image.height * scale), 1))
    how = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    return image.convert("RGB").resize(size, how)
