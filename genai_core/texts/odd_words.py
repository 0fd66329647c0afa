"""Which words of a text made it improbable: each with its place, its nats and the words around it"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

WORDS = 5  # of a text are named
WORD = re.compile(r"\S{1,24}")  # a longer run of characters is several words
AROUND = 24  # characters shown on either side


def odd_words(text: str, nats: np.ndarray, column: str) -> list[dict[str, Any]]:
    """The words that cost most, falling; each {"column": "text[12:17]", "nats", "value": "... won a >>prize<< now"}.

    nats  float (bytes of the text + 1,): of each byte, and at last of the end of the text. What stands before a word
          counts with it. The place is in characters; an odd end is the empty span behind the last character.
    """
    spans = [match.span() for match in WORD.finditer(text)]
    costs = np.concatenate([[0.0], np.cumsum(_by_character(text, nats[:-1]))])
    ends = [end for _, end in spans]
    found = [
        (float(costs[end] - costs[before]), start, end)
        for (start, end), before in zip(spans, [0, *ends], strict=False)
    ]
    found.append((float(costs[-1] - costs[ends[-1] if ends else 0] + nats[-1]), len(text), len(text)))
    found.sort(key=lambda word: -word[0])
    return [
        {"column": f"{column}[{start}:{end}]", "nats": cost, "value": _marked(text, start, end)}
        for cost, start, end in found[:WORDS]
        if cost > 0
    ]


def _by_character(text: str, nats: np.ndarray) -> np.ndarray:
    """Sums over the bytes of each character."""
    first = (np.frombuffer(text.encode(), np.uint8) & 0xC0) != 0x80
    return np.bincount(np.cumsum(first) - 1, nats, len(text)) if len(text) else np.zeros(0)


def _marked(text: str, start: int, end: int) -> str:
    """The word between >> and << with what stands around it."""
    left, right = max(start - AROUND, 0), end + AROUND
    before, after = text[left:start], text[end:right]
    return f"{'...' if left else ''}{before}>>{text[start:end]}<<{after}{'...' if right < len(text) else ''}"
