"""Draws docs/stability.svg and docs/mode_collapse.svg from what the benchmarks have kept.

python docs/health_pictures.py
"""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
RESULTS = DOCS.parent / "benchmarks" / "results"
ROW, LEFT, TOP, CELL = 20, 260, 128, 34
STYLE = (
    "<style>:root{color-scheme:light dark}text{font:12px system-ui,sans-serif;fill:#334155}.b{fill:#2563eb}"
    ".g{fill:#94a3b8;opacity:.35}.r{fill:#c2410c}path{fill:none;stroke:#2563eb;stroke-width:2}"
    "line{stroke:#94a3b8;stroke-dasharray:4 3}@media(prefers-color-scheme:dark){text{fill:#cbd5e1}}</style>"
)


def main() -> None:
    """Write the pictures whose figures are there."""
    if matrix := kept("sabotage_matrix"):
        (DOCS / "stability.svg").write_text(stability(matrix["figures"]))
    toys = (kept("mode_collapse_toys") or {}).get("figures", {})
    long = (kept("mode_collapse_stacked_gan") or {}).get("figures")
    rivals = (kept("mode_collapse_stacked_rivals") or {}).get("figures", {})
    stacked = [found for found in ({"gan": long} if long else {}, rivals) if found]
    if toys or stacked:
        (DOCS / "mode_collapse.svg").write_text(collapse(toys, stacked))


def kept(name: str) -> dict[str, Any] | None:
    """A benchmark's file, if it is there."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def picture(width: int, height: int, label: str, parts: Sequence[str]) -> str:
    """An SVG with its own style."""
    box = f'xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="{label}"'
    return f"<svg {box}>{STYLE}{''.join(parts)}</svg>\n"


def text(x: float, y: float, said: object, more: str = "") -> str:
    """One line."""
    return f'<text x="{x:.0f}" y="{y:.0f}" {more}>{html.escape(str(said))}</text>'


def stability(figures: Mapping[str, Any]) -> str:
    """Sabotage by signal: filled where the signal spoke, within one validation; at the right what was done."""
    said = {name: set(one["found"] if isinstance(one, dict) else one) for name, one in figures.items()}
    signals = sorted(set().union(*said.values()))
    parts = [
        text(
            0,
            0,
            signal.replace("_", " "),
            f'transform="translate({LEFT + i * CELL + 18},{TOP - 6}) rotate(-50)"',
        )
        for i, signal in enumerate(signals)
    ]
    for row, (name, found) in enumerate(said.items()):
        y = TOP + row * ROW
        parts.append(text(0, y + 14, name))
        for i, signal in enumerate(signals):
            kind = "r" if signal in found else "g"
            parts.append(
                f'<rect class="{kind}" x="{LEFT + i * CELL}" y="{y}" width="{CELL - 3}" height="{ROW - 3}"/>'
            )
        one = figures[name]
        done = ", ".join(one["done"]) if isinstance(one, dict) else ""
        parts.append(text(LEFT + len(signals) * CELL + 6, y + 14, done))
    width, height = LEFT + len(signals) * CELL + 120, TOP + len(said) * ROW + 4
    return picture(width, height, "Which signal spoke of which sabotage within one validation", parts)


def collapse(toys: Mapping[str, Any], stacked: Sequence[Mapping[str, Any]]) -> str:
    """Bars of modes found, with share of high quality and KL; of stacked digits also modes over CPU-seconds.

    stacked: figures by rival, for each length of training
    """
    parts: list[str] = []
    y = 14
    for toy, rivals in toys.items():
        parts.append(text(0, y, f"{toy}: modes of {rivals['real']['of']}", 'font-weight="600"'))
        y = _bars(parts, rivals, y + 6)
    for rivals in stacked:
        seconds = max(one["cpu_seconds"] for one in rivals.values())
        title = f"stacked digits: modes of 1000, after {seconds:,.0f} CPU-seconds"
        parts.append(text(0, y, title, 'font-weight="600"'))
        real = next(iter(rivals.values()))["real"]
        y = _bars(parts, {"real": real, **rivals}, y + 6)
        y = _curves(parts, rivals, y)
    return picture(760, y, "Modes that each family finds", parts)


def _bars(parts: list[str], rivals: Mapping[str, Any], y: int) -> int:
    for name, one in rivals.items():
        length = 300 * one["modes"] / one["of"]
        parts.append(text(0, y + 12, name.replace("_", " ")))
        parts.append(f'<rect class="g" x="130" y="{y}" width="300" height="14"/>')
        parts.append(f'<rect class="b" x="130" y="{y}" width="{length:.0f}" height="14"/>')
        quality = f"{one['modes']}, of high quality {one['high_quality']:.0%}, KL {one['kl']:.3f}"
        parts.append(text(440, y + 12, quality))
        y += ROW
    return y + 14


def _curves(parts: list[str], rivals: Mapping[str, Any], y: int) -> int:
    """Modes among the made records of each validation."""
    longest, labels = max(one["cpu_seconds"] for one in rivals.values()), []
    for name, one in rivals.items():
        points = [
            (130 + h["cpu_seconds"] / longest * 520, y + 120 - h["modes"] * 0.12) for h in one["history"]
        ]
        path = "L".join(f"{x:.1f},{v:.1f}" for x, v in points)
        parts.append(f'<path d="M{path}"/>')
        labels.append((points[-1][1] + 4, points[-1][0] + 4, name.replace("_", " ")))
    lowest = 0.0
    for height, x, name in sorted(labels):  # names that would lie on each other move down
        lowest = max(height, lowest + 12)
        parts.append(text(x, lowest, name))
    parts.append(f'<line x1="130" x2="650" y1="{y + 6}" y2="{y + 6}"/>')
    parts.append(text(0, y + 10, "950 modes"))
    parts.append(text(650, y + 136, f"{longest:,.0f} CPU-seconds", 'text-anchor="end"'))
    return y + 164


if __name__ == "__main__":
    main()
