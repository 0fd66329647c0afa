"""The section `gate:` of a job that makes records: what has to hold before they are published"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, create_model, model_validator

from genai_core.evaluation.measures import MEASURES
from pipelines.comparison import Comparison
from pipelines.settings import Settings

# held to those of unseen real rows where the job says nothing else
DEFAULTS = ("copies", "nearer_to_train")


class Limit(Settings):
    """What a figure may be."""

    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError("give `min`, `max` or both, such as {max: 0.7}")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}; nothing could pass")
        return self


class _Gate(Comparison):
    """Real records, held-out ones, and limits. Copies and nearness to training records have limits by default."""

    override: str | None = Field(
        None,
        min_length=3,
        max_length=500,
        description="publish whatever comes out, for this reason, which is recorded",
    )

    @property
    def limits(self) -> dict[str, Limit]:
        """Those that the job gives, in the order of the measures."""
        return {name: limit for name in MEASURES if (limit := getattr(self, name)) is not None}


_LIMITS: dict[str, Any] = {
    name: (Limit | None, Field(None, description=f"{meaning.title}: {meaning.question}"))
    for name, meaning in MEASURES.items()
}
if TYPE_CHECKING:
    GateSettings = _Gate
else:
    GateSettings = create_model(
        "GateSettings", __base__=_Gate, __module__=__name__, __doc__=_Gate.__doc__, **_LIMITS
    )
