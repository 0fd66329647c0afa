"""The report of a fit: one HTML page with its loss curves, every signal against its limits, and what was done when."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from genai_core.monitors.signals import ACT, DONE, LIMITS, WARN, Limit
from pipelines.pages.page_parts import document, escaped, section, table

FILE = "training_report.html"
WIDTH, HEIGHT, LEFT, SMALL = 720, 180, 52, 90  # of a chart; of its scale at the left; of a signal's chart
FIRST = ("validation_loss", "epsilon")  # a private fit tells no loss, but what it has spent
COLOURS = ("var(--good)", "#7c3aed", "#0d9488", "#b45309")
LEVELS = {WARN: "warning", ACT: "alarm"}
OWN = """
path { fill: none } .line { stroke-width: 1.8 }
.warn { stroke: #b45309; stroke-dasharray: 4 3 } .act { stroke: var(--bad) }
.mark { stroke: var(--bad); opacity: .6 } .axis { stroke: var(--line) } h3 { margin: 1.2rem 0 .2rem; font-size: 1rem }
"""
Points = list[tuple[float, float]]


def training_page(title: str, facts: Mapping[str, Any]) -> str:
    """HTML that needs nothing from elsewhere and runs no script; facts: the progress that checkpoints keep."""
    history, health = facts["history"], facts.get("health") or {}
    events = health.get("events", [])
    marks = [float(event["step"]) for event in events if event["did"]]
    signals = [name for name in LIMITS if any(f"health_{name}" in entry for entry in history)]
    note = (
        '<p class="note">Dashed: from here on it is a warning. Solid: from here on something is done. Vertical: '
        "something was done.</p>\n"
    )
    parts = [
        f"<p>{_summary(facts, events)}</p>\n",
        section("Losses", _losses(history, marks)),
        section("What was found and done", _events(events)),
        section("Signals", note + "".join(_signal(name, history, marks) for name in signals)),
    ]
    return document(f"Training of {title}", parts, OWN).decode()


def _summary(facts: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> str:
    alarms = sorted({event["name"].replace("_", " ") for event in events if event["level"] == ACT})
    state = f"Alarms: {', '.join(alarms)}." if alarms else "No alarm."
    best = f"validation loss {facts['best']:.5g}" if math.isfinite(facts["best"]) else "no validation"
    return (
        f"{facts['step']:,} steps in {facts['seconds']:,.0f} s. The weights of step {facts['best_step']:,} are kept: "
        f"{best}. {escaped(state)}"
    )


def _losses(history: Sequence[Mapping[str, float]], marks: Sequence[float]) -> str:
    names = [n for n in (history[-1] if history else {}) if n in FIRST or n.startswith("loss_")]
    of_validation, others = [n for n in names if n in FIRST], [n for n in names if n not in FIRST]
    parts = [
        _chart({n: _points(history, n) for n in group}, marks, HEIGHT) for group in (of_validation, others)
    ]
    return "".join(parts)


def _signal(name: str, history: Sequence[Mapping[str, float]], marks: Sequence[float]) -> str:
    limit, points = LIMITS[name], _points(history, f"health_{name}")
    if len(points) < 2:  # read once
        value = points[0][1] if points else math.nan
        return f"<h3>{escaped(name.replace('_', ' '))}</h3>\n<p>{escaped(limit.meaning)}: {value:.4g}</p>\n"
    chart = _chart({name: points}, marks, SMALL, limit)
    return (
        f'<h3>{escaped(name.replace("_", " "))}</h3>\n<p class="note">{escaped(limit.meaning)}</p>\n{chart}'
    )


def _points(history: Sequence[Mapping[str, float]], name: str) -> Points:
    return [(float(e["step"]), float(e[name])) for e in history if math.isfinite(e.get(name, math.nan))]


def _chart(
    lines: Mapping[str, Points], marks: Sequence[float], height: int, limit: Limit | None = None
) -> str:
    """Lines over the steps, with limits and marks."""
    lines = {name: points for name, points in lines.items() if points}
    if not lines:
        return ""
    values = [y for points in lines.values() for _, y in points]
    limits = [] if limit is None else [("warn", limit.warn), ("act", limit.act)]
    shown = values + [
        bound for _, bound in limits if bound is not None and bound < 20 * max(map(abs, values), default=0)
    ]
    low, high = min(shown), max(shown)
    high = high if high > low else low + 1
    last = max(x for points in lines.values() for x, _ in points) or 1.0

    def at(x: float, y: float) -> str:
        return f"{LEFT + x / last * (WIDTH - LEFT):.1f},{4 + (high - y) / (high - low) * (height - 8):.1f}"

    drawn = [f'<path class="axis" d="M{LEFT},0V{height}H{WIDTH}"/>']
    for kind, bound in limits:
        if bound is not None and low <= bound <= high:
            drawn.append(f'<path class="{kind}" d="M{at(0, bound)}L{at(last, bound)}"/>')
    drawn += [f'<path class="mark" d="M{at(x, low)}L{at(x, high)}"/>' for x in marks if x <= last]
    for (name, points), colour in zip(lines.items(), COLOURS * len(lines), strict=False):
        path = "L".join(at(x, y) for x, y in points)
        drawn.append(
            f'<path class="line" stroke="{colour}" d="M{path}"><title>{escaped(name)}</title></path>'
        )
    drawn.append(f'<text x="0" y="12">{high:.4g}</text><text x="0" y="{height - 2}">{low:.4g}</text>')
    drawn.append(f'<text x="{WIDTH}" y="{height + 13}" text-anchor="end">step {last:,.0f}</text>')
    names = ", ".join(lines)
    legend = "".join(
        f'<tspan fill="{colour}" dx="8">{escaped(name)}</tspan>'
        for name, colour in zip(lines, COLOURS * len(lines), strict=False)
    )
    drawn.append(f'<text x="{LEFT}" y="{height + 13}">{legend}</text>')
    box = f'viewBox="0 0 {WIDTH} {height + 18}"'
    return f'<svg role="img" aria-label="{escaped(names)} over the steps" {box}>{"".join(drawn)}</svg>\n'


def _events(events: Sequence[Mapping[str, Any]]) -> str:
    if not events:
        return "<p>Nothing: no signal went over its limit.</p>\n"
    rows = [
        [
            f"{event['step']:,}",
            LEVELS.get(event["level"], "note"),
            escaped(event["name"].replace("_", " ")),
            escaped(event["said"]),
            DONE[event["did"]],
        ]
        for event in events
    ]
    return table(["#Step", "Level", "Signal", "What was found", "What was done"], rows)
