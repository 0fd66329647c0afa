"""What the shared sections of a job file accept and refuse."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from pipelines.settings import ComputeSettings, TrackSettings


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"runner": "rya"}, "accepted are auto, inline, ray"),
        ({"runner": "ray://head:10001"}, "HOST:PORT"),
        ({"workers": 0}, "greater than or equal to 1"),
        ({"gpus_per_worker": 1.5}, "whole number"),
        ({"object_store_memory": "1MB"}, "80000000"),
        ({"wrokers": 2}, "wrokers"),
    ],
)
def test_compute_settings_refuse_what_ray_could_not_do(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ComputeSettings.model_validate(fields)


def test_compute_settings_read_sizes_and_addresses() -> None:
    compute = ComputeSettings.model_validate({"runner": "10.0.0.1:6379", "object_store_memory": "300MB"})
    assert (compute.runner, compute.object_store_memory) == ("10.0.0.1:6379", 300_000_000)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"register": "flights", "alias": "latest"}, "reserves"),
        ({"register": "flights", "alias": "v3"}, "cannot be an alias"),
        ({"register": "a/b"}, "cannot name"),
        ({"alias": "champion"}, "needs `register"),
        ({"uri": "./mlruns"}, "sqlite:///mlflow.db"),
    ],
)
def test_track_settings_refuse_what_mlflow_would(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TrackSettings.model_validate(fields)
