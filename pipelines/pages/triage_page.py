"""A page on which people say of each anomaly whether it is one, and save what they said as a labels file.

The file has the columns source_file, source_row and label: what `labels:` of a score or lake job reads.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.pages.records_as_html import document, escaped

STYLE = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; --line: color-mix(in srgb, currentColor 22%,
        transparent); --bad: #c2410c; --good: #2563eb }
body { max-width: 62rem; margin: 2rem auto; padding: 0 1rem 5rem } ol { padding: 0 }
li.one { list-style: none; border: 1px solid var(--line); border-radius: .5rem; padding: .75rem; margin: .75rem 0;
         display: grid; grid-template-columns: 1fr 1fr auto; gap: 1rem }
li.one:focus-within, li.one.here { outline: 2px solid var(--good) } li ul { margin: 0; padding-left: 1.1rem }
button { font: inherit; padding: .3rem .8rem; border-radius: .5rem; cursor: pointer; display: block; width: 100%;
         margin-bottom: .4rem } button[aria-pressed=true] { font-weight: 700; outline: 2px solid currentColor }
.accept[aria-pressed=true] { color: var(--bad) } .reject[aria-pressed=true] { color: var(--good) }
footer { position: fixed; inset: auto 0 0 0; padding: .6rem 1rem; background: Canvas; border-top: 1px solid var(--line);
         display: flex; gap: 1rem; align-items: center; justify-content: center }
footer button { width: auto; margin: 0 }
p, dl { overflow-wrap: anywhere } .note { opacity: .75 }
@media (max-width: 45rem) { li.one { grid-template-columns: 1fr } }
"""
SCRIPT = """
"use strict";
const rows = [...document.querySelectorAll("li.one")], said = new Map();
let at = 0;
function tell() {
  document.getElementById("said").textContent = `${said.size} of ${rows.length} judged`;
  document.getElementById("keep").disabled = said.size === 0;
}
function label(row, value) {
  if (said.get(row) === value) said.delete(row); else said.set(row, value);
  const pressed = b => String(said.get(row) === b.dataset.label);
  row.querySelectorAll("button").forEach(b => b.setAttribute("aria-pressed", pressed(b)));
  tell();
}
function go(to) {
  at = Math.min(Math.max(to, 0), rows.length - 1);
  rows.forEach((row, i) => row.classList.toggle("here", i === at));
  rows[at].scrollIntoView({ block: "nearest" });
}
rows.forEach((row, i) => row.querySelectorAll("button").forEach(b => b.addEventListener("click", () => {
  label(row, b.dataset.label); go(i); })));
document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || !rows.length) return;
  if (event.key === "j") go(at + 1);
  if (event.key === "k") go(at - 1);
  if (event.key === "a" || event.key === "r") { label(rows[at], event.key === "a" ? "accept" : "reject"); go(at + 1); }
});
const quoted = text => '"' + text.replaceAll('"', '""') + '"';
document.getElementById("keep").addEventListener("click", () => {
  const lines = rows.filter(row => said.has(row)).map(row =>
    [quoted(row.dataset.file), row.dataset.row, said.get(row)].join(","));
  const text = ["source_file,source_row,label", ...lines].join("\\n") + "\\n";
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.download = "labels.csv";
  link.click();
});
tell();
"""


def page(title: str, listed: Sequence[Mapping[str, Any]], records: Sequence[str], unlisted: int) -> bytes:
    """Rows as they are listed, the most anomalous first.

    listed    {"source_file", "source_row", "score", "p_value", "reasons": texts, "values": {column: value}}
    records   HTML of each record, empty where its columns say all
    unlisted  anomalies that are not on the page
    """
    more = f" {unlisted:,} more are in the list and not on this page." if unlisted else ""
    body = [
        "<p>Is it an anomaly? Accept it, or reject it as a false alarm: click, or press a or r; j and k go down and "
        f"up. Then save the labels and name the file under <code>labels:</code> in the job.{more}</p>\n",
        "<ol>\n",
        *(_row(row, record) for row, record in zip(listed, records, strict=True)),
        "</ol>\n",
        '<footer><span id="said" role="status"></span>'
        '<button id="keep" type="button" disabled>Save the labels</button></footer>\n',
    ]
    return document(title, STYLE, body, SCRIPT)


def _row(row: Mapping[str, Any], record: str) -> str:
    file, number = str(row["source_file"]), int(row["source_row"])
    p_value = "" if row["p_value"] is None else f", p = {row['p_value']:.2g}"
    score = "cannot be read" if row["score"] is None else f"{row['score']:.2f}"
    why = "".join(f"<li>{escaped(reason)}</li>" for reason in row["reasons"])
    values = "".join(f"<li>{escaped(name)} = {escaped(value)}</li>" for name, value in row["values"].items())
    buttons = "".join(
        f'<button type="button" class="{label}" data-label="{label}" aria-pressed="false">{said}</button>'
        for label, said in (("accept", "Anomaly"), ("reject", "False alarm"))
    )
    return (
        f'<li class="one" data-file="{html.escape(file)}" data-row="{number}">'
        f"<div><p><b>{score}</b>{p_value}</p><ul>{why}</ul></div>"
        f'<div><p class="note">{escaped(file)} row {number}</p><div class="record">{record}</div>'
        f"<ul>{values}</ul></div>"
        f"<div>{buttons}</div></li>\n"
    )
