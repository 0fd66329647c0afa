"""The page of an augment job: what the synthetic rows did to a classifier, in words and two tables"""

from __future__ import annotations

import html
from collections.abc import Sequence

from genai_core.evaluation.utility import Uplift
from pipelines.pages.page_parts import STYLE
from pipelines.progress import printable

FILE = "_uplift.html"


def page(title: str, said: str, found: Uplift, test_rows: str) -> bytes:
    """UTF-8 HTML; every text of the data is escaped, and no script runs."""
    gain = found.gain
    figures = [
        ("average precision", found.average_precision_real, found.average_precision_augmented),
        ("AUROC", found.auroc_real, found.auroc_augmented),
    ]
    rows = [[name, f"{real:.4f}", f"{more:.4f}", f"{more - real:+.4f}"] for name, real, more in figures]
    positives = [[name, f"{count:,}"] for name, count in found.test_positives.items()]
    tag = "" if found.helps else ' class="tag"'
    body = (
        f"<p{tag}>{_text(said)}.</p>\n"
        + _table(["measure", "real rows", "real and synthetic", "difference"], rows)
        + f"<p>95 % interval of the difference of the average precisions, over {found.test_rows:,} test rows and "
        f"{len(found.seeds)} seeds of the classifier: {gain.low:+.4f} to {gain.high:+.4f}.</p>\n"
        f"<p>Test rows: {_text(test_rows)}.</p>\n" + _table(["class", "test rows"], positives)
    )
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    text = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_text(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>Do the synthetic rows help? {_text(title)}</h1>\n{body}</main>\n</body>\n</html>\n"
    )
    return text.encode("utf-8", "replace")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{_text(cell)}</{tag}>" for cell in cells) + "</tr>\n"

    return "<table>\n" + line(head, "th") + "".join(line(row, "td") for row in rows) + "</table>\n"


def _text(value: str) -> str:
    return html.escape(printable(value))
