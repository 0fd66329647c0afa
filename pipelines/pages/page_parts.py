"""What the pages of reports are made of: one style for light and dark, escaped text, sections, tables"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Any

from pipelines.scoring.explanations import TEXT_LENGTH

LINES = 200  # of a table on a page
STYLE = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; --line: color-mix(in srgb, currentColor 22%,
        transparent); --bad: #c2410c; --good: #2563eb }
body { max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; width: 100% } th, td { text-align: left; padding: .3rem .6rem; vertical-align: top;
        border-bottom: 1px solid var(--line); overflow-wrap: anywhere } td.n, th.n { text-align: right;
        font-variant-numeric: tabular-nums; white-space: nowrap }
svg { width: 100%; height: auto } svg text { font-size: 11px; fill: currentColor }
.held { fill: var(--line) } .rows { fill: var(--good) } .odd, .flag { fill: var(--bad) }
.cut { stroke: var(--bad); stroke-dasharray: 4 3 } .tag { color: var(--bad); font-weight: 600 }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem } dd { margin: 0; overflow-wrap: anywhere }
ul { margin: 0; padding-left: 1.1rem } .note { opacity: .75 } h1, li { overflow-wrap: anywhere }
section { overflow-x: auto }
"""
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def document(title: str, parts: Iterable[str], style: str = "") -> bytes:
    """UTF-8 HTML that needs nothing from elsewhere and runs no script; the title is escaped here, the parts are not."""
    text = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escaped(title)}</title>\n<style>{STYLE}{style}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{escaped(title)}</h1>\n{''.join(parts)}</main>\n</body>\n</html>\n"
    )
    return text.encode("utf-8", "replace")


def section(title: str, body: str) -> str:
    """Nothing where there is nothing to say."""
    return f"<section>\n<h2>{title}</h2>\n{body}</section>\n" if body else ""


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A head that starts with # is of numbers; cells are HTML."""
    kinds = [' class="n"' if head.startswith("#") else "" for head in heads]
    top = "".join(f"<th{k}>{escaped(h.removeprefix('#'))}</th>" for h, k in zip(heads, kinds, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{k}>{cell}</td>" for cell, k in zip(row, kinds, strict=True)) + "</tr>\n"
        for row in rows[:LINES]
    )
    more = f'<p class="note">and {len(rows) - LINES:,} more</p>\n' if len(rows) > LINES else ""
    return f"<table>\n<tr>{top}</tr>\n{body}</table>\n{more}"


def escaped(value: Any, length: int = TEXT_LENGTH) -> str:
    """Cut to a bearable length, control characters made visible."""
    text = str(value)
    text = text if len(text) <= length else text[: length - 3] + "..."
    shown = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
    return html.escape(shown.encode("utf-8", "replace").decode())
