"""Slots: what `{slot}` becomes, and which slot a run stands for however late it starts."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from genai_core.errors import InvalidInput, InvalidSpec
from jobs import spec
from jobs.slots import Slot, slot_from

NIGHTLY = """\
job: score
model: models:/flights@latest
source: {kind: parquet, path: lake/flights, filter: "month == {slot-1d:%m} and day == {slot-1d:%d}"}
sink: {path: "out/scores/{slot}"}
"""


@pytest.mark.parametrize(
    ("template", "filled"),
    [
        ("{slot}", "2026-03-01"),
        ("{slot-1d}", "2026-02-28"),
        ("{slot+2w:%d.%m.%Y}", "15.03.2026"),
        ("a/{slot:%Y}/{slot:%m}/{slot-3h:%H%M}", "a/2026/03/2330"),
        ("{slots} {other} {}", "{slots} {other} {}"),
    ],
)
def test_templates(template: str, filled: str) -> None:
    assert Slot.at("2026-03-01T02:30").fill(template) == filled


def test_one_time_however_it_is_written() -> None:
    zone = "Europe/Berlin"
    expected = Slot.at("2026-11-01T02:00", zone)
    assert Slot.at(f"@{int(expected.time.timestamp())}", zone) == expected
    assert Slot.at("2026-11-01T01:00+00:00", zone) == expected
    assert Slot.at("2026-11-01", zone).fill("{slot}") == expected.fill("{slot}")


@pytest.mark.parametrize(
    ("now", "due"),
    [
        ("2026-11-24T02:00", "2026-11-24T02:00"),  # just now
        ("2026-11-24T01:59", "2026-11-23T02:00"),
        ("2026-11-24T23:59", "2026-11-24T02:00"),  # started late: the same slot
    ],
)
def test_the_last_due_time(now: str, due: str) -> None:
    zone = ZoneInfo("America/New_York")
    found = Slot.last_due("0 2 * * *", zone.key, datetime.fromisoformat(now).replace(tzinfo=zone))
    assert found == Slot.at(due, zone.key)


@pytest.mark.parametrize(
    ("asked", "part"),
    [
        (("yesterday", None, "UTC"), "is no time"),
        (("@x", None, "UTC"), "is no time"),
        (("2026-11-01", None, "Europe/Berlim"), "did you mean 'Europe/Berlin'"),
        ((None, "0 2 * *", "UTC"), "five fields"),
        ((None, "61 2 * * *", "UTC"), "bad minute"),
        (("2026-11-01", "0 2 * * *", "UTC"), "not both"),
    ],
)
def test_what_is_no_slot_is_said(asked: tuple[str | None, str | None, str], part: str) -> None:
    with pytest.raises(InvalidInput, match=part):
        slot_from(*asked)


def test_a_job_file_is_filled_before_it_is_validated(tmp_path: Path) -> None:
    file = tmp_path / "nightly.yaml"
    file.write_text(NIGHTLY)
    (entry,) = spec.entries(file, slot=Slot.at("2026-11-01"))
    assert entry.job.sink.path == "out/scores/2026-11-01"
    assert entry.job.source.filter == "month == 10 and day == 31"
    assert "# slot 2026-11-01T00:00+00:00" in entry.text


def test_without_a_slot_every_template_is_named_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "nightly.yaml"
    file.write_text(NIGHTLY)
    with pytest.raises(InvalidSpec) as caught:
        spec.load(file)
    assert "nightly.yaml:3" in str(caught.value) and "nightly.yaml:4" in str(caught.value)
    assert "--slot" in str(caught.value)


def test_a_misspelt_template_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "nightly.yaml"
    file.write_text(NIGHTLY.replace("{slot}", "{slot-1x}"))
    with pytest.raises(InvalidSpec, match=r"nightly.yaml:4.*cannot be read"):
        spec.load(file, slot=Slot.at("2026-11-01"))
