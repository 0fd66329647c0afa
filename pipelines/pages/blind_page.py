"""A blind test: pairs of a real and a synthetic record, one question, answers that the page lets you keep.

Two-alternative forced choice (Green & Swets 1966): in every pair people pick the record that they take for the real
one. Where nothing gives the synthetic one away they are right half of the time. What is right stands in another file.
"""

from __future__ import annotations

import html
from collections.abc import Sequence

from pipelines.pages.records_as_html import document

STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 1rem }
.side { border: 1px solid color-mix(in srgb, currentColor 25%, transparent); border-radius: .5rem; padding: .75rem;
        display: flex; flex-direction: column; justify-content: space-between; gap: .75rem; min-width: 0 }
button { font: inherit; padding: .5rem 1rem; border-radius: .5rem; cursor: pointer } progress { width: 100% }
[hidden] { display: none }
"""
SCRIPT = """
"use strict";
const pairs = [...document.querySelectorAll(".pair")], answers = [], done = document.getElementById("done");
const bar = document.querySelector("progress"), said = document.getElementById("said");
let at = 0, since = performance.now();
function show() {
  pairs.forEach((pair, i) => { pair.hidden = i !== at; });
  bar.value = at;
  said.textContent = at < pairs.length ? `Pair ${at + 1} of ${pairs.length}` : "That was the last pair.";
  done.hidden = at === 0;
  since = performance.now();
}
function choose(side) {
  if (at >= pairs.length) return;
  answers.push({ trial: at, chosen: side, milliseconds: Math.round(performance.now() - since) });
  at += 1;
  show();
}
document.querySelectorAll("button[data-side]").forEach(b => b.addEventListener("click", () => choose(b.dataset.side)));
document.addEventListener("keydown", event => {
  if (event.target.tagName === "INPUT") return;
  if (event.key === "ArrowLeft") choose("left");
  if (event.key === "ArrowRight") choose("right");
});
document.getElementById("keep").addEventListener("click", () => {
  const judge = document.getElementById("judge").value;
  const text = JSON.stringify({
    page: document.querySelector("[data-page]").dataset.page, judge, answers }, null, 1);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  link.download = `answers-${(judge || "judge").replace(/[^A-Za-z0-9_-]/g, "_")}.json`;
  link.click();
});
show();
"""


def page(identity: str, left: Sequence[str], right: Sequence[str]) -> bytes:
    """The page of the pairs (`left[i]`, `right[i]`), HTML of records; `identity` comes back with the answers."""
    pairs = [_pair(*each) for each in zip(left, right, strict=True)]
    body = [
        f'<div data-page="{html.escape(identity)}"></div>\n',
        "<p>Of each pair one record is real, the other was made by a model. Pick the one that you take for the real "
        "one: click, or press the left or right arrow key. You cannot go back.</p>\n",
        f'<progress max="{len(pairs)}" value="0" aria-label="pairs judged"></progress>\n',
        '<p id="said" role="status"></p>\n',
        *pairs,
        '<p id="done" hidden><label>Your name or initials, if you like: <input id="judge" maxlength="60"></label>\n'
        '<button id="keep" type="button">Save the answers</button></p>\n',
    ]
    return document("Which one is real?", STYLE, body, SCRIPT)


def _pair(left: str, right: str) -> str:
    sides = "".join(
        f'<div class="side"><div class="record">{record}</div>'
        f'<button type="button" data-side="{side}">This one is real ({arrow})</button></div>'
        for side, record, arrow in (("left", left, "&larr;"), ("right", right, "&rarr;"))
    )
    return f'<div class="pair" hidden>{sides}</div>\n'
