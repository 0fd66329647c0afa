"""`--set`: where a value goes, and what is said when it has no place."""

from __future__ import annotations

from pathlib import Path

import pytest

from genai_core.errors import InvalidSpec
from jobs.overrides import settable
from jobs.spec import KINDS, load

FILE = """\
job: train
name: flights
source: {kind: parquet, path: lake/flights}
model: {kind: vae, latent: 4}
---
job: generate
model: models:/flights@latest
rows: 100
where: {origin: JFK}
sink: {path: out/synthetic}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    written = tmp_path / "job.yaml"
    written.write_text(FILE)
    return written


def test_a_key_reaches_the_jobs_that_have_it(path: Path) -> None:
    train, generate = load(path, ["fit.seed=8", "seed=9", "track.experiment=both"])
    assert (train.fit.seed, generate.seed) == (8, 9)
    assert train.track.experiment == generate.track.experiment == "both"


def test_the_last_one_wins(path: Path) -> None:
    assert load(path, ["rows=1", "rows=2"])[1].rows == 2


def test_values_are_yaml(path: Path) -> None:
    train, generate = load(
        path, ["modality.exclude=[id, tail]", "where={dest: NO, month: 3}", "source.filter=month <= 9"]
    )
    assert train.modality.exclude == ["id", "tail"]
    assert generate.where == {"dest": "NO", "month": 3}
    assert train.source.filter == "month <= 9"


def test_a_value_may_hold_an_equals_sign(path: Path) -> None:
    assert load(path, ["source.filter=origin == 'JFK'"])[0].source.filter == "origin == 'JFK'"


def test_a_free_mapping_takes_any_key(path: Path) -> None:
    assert load(path, ["where.dest=SFO", "where.a.b=1"])[1].where == {
        "origin": "JFK",
        "dest": "SFO",
        "a.b": 1,
    }


def test_a_kind_is_set_before_the_keys_that_it_brings(path: Path) -> None:
    with pytest.raises(InvalidSpec, match="'latent'"):
        load(path, ["model.kind=autoregressive"])
    assert load(path, ["model.pac=3", "model.kind=gan"])[0].model.pac == 3


def test_plain_value_and_section_go_to_the_jobs_of_their_form(path: Path) -> None:
    train, generate = load(path, ["model=models:/other/3", "model={kind: gan}"])
    assert (train.model.kind, generate.model) == ("gan", "models:/other/3")


def test_faults_of_an_override_name_it(path: Path) -> None:
    with pytest.raises(InvalidSpec, match=r"^--set fit\.seed=-1: fit\.seed is -1; it must be at least 0$"):
        load(path, ["fit.seed=-1"])


WRONG = {
    "fit.sed=8": "--set fit.sed=8: no job of this file has the key 'fit.sed'; did you mean 'fit.seed'?",
    "patience=8": "--set patience=8: no job of this file has the key 'patience'; did you mean 'fit.patience'?",
    "zzz=1": "--set zzz=1: no job of this file has the key 'zzz'; it can start with",
    "fit.seed.deep=1": "--set fit.seed.deep=1: no job of this file has the key 'fit.seed.deep'",
    "seed": "--set seed: write KEY=VALUE",
    "=8": "--set =8: write KEY=VALUE",
    "fit..seed=8": "--set fit..seed=8: write KEY=VALUE",
    "job=score": "--set job=score: the kind of job cannot be overridden",
    "rows=[1": "--set rows=[1: not readable as YAML",
    "rows=1\n---\n2": "--set rows=1\\x0a---\\x0a2: holds several documents",
    "rows=*a": "--set rows=*a: the anchor or alias",
}


@pytest.mark.parametrize("text", WRONG)
def test_what_has_no_place_or_sense_is_refused(text: str, path: Path) -> None:
    with pytest.raises(InvalidSpec) as caught:
        load(path, [text])
    assert str(caught.value).startswith(WRONG[text])
    assert "\n" not in str(caught.value)


def test_completion_offers_every_key() -> None:
    offered = settable(KINDS.values())
    assert {"fit.seed", "source.filter", "model.latent", "sink.path", "track.register", "rows"} <= set(
        offered
    )
    assert "job" not in offered
