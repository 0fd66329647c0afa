"""Slots: the time that a scheduled run stands for, and the `{slot}` templates that it fills in a job file.

    {slot}               2026-11-01, the date
    {slot:%Y-%m-%dT%H}   any strftime form, for schedules that fire more than once a day
    {slot-1d:%Y-%m-%d}   the day before; also h (hours) and w (weeks), + and -

A slot is a time on the schedule and not the time at which somebody got round to it: a run that starts late, is tried
again or is back-filled fills in the same text, so it is the same job and its work is done once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from typing import Any
from zoneinfo import ZoneInfo

from genai_core.errors import InvalidInput, nearest
from jobs.documents import Document

TEMPLATE = re.compile(r"\{slot(?:(?P<sign>[+-])(?P<number>\d{1,6})(?P<unit>[hdw]))?(?::(?P<form>[^{}]+))?\}")
BEGUN = re.compile(r"\{slot\b")
UNITS = {"h": "hours", "d": "days", "w": "weeks"}
DATE = "%Y-%m-%d"


@dataclass(frozen=True)
class Slot:
    """A time on a schedule, in the schedule's zone, without seconds."""

    time: datetime

    @classmethod
    def at(cls, text: str, timezone: str = "UTC") -> Slot:
        """`2026-11-01`, `2026-11-01T02:30`, or `@1793500200` (seconds since 1970). Raises InvalidInput."""
        zone = zone_of(timezone)
        try:
            if text.startswith("@"):
                return cls(_minute(datetime.fromtimestamp(int(text[1:]), zone)))
            found = datetime.fromisoformat(text)
        except (ValueError, OverflowError, OSError):
            raise InvalidInput(
                f"--slot {text!r} is no time; give a date such as 2026-11-01, or a time such as 2026-11-01T02:30"
            ) from None
        return cls(_minute(found.replace(tzinfo=zone) if found.tzinfo is None else found.astimezone(zone)))

    @classmethod
    def last_due(cls, cron: str, timezone: str = "UTC", now: datetime | None = None) -> Slot:
        """The last time up to now at which a cron expression fires. Raises InvalidInput."""
        local = (now or datetime.now(UTC)).astimezone(zone_of(timezone))
        return cls(next(_fires(cron, local + timedelta(minutes=1), backwards=True)))

    def fill(self, text: str) -> str:
        """The text with its templates filled in."""
        return TEMPLATE.sub(self._filled, text)

    def _filled(self, match: re.Match[str]) -> str:
        time = self.time
        if match["unit"]:
            shift = timedelta(**{UNITS[match["unit"]]: int(match["number"])})
            time = time - shift if match["sign"] == "-" else time + shift
        return time.strftime(match["form"] or DATE)

    def __str__(self) -> str:
        return self.time.isoformat(timespec="minutes")


def zone_of(name: str) -> ZoneInfo:
    """A time zone by its IANA name. Raises InvalidInput."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        from zoneinfo import available_timezones

        hint = nearest(name, available_timezones())
        raise InvalidInput(
            f"--timezone {name!r} is no zone{hint}; give a name such as Europe/Berlin"
        ) from None


def check_cron(cron: str) -> None:
    """Raise InvalidInput unless it is a cron expression of five fields."""
    next(_fires(cron, datetime(2026, 1, 1, tzinfo=UTC)))


def times_of_day(cron: str) -> set[str]:
    """The times of day at which an expression fires within two weeks."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    found: set[str] = set()
    for time in _fires(cron, start):
        if time > start + timedelta(days=14) or len(found) > 1:
            break
        found.add(time.strftime("%H:%M"))
    return found


def shortest_gap(cron: str, timezone: str) -> timedelta:
    """Between two times at which an expression fires, among its next thousand."""
    fires = list(islice(_fires(cron, datetime(2026, 1, 1, tzinfo=zone_of(timezone))), 1000))
    times = [time.astimezone(UTC) for time in fires]  # the gap is one of seconds, not of clock faces
    return min((later - time for time, later in pairwise(times)), default=timedelta.max)


def _fires(cron: str, after: datetime, backwards: bool = False) -> Iterator[datetime]:
    from cronsim import CronSim, CronSimError

    try:
        if len(cron.split()) != 5:
            raise CronSimError("five fields are needed")
        yield from CronSim(cron, after, reverse=backwards)
    except CronSimError as error:
        raise InvalidInput(
            f"--cron {cron!r}: {str(error).lower()}; give minute, hour, day, month and weekday, such as '0 2 * * *'"
        ) from None
    raise InvalidInput(f"--cron {cron!r} never fires")


def _minute(time: datetime) -> datetime:
    return time.replace(second=0, microsecond=0)


def fill_documents(documents: Sequence[Document], slot: Slot | None) -> list[str]:
    """Fill every text of the documents; returns the faults: templates without a slot, or misspelt ones."""
    faults: list[str] = []
    for document in documents:
        document.value = _filled_value(document.value, (), document, slot, faults)
        if slot is not None and templates_in(document.text):
            document.overrides.append(f"slot {slot}")
    return faults


def templates_in(text: str) -> list[str]:
    """The templates that a text holds."""
    return [match.group(0) for match in TEMPLATE.finditer(text)]


def _filled_value(
    value: Any, path: tuple[str | int, ...], document: Document, slot: Slot | None, faults: list[str]
) -> Any:
    if isinstance(value, dict):
        return {k: _filled_value(v, (*path, k), document, slot, faults) for k, v in value.items()}
    if isinstance(value, list):
        return [_filled_value(v, (*path, i), document, slot, faults) for i, v in enumerate(value)]
    if not isinstance(value, str) or not BEGUN.search(value):
        return value
    rest = TEMPLATE.sub("", value)
    if BEGUN.search(rest):
        faults.append(
            f"{document.place(path)}: {value!r} holds a template that cannot be read; write {{slot}}, "
            "{slot:%Y-%m-%dT%H} or {slot-1d:%Y-%m-%d}"
        )
    elif slot is None:
        faults.append(
            f"{document.place(path)}: {value!r} stands for a scheduled time; say which: --slot 2026-11-01"
        )
    else:
        try:
            return slot.fill(value)
        except (ValueError, OverflowError) as error:
            faults.append(f"{document.place(path)}: {value!r} cannot be filled in for {slot}: {error}")
    return value


def slot_from(slot: str | None, cron: str | None, timezone: str) -> Slot | None:
    """What the command line asks for. Raises InvalidInput."""
    if slot is not None and cron is not None:
        raise InvalidInput("give --slot (a time) or --cron (the last time that a schedule fired), not both")
    if slot is not None:
        return Slot.at(slot, timezone)
    return None if cron is None else Slot.last_due(cron, timezone)
