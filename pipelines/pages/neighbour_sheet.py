"""Synthetic records, each beside the real record that is most like it: does the model write, or copy?"""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.pages.records_as_html import document

STYLE = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; --line: color-mix(in srgb, currentColor 22%,
        transparent) }
body { max-width: 75rem; margin: 2rem auto; padding: 0 1rem }
ol { display: grid; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); gap: 1rem; padding: 0 }
li { list-style: none; border: 1px solid var(--line); border-radius: .5rem; padding: .6rem }
li.copy { border: 2px solid #c2410c } figure { margin: 0; min-width: 0 }
figcaption, .note { opacity: .75; font-size: .9em }
.two { display: grid; grid-template-columns: 1fr 1fr; gap: .6rem } .wide .two { grid-template-columns: 1fr }
"""


def page(
    synthetic: Sequence[str], neighbours: Sequence[str], distances: Sequence[float], unit: str, searched: int
) -> bytes:
    """Pairs in the order given; a distance of nothing is a copy and is marked as one."""
    items = [_item(*each) for each in zip(synthetic, neighbours, distances, strict=True)]
    copies = sum(distance == 0 for distance in distances)
    said = f"{copies} of them are copies. " if copies else ""
    body = [
        f"<p>{len(items)} synthetic records, the most familiar first, each with the one of {searched:,} real records "
        f"that is most like it. {said}A model that has learnt writes records whose neighbours are like them and not "
        "the same.</p>\n",
        f'<p class="note">Distance: {unit}.</p>\n<ol>\n{"".join(items)}</ol>\n',
    ]
    return document("Synthetic records and their nearest real ones", STYLE, body)


def _item(synthetic: str, neighbour: str, distance: float) -> str:
    said = "a copy" if distance == 0 else f"distance {distance:.3g}"
    kind = ' class="copy"' if distance == 0 else ""
    return (
        f'<li{kind}><div class="two"><figure class="record">{synthetic}<figcaption>synthetic</figcaption></figure>'
        f'<figure class="record">{neighbour}<figcaption>nearest real, {said}</figcaption></figure></div></li>\n'
    )
