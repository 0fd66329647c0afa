"""The report of a scoring run: one HTML page that needs nothing from elsewhere"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipelines.lakes.partitions import Partition
from pipelines.pages.page_parts import LINES, document, escaped, section, table
from pipelines.scoring.explanations import reason_text

FILE = "_report.html"
ROWS = 50  # most anomalous rows shown
WIDTH, HEIGHT = 720, 180  # of a chart


@dataclass(frozen=True)
class Findings:
    """What a run found.

    facts       what was scored with what, in words
    histogram   see `partitions.histogram`
    cut         score from which rows are flagged, None: none is
    listed      the most anomalous rows, as `_anomalies.parquet` has them
    history     label of a run -> its partitions, the oldest first; of a lake
    skipped     file -> why it was left out
    drifted     file -> how its columns differ
    """

    title: str
    score: str
    unit: str
    facts: Mapping[str, str]
    partitions: Sequence[Partition] = ()
    histogram: Mapping[str, Any] | None = None
    cut: float | None = None
    listed: Sequence[Mapping[str, Any]] = ()
    history: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)
    drifted: Mapping[str, str] = field(default_factory=dict)


def page(found: Findings) -> bytes:
    """UTF-8 HTML; every text of the data is escaped, and no script runs."""
    parts = [
        _facts(found),
        section("Scores", _histogram(found)),
        section("Partitions that moved as a whole", _moved(found.partitions)),
        section("Most anomalous rows", _rows(found)),
        section("Counts by partition", _counts(found.partitions)),
        section("Run after run", _history(found.history)),
        section("Files with other columns", _files(found.drifted)),
        section("Files left out", _files(found.skipped)),
    ]
    return document(found.title, parts)


def _facts(found: Findings) -> str:
    items = "".join(
        f"<dt>{escaped(name)}</dt><dd>{escaped(value)}</dd>\n" for name, value in found.facts.items()
    )
    return f"<dl>\n{items}</dl>\n"


def _histogram(found: Findings) -> str:
    if found.histogram is None:
        return ""
    edges, rows = found.histogram["edges"], np.asarray(found.histogram["rows"], float)
    held = np.asarray(found.histogram["held_out"], float)
    held *= rows.sum() / max(held.sum(), 1)
    top = np.log1p(max(rows.max(), held.max()))
    step = WIDTH / len(rows)
    bars = "".join(
        _bar(kind, i * step, step * 0.94, np.log1p(count) / top if top else 0.0)
        for kind, counts in (("held", held), ("rows", rows))
        for i, count in enumerate(counts)
        if count > 0
    )
    cut = ""
    if found.cut is not None:
        x = float(np.clip((found.cut - edges[0]) / (edges[-1] - edges[0]), 0, 1)) * WIDTH
        cut = f'<line class="cut" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{HEIGHT}"/>'
    labels = "".join(
        f'<text x="{share * WIDTH:.0f}" y="{HEIGHT + 14}" text-anchor="{anchor}">'
        f"{edges[0] + share * (edges[-1] - edges[0]):.4g}</text>"
        for share, anchor in ((0, "start"), (0.5, "middle"), (1, "end"))
    )
    said = "Blue: the rows. Grey: held-out rows of the training, as many. Logarithmic; the last bar holds all beyond."
    flagged = "" if found.cut is None else f" Dashed: from {found.cut:.4g} on rows are flagged."
    box = f'aria-label="Histogram of scores" viewBox="0 0 {WIDTH} {HEIGHT + 18}"'
    return (
        f'<svg role="img" {box}>{bars}{cut}{labels}</svg>\n'
        f'<p class="note">{escaped(found.score)} in {escaped(found.unit)}. {said}{flagged}</p>\n'
    )


def _bar(kind: str, x: float, width: float, share: float) -> str:
    height = share * HEIGHT
    return f'<rect class="{kind}" x="{x:.1f}" y="{HEIGHT - height:.1f}" width="{width:.1f}" height="{height:.1f}"/>'


def _moved(partitions: Sequence[Partition]) -> str:
    rows = []
    for one in partitions:
        if one.scores is None and not one.columns:
            continue
        words = []
        if one.scores is not None:
            way = "up" if one.scores.upwards else "down"
            words.append(f"scores {way} by {one.scores.size:.0%} of the mass")
        largest = sorted((one.columns or {}).items(), key=lambda pair: -pair[1].size)
        words += [f"{name} by {shift.size:.0%}" for name, shift in largest[:8]]
        if one.weighted is not None:
            plain = "" if one.weighted.p_values is not None else ", too few: plain p-values"
            words.append(f"like {one.weighted.effective:,.0f} effective held-out rows{plain}")
        withheld = '<span class="tag">rows withheld</span>' if one.withheld else ""
        rows.append([_name(one.name), _number(one.rows), escaped("; ".join(words)), withheld])
    if not rows:
        return ""
    note = (
        '<p class="note">The bulk of these rows differs from the rows that the model was trained on. That is drift, '
        "not many anomalies; of partitions that are withheld no row is flagged. Train on newer rows, or find out "
        "what changed at the source.</p>\n"
    )
    return note + table(["Partition", "#Rows", "What moved", ""], rows)


def _rows(found: Findings) -> str:
    if not found.listed:
        return "<p>No row is flagged.</p>\n"
    hidden = {"why", "p_value", "weighted_p_value", found.score, "source_file", "source_row", "fault"}
    keep = [
        name
        for name in found.listed[0]
        if name not in hidden and not isinstance(found.listed[0][name], bytes)
    ]
    lines = []
    for row in found.listed[:ROWS]:
        values = "".join(f"<li>{escaped(name)} = {escaped(row[name])}</li>" for name in keep)
        why = "".join(
            f"<li>{escaped(reason_text(reason, found.unit))}</li>" for reason in row.get("why") or ()
        )
        place = escaped(f"{row.get('source_file')} row {row.get('source_row')}")
        p_value = row.get("p_value")
        p_value = row.get("weighted_p_value", p_value)
        lines.append(
            [
                f"{row[found.score]:.2f}" if row.get(found.score) is not None else "",
                f"{p_value:.2g}" if p_value is not None else "",
                f"<ul>{why}</ul>" if why else "",
                f"{place}<ul>{values}</ul>",
            ]
        )
    return table(["#Score", "#p", "Why", "Which row"], lines)


def _counts(partitions: Sequence[Partition]) -> str:
    if len(partitions) < 2:
        return ""
    ordered = sorted(partitions, key=lambda one: natural(one.name))
    rows = [[_name(one.name), _number(one.rows), _number(one.flagged)] for one in ordered]
    shares = [one.flagged / one.rows if one.rows else 0.0 for one in ordered]
    chart = _columns([one.name for one in ordered], shares, "Share of flagged rows by partition")
    return chart + table(["Partition", "#Rows", "#Flagged"], rows)


def _history(history: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    if len(history) < 2:
        return ""
    totals = [(label, *_sums(parts)) for label, parts in history.items()]
    shares = [flagged / rows if rows else 0.0 for _, rows, flagged in totals]
    chart = _columns([label for label, _, _ in totals], shares, "Share of flagged rows by run")
    rows = [[escaped(label), _number(count), _number(flagged)] for label, count, flagged in totals]
    return chart + table(["Run", "#Rows", "#Flagged"], rows[-LINES:])


def _sums(parts: Iterable[Mapping[str, Any]]) -> tuple[int, int]:
    found = list(parts)
    return sum(part["rows"] for part in found), sum(part["flagged"] for part in found)


def _columns(names: Sequence[str], shares: Sequence[float], label: str) -> str:
    top = max(shares, default=0.0) or 1.0
    step = WIDTH / len(shares)
    bars = "".join(
        f'<rect class="flag" x="{i * step:.1f}" width="{step * 0.9:.1f}" y="{90 - 84 * share / top:.1f}" '
        f'height="{84 * share / top + 0.5:.1f}"><title>{escaped(name)}: {share:.2%}</title></rect>'
        for i, (name, share) in enumerate(zip(names, shares, strict=True))
    )
    ends = (
        f'<text x="0" y="104">{escaped(names[0])}</text>'
        f'<text x="{WIDTH}" y="104" text-anchor="end">{escaped(names[-1])}</text>'
        f'<text x="{WIDTH}" y="10" text-anchor="end">{top:.2%}</text>'
    )
    return f'<svg role="img" aria-label="{label}" viewBox="0 0 {WIDTH} 108">{bars}{ends}</svg>\n'


def _files(found: Mapping[str, str]) -> str:
    return table(["File", "What"], [[escaped(k), escaped(v)] for k, v in found.items()]) if found else ""


def natural(name: str) -> list[tuple[bool, int, str]]:
    """Sorts `month=2` before `month=10`."""
    parts = re.split(r"([0-9]+)", name)
    return [(part.isdecimal(), int(part), "") if part.isdecimal() else (False, 0, part) for part in parts]


def _name(partition: str) -> str:
    return escaped(partition or "all rows")


def _number(value: int) -> str:
    return f"{value:,}"
