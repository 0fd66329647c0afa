"""What tests of security share: a model that may be forged."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def forgeable_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model of a table; tests change copies of it."""
    from benchmarks.fuzz import small_model

    return small_model(tmp_path_factory.mktemp("forgeable") / "model")
