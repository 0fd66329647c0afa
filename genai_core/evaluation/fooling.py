"""Fooling rate: how often people take the synthetic record of a pair for the real one.

Half of the time is what guessing gives (two-alternative forced choice, Green & Swets 1966). The interval is the exact
binomial one (Clopper & Pearson 1934), which takes the answers for independent: several judges of the same pairs are not
quite, so each judge is told apart, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from genai_core.errors import InvalidInput

CONFIDENCE = 0.95
STRICT = ConfigDict(extra="forbid", strict=True, frozen=True)
Side = Literal["left", "right"]


class Answer(BaseModel):
    """Which side of a pair was taken for the real one."""

    model_config = STRICT
    trial: Annotated[int, Field(ge=0, lt=10_000)]
    chosen: Side
    milliseconds: Annotated[int, Field(ge=0)] = 0


class Answers(BaseModel):
    """What one judge saved."""

    model_config = STRICT
    page: Annotated[str, Field(min_length=1, max_length=300)]
    judge: Annotated[str, Field(max_length=60)] = ""
    answers: Annotated[list[Answer], Field(min_length=1, max_length=10_000)]


@dataclass(frozen=True)
class Rate:
    """Pairs judged, how many fooled, the rate's interval, and the p-value of "no better than guessing"."""

    pairs: int
    fooled: int
    low: float
    high: float
    p_value: float

    @property
    def rate(self) -> float:
        return self.fooled / self.pairs


@dataclass(frozen=True)
class Fooling:
    """Of all answers together, and of each judge."""

    all: Rate
    judges: Mapping[str, Rate]


def fooling(found: Sequence[Answers], real_is: Sequence[str]) -> Fooling:
    """Raises InvalidInput for pairs that are not there, or answered twice by a judge."""
    if not found:
        raise InvalidInput("no answers are given; name the files that people saved")
    counts: dict[str, list[bool]] = {}
    for number, one in enumerate(found, 1):
        trials = [answer.trial for answer in one.answers]
        if len(set(trials)) < len(trials) or max(trials) >= len(real_is):
            raise InvalidInput(
                f"answers {number} ({one.judge or 'no name'}) name a pair twice, or one of more than {len(real_is)}"
            )
        name = one.judge or f"judge {number}"
        while name in counts:
            name += " (again)"
        counts[name] = [answer.chosen != real_is[answer.trial] for answer in one.answers]
    together = [fooled for judge in counts.values() for fooled in judge]
    return Fooling(rate_of(together), {name: rate_of(judge) for name, judge in counts.items()})


def rate_of(fooled: Sequence[bool]) -> Rate:
    """Of some answers; two-sided against one half."""
    from scipy.stats import binomtest

    test = binomtest(sum(fooled), len(fooled), 0.5)
    interval = test.proportion_ci(CONFIDENCE, "exact")
    return Rate(len(fooled), int(sum(fooled)), float(interval.low), float(interval.high), float(test.pvalue))
