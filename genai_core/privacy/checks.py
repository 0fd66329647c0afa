"""What can be trained with differential privacy. Free of torch: checking a job file costs nothing."""

from __future__ import annotations

from typing import Any

from genai_core.errors import InvalidInput, MissingCapability, Unavailable
from genai_core.hyperparameters import FitSettings, TabularSettings

FAMILIES = ("autoregressive", "vae")


# noise falls on every weight, and single rows' gradients are written out: a third of the weights takes a third of the
# time. Still smaller (16, 32, 4) Adult is learnt worse at epsilon 3: a C2ST of .82 in place of .80
SIZES: dict[str, dict[str, Any]] = {
    "autoregressive": {"hidden": 24, "context": 48, "embedding": 8, "dropout": 0.0},
    "vae": {"hidden": 32, "latent": 8, "embedding": 4},
}


def sized(kind: str, settings: dict[str, Any] | Any) -> dict[str, Any] | Any:
    """A family's settings with the sizes of a private network where they are left open."""
    if isinstance(settings, dict):
        return SIZES[kind] | settings
    return settings.model_copy(
        update={name: size for name, size in SIZES[kind].items() if name not in settings.model_fields_set}
    )


def check_privacy(kind: str, reading: Any, settings: FitSettings, goes_on: bool = False) -> None:
    """Raise MissingCapability, InvalidInput or Unavailable for what cannot be trained with `fit.privacy`."""
    if settings.privacy is None:
        return
    require_library()
    if kind not in FAMILIES or not isinstance(reading, TabularSettings):
        raise MissingCapability(
            f"fit.privacy: found a {kind} model of {reading.kind} records; accepted are "
            f"{' and '.join(FAMILIES)} models of tables"
        )
    if goes_on:
        raise InvalidInput(
            "fit.privacy: a model that goes on from another holds what that one has learnt; leave model.from out"
        )
    if any(one.kind == "combination" for one in reading.constraints):
        raise InvalidInput(
            "fit.privacy: only the data tell which combinations there are; leave the constraint of kind combination out"
        )
    if settings.accumulate > 1 or settings.precision != "float32":
        raise InvalidInput("fit.privacy goes with neither fit.accumulate nor fit.precision; leave them out")


def require_library() -> None:
    """Raise Unavailable without opacus."""
    try:
        import opacus  # noqa: F401
    except ImportError:
        raise Unavailable(
            "fit.privacy needs the package opacus; say: pip install 'genai-core[privacy]'"
        ) from None
