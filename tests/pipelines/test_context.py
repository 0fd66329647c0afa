"""What jobs that stand above in the same file promise."""

from __future__ import annotations

from types import SimpleNamespace as Thing

import pytest

from pipelines.context import Context, registered_name

TRAIN = Thing(job="train", track=Thing(enabled=True, register_as="flights", alias="champion"))
OTHER = Thing(job="train", track=Thing(enabled=True, register_as=None, alias=None))
SCORE = Thing(
    job="score", sink=Thing(path="out/scores/"), track=Thing(enabled=True, register_as="flights", alias=None)
)


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("models:/flights", "flights"),
        ("models:/flights@latest", "flights"),
        ("models:/flights/3", "flights"),
        ("models:/", None),
        ("runs:/abc/model", None),
        ("out/flights", None),
    ],
)
def test_registered_name(uri: str, name: str | None) -> None:
    assert registered_name(uri) == name


@pytest.mark.parametrize("uri", ["models:/flights", "models:/flights@latest", "models:/flights@champion"])
def test_an_earlier_train_job_promises_its_model(uri: str) -> None:
    assert Context(earlier=(TRAIN, SCORE, OTHER)).promised_model(uri) is TRAIN


@pytest.mark.parametrize(
    "uri", ["models:/flight", "models:/flights/3", "models:/flights@other", "flights", "runs:/flights/model"]
)
def test_other_models_are_not_promised(uri: str) -> None:
    assert Context(earlier=(TRAIN, SCORE, OTHER)).promised_model(uri) is None


def test_a_sink_that_a_train_job_writes_is_a_model_to_come() -> None:
    kept = Thing(
        job="train", track=Thing(enabled=False, register_as=None, alias=None), sink=Thing(path="out/model")
    )
    assert Context(earlier=(kept, SCORE)).promised_model("out/model/") is kept
    assert Context(earlier=(kept, SCORE)).promised_model("out/scores") is None


def test_an_untracked_job_promises_no_model() -> None:
    untracked = Thing(job="train", track=Thing(enabled=False, register_as="flights", alias=None))
    assert Context(earlier=(untracked,)).promised_model("models:/flights") is None


def test_an_earlier_sink_promises_its_files() -> None:
    context = Context(earlier=(TRAIN, SCORE))
    assert context.promised_output("out/scores") is SCORE
    assert context.promised_output("out/scores/data") is SCORE
    assert context.promised_output("out/scores2") is None
