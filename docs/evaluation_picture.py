"""Draw docs/evaluation.svg: which measure notices which fault, from benchmarks/results/evaluation_power.json.

python docs/evaluation_picture.py
"""

from __future__ import annotations

import html
import json
from pathlib import Path

from genai_core.evaluation import MEASURES

ROOT = Path(__file__).parent.parent
LEFT, TOP, WIDE, HIGH = 190, 150, 40, 34
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2937 } .seen { fill: #2563eb }
.unseen { fill: #9ca3af; fill-opacity: .25 }
rect.page { fill: #ffffff } .value { font-size: 10px; text-anchor: middle } .on { fill: #ffffff }
@media (prefers-color-scheme: dark) { text { fill: #e5e7eb } rect.page { fill: #111827 } .on { fill: #ffffff } }
"""


def main() -> None:
    """Write the picture."""
    found = json.loads((ROOT / "benchmarks/results/evaluation_power.json").read_text())["figures"]
    names = [name for name in MEASURES if name in next(iter(found.values()))["values"]]
    width, height = LEFT + WIDE * len(names) + 90, TOP + HIGH * len(found) + 12
    heads = "".join(
        f'<text transform="translate({LEFT + i * WIDE + 24} {TOP - 8}) rotate(-50)">{name}</text>\n'
        for i, name in enumerate(names)
    )
    rows = "".join(_row(number, fault, one, names) for number, (fault, one) in enumerate(found.items()))
    said = "Faults planted in real rows of Adult, and the measures that notice them"
    (ROOT / "docs/evaluation.svg").write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="{said}">\n'
        f'<title>{said}</title>\n<style>{STYLE}</style>\n<rect class="page" width="{width}" height="{height}"/>\n'
        f"{heads}{rows}</svg>\n"
    )


def _row(number: int, fault: str, one: dict[str, dict[str, float]], names: list[str]) -> str:
    y = TOP + number * HIGH
    cells = "".join(
        f'<rect class="{"seen" if name in one["noticed_by"] else "unseen"}" x="{LEFT + i * WIDE}" y="{y}" rx="4" '
        f'width="{WIDE - 4}" height="{HIGH - 4}"/><text class="value{" on" if name in one["noticed_by"] else ""}" '
        f'x="{LEFT + i * WIDE + (WIDE - 4) / 2}" y="{y + 19}">{_value(one["values"].get(name))}</text>\n'
        for i, name in enumerate(names)
    )
    return f'<text x="{LEFT - 10}" y="{y + 20}" text-anchor="end">{html.escape(fault)}</text>\n{cells}'


def _value(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


if __name__ == "__main__":
    main()
