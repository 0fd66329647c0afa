"""A page to listen to: sounds inside one HTML file, those of an anomaly list with their heat maps"""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from genai_core.modalities.audio import HEAT_MAP
from genai_core.sounds.files import Unreadable, files_in, read, wav

FILE = "_listen.html"
ROWS = 24
SECONDS = 20.0  # of a clip; a page is read into memory
STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
ol { display: grid; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); gap: 1rem; padding: 0 }
li { list-style: none; border: 1px solid color-mix(in srgb, currentColor 25%, transparent); border-radius: .5rem;
     padding: .75rem }
audio { width: 100% } svg, img { width: 100%; height: 4rem; display: block }
img { image-rendering: pixelated; border-radius: .25rem }
h2 { font-size: 1rem; margin: 0 0 .25rem; overflow-wrap: anywhere }
path { stroke: currentColor; fill: none; vector-effect: non-scaling-stroke }
"""
HEAT_SAYS = "Where its score comes from: time to the right, high notes on top"
POINTS = 120  # of a drawn waveform


def page(table: pa.Table, column: str, score: str | None = None) -> bytes:
    """UTF-8 HTML of the sounds in `column`, in the order of the rows; with `score` its values and the heat maps."""
    files = [data for chunk in table.column(column).chunks for data in files_in(chunk)]
    names = _names(table, column, score)
    maps = table.column(HEAT_MAP).to_pylist() if score else [None] * len(files)
    items = [_item(*each) for each in zip(names, files, maps, strict=True)]
    title = "Sounds that were generated" if score is None else "The most anomalous sounds"
    text = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n"
        f"<ol>\n{''.join(items)}</ol>\n</main>\n</body>\n</html>\n"
    )
    return text.encode()


def _names(table: pa.Table, column: str, score: str | None) -> list[str]:
    """Number and label of a generated sound, number and score of an anomalous one."""
    others = [name for name in table.column_names if name != column]
    shown = score or (others[0] if others else None)
    values: Sequence[object] = [None] * table.num_rows if shown is None else table.column(shown).to_pylist()
    texts = [f"{v:.5g}" if isinstance(v, float) else "" if v is None else str(v)[:100] for v in values]
    return [f"{i + 1}. {shown}: {text}" if text else f"{i + 1}." for i, text in enumerate(texts)]


def _item(name: str, data: bytes | None, heat: bytes | None) -> str:
    name = html.escape(name)
    try:
        sound = read(data, None, SECONDS)
    except Unreadable as reason:
        return f"<li><h2>{name}</h2><p>cannot be played: {html.escape(str(reason))}</p></li>\n"
    picture = (
        _waveform(sound.samples)
        if heat is None
        else f'<img alt="{HEAT_SAYS}" src="{_uri("image/png", heat)}">'
    )
    played = _uri("audio/wav", wav(sound.samples, sound.rate))
    return (
        f"<li><h2>{name}</h2>{picture}"
        f'<audio controls preload="none" aria-label="Sound {name}" src="{played}"></audio></li>\n'
    )


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _waveform(samples: np.ndarray) -> str:
    """The loudest sample of each stretch, as a line up and down; for the eye only."""
    parts = [float(np.abs(part).max(initial=0)) for part in np.array_split(samples, POINTS)]
    loudest = max(parts) or 1.0
    strokes = "".join(
        f"M{i} {20 - 18 * p / loudest:.1f}V{20 + 18 * p / loudest:.1f}" for i, p in enumerate(parts)
    )
    return f'<svg viewBox="0 0 {POINTS} 40" preserveAspectRatio="none" aria-hidden="true"><path d="{strokes}"/></svg>'
