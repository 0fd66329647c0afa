"""The report of an evaluation: sentences first, then pictures, then every figure; one page, no script"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from genai_core.evaluation.measures import MEASURES
from pipelines.pages.page_parts import document, escaped, section, table

COLUMNS = 60  # drawn; of wider tables those that agree least
WIDTH, HEIGHT = 220, 84  # of a column's picture
CELL = 15  # of a pair
NAME = 24  # characters of a column's name in a picture
STYLE = """
:root { --ok: #15803d; --so: #b45309 } @media (prefers-color-scheme: dark) { :root { --bad: #fb923c; --good: #60a5fa;
        --ok: #4ade80; --so: #fbbf24 } }
.verdicts { list-style: none; padding: 0; font-size: 1.08rem } .verdicts li { padding: .55rem .8rem; margin: .4rem 0;
        border-left: .4rem solid var(--line); background: color-mix(in srgb, currentColor 5%, transparent) }
.verdicts li.good { border-color: var(--ok) } .verdicts li.fair { border-color: var(--so) }
.verdicts li.poor { border-color: var(--bad) } .mark { font-weight: 700; margin-right: .5rem }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr)); gap: 1rem } figure { margin: 0 }
figcaption { font-size: .85rem; overflow-wrap: anywhere }
.dials { grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)) } svg .big { font-size: 22px; font-weight: 600 }
.real { fill: var(--line) } .made { fill: none; stroke: var(--good); stroke-width: 2 } .cell { fill: var(--bad) }
.dial { fill: none; stroke: var(--line); stroke-width: 14 } .value { fill: none; stroke: var(--good); stroke-width: 14 }
.tick { stroke: currentColor; stroke-width: 3 } .bar { fill: var(--good) }
"""
WORDS = {"good": "✓ good", "fair": "! fair", "poor": "✗ poor"}


def page(done: Mapping[str, Any], title: str) -> bytes:
    """Of what `evaluation.json` says; every text of the data is escaped."""
    details = done["details"]
    parts = [
        _verdicts(done["verdicts"]),
        section("As good as real, as varied as real?", _dials(done["measures"])),
        section("What is missing", _lost(details)),
        section("What tells synthetic from real", _giveaways(details, done["measures"])),
        section("Column by column", _columns(details.get("columns", ()))),
        section("Pair by pair", _pairs(details.get("pairs"))),
        section("How near to the training records", _distances(details.get("distances"))),
        section("All figures", _figures(done["measures"]) + _left_out(done["left_out"])),
        section("What was compared", _sources(done)),
    ]
    return document(title, parts, STYLE)


def _verdicts(found: Sequence[Mapping[str, str]]) -> str:
    items = "".join(
        f'<li class="{escaped(one["mark"])}"><span class="mark">{WORDS.get(one["mark"], "")}</span>'
        f"<strong>{escaped(one['about']).capitalize()}.</strong> "
        f"{escaped(one['text'], 600)}</li>\n"
        for one in found
    )
    return f'<ul class="verdicts">\n{items}</ul>\n'


def _dials(measures: Mapping[str, Any]) -> str:
    names = [name for name in ("precision", "recall", "density", "coverage") if name in measures]
    pictures = "".join(
        f"<figure>{_dial(measures[name], MEASURES[name].title)}<figcaption>{escaped(MEASURES[name].question, 200)}"
        "</figcaption></figure>\n"
        for name in names
    )
    note = "The black mark is what other real records reach: more is not to be had."
    return f'<div class="grid dials">\n{pictures}</div>\n<p class="note">{note}</p>\n'


def _dial(measure: Mapping[str, Any], title: str) -> str:
    value, real = measure["synthetic"]["value"], (measure["real"] or {}).get("value")
    top = max(1.0, value, real or 0.0)
    mark = ""
    if real is not None:
        (x1, y1), (x2, y2) = _at(real / top, 46), _at(real / top, 68)
        mark = f'<line class="tick" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'
    beside = f", real against real {real:.3f}" if real is not None else ""
    return (
        f'<svg role="img" aria-label="{title}: {value:.3f}{beside}" viewBox="0 0 150 96">'
        f'<path class="dial" d="{_arc(1.0)}"/><path class="value" d="{_arc(value / top)}"/>{mark}'
        f'<text class="big" x="75" y="74" text-anchor="middle">{value:.2f}</text>'
        f'<text x="75" y="92" text-anchor="middle">{title}</text></svg>'
    )


def _at(share: float, radius: float) -> tuple[float, float]:
    angle = math.pi * (1 - min(max(share, 0.0), 1.0))
    return 75 + radius * math.cos(angle), 76 - radius * math.sin(angle)


def _arc(share: float) -> str:
    x, y = _at(share, 57)
    return f"M 18 76 A 57 57 0 0 1 {x:.1f} {y:.1f}"


def _lost(details: Mapping[str, Any]) -> str:
    rows = [
        [
            escaped(one["column"]),
            escaped(one["value"]),
            f"{one['expected']:,.0f}",
            '<span class="tag">never</span>' if one["found"] == 0 else f"{one['found']:,}",
        ]
        for name in ("lost_categories", "lost_clusters")
        for one in details.get(name, {}).get("synthetic", {}).get("lost", ())
    ]
    if not rows:
        return "<p>Nothing: no common value and no kind of record is missing, or much too rare.</p>\n"
    return table(["Column", "Value", "#Expected", "#Found"], rows)


def _giveaways(details: Mapping[str, Any], measures: Mapping[str, Any]) -> str:
    area = measures["c2st_auc"]
    beside = f" Other real records: {area['real']['value']:.3f}." if area["real"] else ""
    said = (
        f"<p>A classifier that is trained to tell synthetic from real records reaches an area under the curve of "
        f"<strong>{area['synthetic']['value']:.3f}</strong>; .5 is guessing, 1 is never wrong.{beside}</p>\n"
    )
    found = [one for one in details.get("giveaways", ()) if one["auc_drop"] > 0]
    if not found or area["synthetic"]["low"] <= 0.5:
        return said
    top = max(one["auc_drop"] for one in found)
    bars = "".join(
        f'<text x="150" y="{i * 22 + 15}" text-anchor="end">{escaped(one["column"], NAME)}</text>'
        f'<rect class="bar" x="158" y="{i * 22 + 4}" width="{480 * one["auc_drop"] / top:.1f}" height="15"/>'
        f'<text x="{164 + 480 * one["auc_drop"] / top:.1f}" y="{i * 22 + 15}">{one["auc_drop"]:.3f}</text>'
        for i, one in enumerate(found)
    )
    note = '<p class="note">By how much the area falls when a column is shuffled.</p>\n'
    label = 'aria-label="What each column gives away"'
    return f'{said}<svg role="img" {label} viewBox="0 0 720 {22 * len(found) + 6}">{bars}</svg>\n{note}'


def _columns(columns: Sequence[Mapping[str, Any]]) -> str:
    if not columns:
        return ""
    worst = sorted(columns, key=lambda one: one["shape"])[:COLUMNS]
    pictures = "".join(
        f"<figure>{_column(one)}<figcaption><strong>{escaped(one['name'], 60)}</strong> {one['shape']:.3f}"
        "</figcaption></figure>\n"
        for one in worst
    )
    cut = f" The {COLUMNS} of {len(columns)} that agree least are shown." if len(columns) > COLUMNS else ""
    note = (
        "Grey: real rows. Blue: synthetic ones. The number is the agreement of the two, 1 is alike; numbers are cut so "
        f"that the grey bars are about equally high.{cut}"
    )
    return f'<div class="grid">\n{pictures}</div>\n<p class="note">{note}</p>\n'


def _column(one: Mapping[str, Any]) -> str:
    real, made = one["real"], one["synthetic"]
    ends = (
        f'<text x="0" y="{HEIGHT + 13}">{escaped(one["labels"][0], 16)}</text>'
        f'<text x="{WIDTH}" y="{HEIGHT + 13}" text-anchor="end">{escaped(one["labels"][-1], 16)}</text>'
    )
    label = f'aria-label="{escaped(one["name"], 60)}: agreement {one["shape"]:.3f}"'
    box = f'viewBox="0 -2 {WIDTH} {HEIGHT + 18}"'
    return f'<svg role="img" {label} {box}>{_overlay(real, made, WIDTH, HEIGHT)}{ends}</svg>'


def _overlay(real: Sequence[float], made: Sequence[float], width: int, height: int) -> str:
    """Grey bars of real shares, a blue line of synthetic ones: two paths, however many bars."""
    top, step = max(*real, *made, 1e-9), width / len(real)
    grey = "".join(
        f"M{i * step + 0.5:.1f} {height}V{height * (1 - share / top):.1f}H{(i + 1) * step - 0.5:.1f}V{height}Z"
        for i, share in enumerate(real)
    )
    blue = "".join(
        f"{'L' if i else 'M'}{i * step:.1f} {height * (1 - share / top):.1f}H{(i + 1) * step:.1f}"
        for i, share in enumerate(made)
    )
    return f'<path class="real" d="{grey}"/><path class="made" d="{blue}"/>'


def _pairs(pairs: Mapping[str, Any] | None) -> str:
    if not pairs:
        return ""
    names, left = pairs["columns"], 160
    top = max([max(made - real, 0.0) for _, _, made, real in pairs["losses"]] + [0.05])
    cells = "".join(
        f'<rect class="cell" x="{left + a * CELL}" y="{b * CELL}" width="{CELL - 1}" height="{CELL - 1}" '
        f'fill-opacity="{max(made - real, 0.0) / top + 0.04:.2f}"><title>{escaped(names[a], 60)} and '
        f"{escaped(names[b], 60)}: {1 - made:.3f}, real against real {1 - real:.3f}</title></rect>"
        for a, b, made, real in pairs["losses"]
    )
    labels = "".join(
        f'<text x="{left - 6}" y="{i * CELL + 11}" text-anchor="end">{escaped(name, NAME)}</text>'
        f'<text transform="translate({left + i * CELL + 11} {i * CELL - 3}) rotate(-45)">{escaped(name, NAME)}</text>'
        for i, name in enumerate(names)
    )
    size = len(names) * CELL
    note = (
        f"The darker a cell, the worse a pair's joint distribution agrees than that of other real rows: "
        f"the darkest loses {top:.3f} of 1."
    )
    label = 'aria-label="Agreement of every pair of columns"'
    box = f'viewBox="0 -70 {max(left + size + 90, 480)} {size + 76}"'
    most = f'style="max-width: {max(left + size + 90, 480) * 1.2:.0f}px"'
    return f'<svg role="img" {label} {most} {box}>{cells}{labels}</svg>\n<p class="note">{note}</p>\n'


def _distances(found: Mapping[str, Any] | None) -> str:
    if not found:
        return ""
    note = (
        "Distance to the closest training record. Grey: real records that nobody trained on. Blue: synthetic ones. "
        "A blue line that stands higher than grey at the left would be records learnt by heart."
    )
    label, far = 'aria-label="Distances to the closest training record"', f"{found['edges'][-1]:.3g} and more"
    ends = f'<text x="0" y="174">0: a copy</text><text x="720" y="174" text-anchor="end">{far}</text>'
    drawn = _overlay(found["holdout"], found["synthetic"], 720, 160)
    return f'<svg role="img" {label} viewBox="0 -2 720 180">{drawn}{ends}</svg>\n<p class="note">{note}</p>\n'


def _figures(measures: Mapping[str, Any]) -> str:
    rows = []
    for name, meaning in MEASURES.items():
        if name not in measures:
            continue
        made, real = measures[name]["synthetic"], measures[name]["real"]
        rows.append(
            [
                f'<strong>{meaning.title}</strong><br><span class="note">{meaning.question}</span>',
                _number(made["value"]),
                f"{_number(made['low'])} to {_number(made['high'])}",
                _number(real["value"]) if real else "",
                f"{meaning.ideal:g}" if meaning.ideal is not None else "",
                f"{made['rows']:,}",
                escaped(made["by"]),
            ]
        )
    heads = ["Measure", "#Synthetic", "#95 % interval", "#Real instead", "#Ideal", "#Records", "Interval by"]
    return table(heads, rows)


def _number(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 100 else f"{value:,.1f}"


def _left_out(found: Mapping[str, str]) -> str:
    items = "".join(
        f"<li>{MEASURES[name].title}: {escaped(why)}</li>" for name, why in found.items() if name in MEASURES
    )
    return f"<p>Left out:</p>\n<ul>{items}</ul>\n" if items else ""


def _sources(done: Mapping[str, Any]) -> str:
    rows = [
        [
            escaped(label),
            escaped(facts["path"]) + (f" where {escaped(facts['filter'])}" if facts["filter"] else ""),
            f"{facts['rows']:,}",
            f"{done['rows'].get(label, 0):,}",
        ]
        for label, facts in done["sources"].items()
    ]
    searched = done["details"].get("searched")
    note = (
        f'<p class="note">Exact copies were looked for among {searched:,} training records.</p>\n'
        if searched
        else ""
    )
    return table(["", "Where", "#Records", "#Drawn"], rows) + note
