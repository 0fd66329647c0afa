"""What a train job says of the right to use its data: carried into the model, its cards, and every file made with it

Whether a picture or a sound shows a person cannot be seen by a program that may be trusted with it. So it is asked:
`subjects: people` needs `consent`, and a train job that does not say is told so, in the log and in the model's card.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from genai_core.errors import InvalidInput
from pipelines.settings import Settings

PERSONAL = ("audio", "image", "image_codes")  # modalities whose records may be faces and voices
NOT_STATED = "not stated"


class RightsSettings(Settings):
    """Whose data it is, and what they have agreed to. Nothing of it is checked but that it is said."""

    subjects: Literal["people", "none"] | None = Field(
        None, description="whether records are of people who could be recognised, such as faces and voices"
    )
    consent: str | None = Field(
        None,
        min_length=1,
        max_length=2000,
        description="how the people agreed, and where that is written down",
    )
    licence: str | None = Field(
        None, min_length=1, max_length=200, description="such as CC-BY-4.0, or a contract"
    )
    purpose: str | None = Field(
        None, min_length=1, max_length=2000, description="what the data may be used for"
    )
    contact: str | None = Field(None, min_length=1, max_length=500, description="who answers for the data")

    @property
    def stated(self) -> dict[str, Any]:
        """What was said, without what was not."""
        return self.model_dump(mode="json", exclude_none=True)


def check(rights: RightsSettings, modality: str) -> list[str]:
    """Facts about what was said. Raises InvalidInput when people are trained on and no consent is named."""
    if rights.subjects == "people" and rights.consent is None:
        raise InvalidInput(
            "rights: subjects: people, but no consent: say how these people agreed, such as "
            "`rights: {subjects: people, consent: 'signed forms of 2026-03, archive 12'}`"
        )
    if modality in PERSONAL and rights.subjects is None:
        return [
            "rights: it is not said whether these records are of people (faces, voices); say "
            "`rights: {subjects: none}`, or `subjects: people` with their `consent`. The model's card will say that it "
            "is not stated"
        ]
    said = ", ".join(f"{name}: {value}" for name, value in rights.stated.items())
    return [f"rights: {said}"] if said else []
