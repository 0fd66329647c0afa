"""What every part of a job file is made of."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """Unknown keys are errors; values cannot change afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True)
