"""What there is, as sorted literal tuples: nothing scans, nothing registers by decorator. Free of torch.

`kind: x` in a job file <-> file `x.py`. A new thing is one file and one line here; tests say which was forgotten.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

MODELS = ("autoregressive", "gan", "vae")
MODALITIES = ("tabular",)
SCORES = ("discriminator", "negative_log_likelihood", "reconstruction")


@dataclass(frozen=True)
class Family:
    """What a family states about itself; a contract test holds it against the class header."""

    capabilities: tuple[str, ...]
    bound: str | None  # of log_prob: "exact", "lower", or no likelihood
    scores: tuple[str, ...]  # the first is the default


FAMILIES = {
    "autoregressive": Family(("log_prob", "samples"), "exact", ("negative_log_likelihood",)),
    "gan": Family(("discriminates", "samples"), None, ("discriminator",)),
    "vae": Family(
        ("log_prob", "reconstructs", "samples"), "lower", ("negative_log_likelihood", "reconstruction")
    ),
}


def model_class(kind: str) -> Any:
    """The Model class of a family; imports torch."""
    module = import_module(f"genai_core.models.{kind}")
    return module.MODEL


def build_model(kind: str, space: Any, settings: dict[str, Any] | Any) -> Any:
    """A model of a family with its settings, from a dictionary or a settings object; imports torch."""
    from pydantic import TypeAdapter

    from genai_core.hyperparameters import ModelSettings

    if isinstance(settings, dict):
        settings = TypeAdapter(ModelSettings).validate_python({"kind": kind, **settings})
    return model_class(kind)(space, settings)


def codec_class(kind: str) -> Any:
    """The Codec class of a modality."""
    return import_module(f"genai_core.modalities.{kind}").CODEC


def score(name: str) -> Any:
    """The scoring module: `score(model, records) -> (rows, fields) nats or (rows,)`; imports torch."""
    return import_module(f"genai_core.scores.{name}")
