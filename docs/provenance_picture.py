"""Draws docs/provenance.svg: which single changed bits of a signed output are found, and by what.

python docs/provenance_picture.py      from benchmarks/results/tamper.json
"""

from __future__ import annotations

import html
import json
from pathlib import Path

HERE = Path(__file__).parent
FIGURES = HERE.parent / "benchmarks" / "results" / "tamper.json"
WAYS = {"hashes": "hash of the part alone", "signature": "part and sidecar alone", "verify": "genai verify"}
LEFT, ROW, TOP, WIDE, WIDTH = 170, 30, 84, 180, 720
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #222 }
.title { font-weight: 600; font-size: 15px } .soft { fill: #666 }
.back { fill: #dfe5e9 } .found { fill: #61a5c2 }
@media (prefers-color-scheme: dark) {
  text { fill: #eee } .soft { fill: #aaa } .back { fill: #39424a } .found { fill: #2a6f97 }
}
"""


def main() -> None:
    """Write the picture."""
    kept = json.loads(FIGURES.read_text("utf-8"))
    (HERE / "provenance.svg").write_text(picture(kept["figures"], kept["settings"]["flips"]), "utf-8")


def picture(figures: dict[str, dict[str, float]], flips: int) -> str:
    """SVG, light and dark: a row for each kind of file, a column for each way to look."""
    height = TOP + ROW * len(figures) + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-labelledby="t">',
        f"<style>{STYLE}</style>",
        '<title id="t">Share of single changed bits of a signed output that are found</title>',
        '<text class="title" x="12" y="24">One changed bit of a signed output: is it found?</text>',
        f'<text class="soft" x="12" y="44">share of {flips} flipped bits in each kind of file</text>',
        *(
            f'<text x="{LEFT + WIDE * i}" y="72">{html.escape(said)}</text>'
            for i, said in enumerate(WAYS.values())
        ),
    ]
    for number, (kind, found) in enumerate(figures.items()):
        y = TOP + ROW * number
        parts.append(f'<text x="{LEFT - 12}" y="{y + 15}" text-anchor="end">{html.escape(kind)}</text>')
        for column, way in enumerate(WAYS):
            x, full = LEFT + WIDE * column, WIDE - 60
            parts += [
                f'<rect class="back" x="{x}" y="{y}" width="{full}" height="20" rx="2"/>',
                f'<rect class="found" x="{x}" y="{y}" width="{full * found[way]:.0f}" height="20" rx="2"/>',
                f'<text x="{x + full + 6}" y="{y + 15}">{found[way]:.0%}</text>',
            ]
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    main()
