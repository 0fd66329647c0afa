"""One record as HTML: the picture, the sound, the text, or the row. Nothing in it says where the record came from."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from genai_core.errors import InvalidData
from pipelines.pages.listening_page import SECONDS

TEXT_LENGTH = 2000  # of a text, or of a value
SIDE = 256  # pixels: larger pictures are made smaller, small ones are enlarged by the browser
STYLE = """
.record img { width: 100%; max-width: 16rem; image-rendering: pixelated; display: block } .record audio { width: 100% }
.record pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; font: inherit }
.record dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem .75rem; margin: 0 }
.record dt { opacity: .7 } .record dd { margin: 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums }
"""


def shown(kind: str, table: pa.Table, column: str | None) -> list[str]:
    """HTML of each row; pictures and sounds are written anew, so that no file's own marks travel along.

    Raises InvalidData for a modality that has no view.
    """
    if kind == "tabular":
        return [_row(row) for row in table.to_pylist()]
    if column is None or kind not in ("audio", "image", "image_codes", "text"):
        raise InvalidData(f"records of modality {kind} cannot be shown")
    if kind == "audio":
        return _sounds(table.column(column))
    if kind == "text":
        return [f"<pre>{escaped(value)}</pre>" for value in table.column(column).to_pylist()]
    return _pictures(table.column(column))


def _pictures(column: pa.ChunkedArray) -> list[str]:
    from PIL import Image

    from genai_core.pictures.columns import images
    from genai_core.pictures.encoded import Unreadable, bombs_refused, png

    with bombs_refused():
        found = [image for chunk in column.chunks for image in images(chunk)]
    cells = []
    for image in found:
        if isinstance(image, Unreadable):
            cells.append("<p>cannot be shown</p>")
            continue
        plain = Image.new("RGB", image.size)
        plain.paste(image.convert("RGB"))  # pixels alone: no text chunks, no profile
        plain.thumbnail((SIDE, SIDE))
        cells.append(f'<img alt="a picture" src="{data_uri("image/png", png(plain))}">')
    return cells


def _sounds(column: pa.ChunkedArray) -> list[str]:
    from genai_core.sounds.files import Unreadable, files_in, read, wav

    cells = []
    for data in (data for chunk in column.chunks for data in files_in(chunk)):
        try:
            sound = read(data, None, SECONDS)
        except Unreadable:
            cells.append("<p>cannot be played</p>")
            continue
        source = data_uri("audio/wav", wav(sound.samples, sound.rate))
        cells.append(f'<audio controls preload="none" aria-label="a sound" src="{source}"></audio>')
    return cells


def _row(row: dict[str, Any]) -> str:
    items = "".join(f"<dt>{escaped(name)}</dt><dd>{escaped(value)}</dd>" for name, value in row.items())
    return f"<dl>{items}</dl>"


def data_uri(kind: str, data: bytes) -> str:
    """`data:` with the bytes in it."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def escaped(value: Any) -> str:
    """Escaped, cut to a bearable length, control characters made visible; a null is said in words."""
    if value is None:
        return "<i>missing</i>"
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    text = text if len(text) <= TEXT_LENGTH else text[: TEXT_LENGTH - 3] + "..."
    visible = "".join(c if c.isprintable() or c == "\n" else f"\\x{ord(c):02x}" for c in text)
    return html.escape(visible.encode("utf-8", "replace").decode())


def document(title: str, style: str, body: Sequence[str], script: str = "") -> bytes:
    """A whole page, UTF-8, which loads nothing from elsewhere and runs no script but this one."""
    import hashlib

    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    runs = f"; script-src 'sha256-{digest}'" if script else ""
    policy = f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data:{runs}"
    text = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{style}{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{html.escape(title)}</h1>\n{''.join(body)}</main>\n"
        f"{f'<script>{script}</script>' if script else ''}\n</body>\n</html>\n"
    )
    return text.encode("utf-8", "replace")
