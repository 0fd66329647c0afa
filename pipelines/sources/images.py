"""Picture files in folders: a row a file, with the folder's name as its label."""

from __future__ import annotations

from typing import Literal

from pipelines.sources.files import FileSettings
from pipelines.sources.whole_files import WholeFileReader


class ImagesSource(FileSettings):
    """A picture file, or a directory of them; columns: file, image (the bytes), label (the folder's name)."""

    kind: Literal["images"] = "images"


class ImagesReader(WholeFileReader):
    """Reads picture files without looking into them."""

    payload = "image"
    suffixes = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".pgm", ".ppm")


READER = ImagesReader
