"""Secrets out of free text: job files, command lines and messages, before they are stored or shown."""

from __future__ import annotations

import re

HIDDEN = "***"
_KEY = r"(?:api|access|account|private|secret)[_-]?key"
_SECRET = rf"(?:password|passwd|pwd|secret|token|credentials?|signature|sig|sas|{_KEY})"
_WORD = rf"[\w.-]*{_SECRET}"

_RULES = (
    # scheme://user:pass@host; AWS secrets hold '/', so everything up to the last '@' goes
    (re.compile(r"(?<=://)[^\s/'\"@:]*:[^\s'\"]*@"), HIDDEN + "@"),
    (re.compile(r"(?<=://)[^\s/'\"@]+@"), HIDDEN + "@"),
    (re.compile(rf"([?&](?:{_WORD}|X-Amz-[\w-]+)=)[^&\s'\"]+", re.IGNORECASE), r"\1" + HIDDEN),
    (
        re.compile(rf"(?<![\w.-])(['\"]?{_WORD}['\"]?[ \t]*[:=][ \t]*)(['\"])(?:(?!\2).)+\2", re.IGNORECASE),
        rf"\1\2{HIDDEN}\2",
    ),
    (
        re.compile(
            rf"(?<![\w.-])(['\"]?{_WORD}['\"]?[ \t]*[:=][ \t]*)(?!\*\*\*)[^\s'\"{{\[,}}]+", re.IGNORECASE
        ),
        r"\1" + HIDDEN,
    ),
    (re.compile(r"\b(Bearer|Basic)[ \t]+[\w.~+/=-]{8,}"), rf"\1 {HIDDEN}"),
    # known by themselves: AWS access keys, tokens of GitHub and Hugging Face
    (re.compile(r"\b(?:(?:AKIA|ASIA)[A-Z0-9]{16}|gh[opsu]_\w{36,}|github_pat_\w{50,}|hf_\w{30,})\b"), HIDDEN),
)


def mask_text(text: str) -> str:
    """The text with the passwords, tokens and keys that it spells out replaced by ***."""
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text
