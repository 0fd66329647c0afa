"""The job files that ship: they load, they are what they say, and flights.yaml holds the three single ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from genai_core.catalog import FAMILIES, MODELS
from jobs.spec import KINDS, entries, load, schema

SPECS = Path(__file__).parents[2] / "jobs" / "specs"
FILES = sorted(SPECS.glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_loads_and_says_what_it_is_for(path: Path) -> None:
    assert load(path)
    first, second = path.read_text().splitlines()[:2]
    assert (
        first == "# yaml-language-server: $schema=../schema.json"
        and second.startswith("# ")
        and second.endswith((".", "?"))
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_editors_find_it_valid_too(path: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    for document in yaml.safe_load_all(path.read_text()):
        jsonschema.validate(document, schema())


def test_the_whole_is_its_parts() -> None:
    parts = [job for name in ("train", "generate", "score") for job in load(SPECS / f"{name}_flights.yaml")]
    assert load(SPECS / "flights.yaml") == parts


def test_every_kind_and_every_family_has_an_example() -> None:
    jobs = [entry.job for path in FILES for entry in entries(path)]
    assert {job.job for job in jobs} == set(KINDS)
    assert {job.model.kind for job in jobs if job.job == "train"} == set(MODELS) == set(FAMILIES)
